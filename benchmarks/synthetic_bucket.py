"""A bucket with a Metaflow root of many runs, made up from their numbers, behind a small server that speaks as much S3
as a collection asks for, and counts it. Its clock can be moved."""

import bisect
import hashlib
import json
import re
import socketserver
import threading
import time
from collections import Counter
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

KINDS = ("DONE.lock", "attempt.json", "data.json", "runtime", "task_begin", "task_stdout.log")
LOGS = ("runtime_stdout.log", "task_stderr.log")


class Shape(NamedTuple):
    """What a run leaves behind."""

    steps: tuple[str, ...]
    """Of its tasks, in order."""
    kinds: tuple[str, ...]
    """Files of each task."""
    own: int
    """Blobs that only it refers to."""

    @property
    def objects(self):
        """Of a run."""
        return len(self.steps) * len(self.kinds) + self.own


SHAPES = {
    "small": Shape(("start", "train", "end"), KINDS, 2),
    "typical": Shape(("start", "load", "clean", *["train"] * 5, "join", "score", "report", "end"), (*KINDS, *LOGS), 54),
}
"""Twenty objects a run, and 150: eight steps, one of them a foreach of five tasks."""
TRUE = "bbd5d1ba7a0ba5e0a7d8b8f7a9c1e5a4f4d8c1aa"
DAY = 86400.0
EMPTY = b"", hashlib.md5(b"").hexdigest()


def digest(*words):
    """Of a blob's content, as Metaflow names it."""
    return hashlib.sha1("/".join(map(str, words)).encode()).hexdigest()


class Bucket:
    """Objects below ``mf/``: of each run the files of its tasks, and blobs of its own."""

    def __init__(self, flows, shape="small"):
        self.flows = flows
        self.shape = SHAPES[shape]
        self.keys = []
        self.told = {}
        """Size, ETag and time by key."""
        self.stored = {}
        """What was put: bytes by key. The rest is made when it is read."""
        self.began = {}
        """When each run began, by its number."""
        self.asked = Counter()
        self.offset = 0.0
        self.lock = threading.Lock()

    def now(self):
        return time.time() + self.offset

    def add_runs(self, numbers, began):
        """Runs with these numbers, that began at the time that ``began`` gives of each."""
        for number in numbers:
            flow, run = self.place(number)
            moment = self.began[number] = began(number)
            for task, step in enumerate(self.shape.steps):
                for kind in self.shape.kinds:
                    key = f"mf/{flow}/{run}/{step}/{task + 1}/0.{kind}"
                    data = self.content(number, task, kind)
                    etag = hashlib.md5(data).hexdigest() if data else EMPTY[1]
                    self.told[key] = len(data), etag, moment
            for blob in self.own(number):
                self.told[f"mf/{flow}/data/{blob[:2]}/{blob}"] = 5000, blob[:32], moment
        self.keys = sorted(self.told)

    def place(self, number):
        return f"Flow{number % self.flows:03}", f"argo-{number:08}"

    def own(self, number):
        return [digest(number, blob) for blob in range(self.shape.own)]

    def content(self, number, task, kind):
        """What a file of a run says."""
        if kind == "attempt.json":
            return json.dumps({"time": self.began[number]}).encode()
        if kind == "task_begin":
            return json.dumps({"code_package_sha": None, "code_package_ds": "s3"}).encode()
        if kind != "data.json":
            return b""
        flow = number % self.flows
        keys = {name: digest(flow, name) for name in ("name", "alpha", "table", "_graph_info", "_foreach_stack")}
        keys |= {"_task_ok": TRUE, "_success": TRUE, "_transition": digest(flow, self.shape.steps[task])}
        # The first task stores none; what others store, the next ones refer to as well.
        tasks = len(self.shape.steps)
        stored = self.own(number)[: self.shape.own * task // (tasks - 1)][-8:]
        keys |= {f"result{at}": key for at, key in enumerate(stored)}
        infos = {name: {"size": 4000, "type": "<class 'dict'>", "encoding": "gzip+pickle-v4"} for name in keys}
        document = {"datastore": "s3", "version": "1.0", "attempt": 0, "python_version": "3.11.7", "objects": keys}
        return json.dumps({**document, "info": infos}).encode()

    def read(self, key):
        if key in self.stored:
            return self.stored[key]
        if "/data/" in key:
            return bytes(self.told[key][0])
        _, _, run, _, task, name = key.split("/")
        return self.content(int(run[5:]), int(task) - 1, name[2:])

    def put(self, key, data):
        if key not in self.told:
            bisect.insort(self.keys, key)
        self.stored[key] = data
        self.told[key] = len(data), hashlib.md5(data).hexdigest(), float(int(self.now()))

    def copy(self, source, key):
        if key not in self.told:
            bisect.insort(self.keys, key)
        if source in self.stored:
            self.stored[key] = self.stored[source]
        size, etag, _ = self.told[source]
        self.told[key] = size, etag, float(int(self.now()))

    def delete(self, keys):
        gone = {key for key in keys if self.told.pop(key, None) is not None}
        for key in gone:
            self.stored.pop(key, None)
        if len(gone) < 50:
            for key in gone:
                del self.keys[bisect.bisect_left(self.keys, key)]
        else:
            self.keys = [key for key in self.keys if key not in gone]

    def page(self, prefix, after, delimiter, most):
        """Keys, folders, and the last of them when there are more."""
        keys = self.keys
        at = bisect.bisect_left(keys, prefix) if after < prefix else bisect.bisect_right(keys, after)
        found, folders, last = [], [], ""
        if delimiter and after.endswith(delimiter) and after > prefix:
            at = bisect.bisect_left(keys, after[:-1] + chr(ord("/") + 1))
        while at < len(keys) and keys[at].startswith(prefix):
            if len(found) + len(folders) == most:
                return found, folders, last
            cut = keys[at].find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                last = keys[at][: cut + 1]
                folders.append(last)
                at = bisect.bisect_left(keys, last[:-1] + chr(ord("/") + 1))
            else:
                last = keys[at]
                found.append(last)
                at += 1
        return found, folders, ""


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    wbufsize = 1 << 16

    def handle(self):
        try:
            while self.one():
                self.wfile.flush()
        except (TimeoutError, ConnectionError, ValueError):
            return

    def one(self):
        line = self.rfile.readline()
        if not line:
            return False
        method, target, _ = line.decode().split(" ", 2)
        headers = {}
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if headers.get("expect"):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        body = self.rfile.read(length) if length else b""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        bucket = self.server.bucket
        with bucket.lock:
            status, more, data = self.answer(bucket, method, key, query, headers, body)
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(data)}", *(f"{n}: {v}" for n, v in more.items())]
        lines.append(f"date: {formatdate(bucket.now(), usegmt=True)}")
        if method == "HEAD":
            lines[1] = f"content-length: {more.get('x-length', 0)}"
            data = b""
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return True

    def answer(self, bucket, method, key, query, headers, body):
        if not key and method == "GET" and "list-type" in query:
            bucket.asked["list"] += 1
            return 200, {}, self.listing(bucket, query)
        if method == "GET" and not key:
            return 404, {}, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"
        if method == "POST" and "delete" in query:
            bucket.asked["delete"] += 1
            return 200, {}, self.deletion(bucket, body.decode())
        told = bucket.told.get(key)
        etag = f'"{told[1]}"' if told else None
        if method in ("PUT", "DELETE"):
            bucket.asked["put" if method == "PUT" else "delete"] += 1
            if "if-match" in headers and headers["if-match"].strip('"') != (told[1] if told else None):
                return (412, {}, b"<Error><Code>PreconditionFailed</Code></Error>") if told else (404, {}, b"")
            if headers.get("if-none-match") == "*" and told:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
            if method == "DELETE":
                bucket.delete([key])
                return 204, {}, b""
            if "x-amz-copy-source" in headers:
                source = unquote(headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
                if source not in bucket.told:
                    return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
                bucket.copy(source, key)
                return 200, {}, f"<CopyObjectResult><ETag>{bucket.told[key][1]}</ETag></CopyObjectResult>".encode()
            bucket.put(key, body)
            return 200, {"etag": f'"{bucket.told[key][1]}"'}, b""
        bucket.asked["get"] += 1
        if told is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        more = {"etag": etag, "last-modified": formatdate(told[2], usegmt=True), "x-length": told[0]}
        if method == "HEAD":
            return 200, more, b""
        data = bucket.read(key)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if span:
            start = int(span[1])
            part = data[start : int(span[2]) + 1 if span[2] else None]
            return 206, {**more, "content-range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}, part
        return 200, more, data

    def listing(self, bucket, query):
        after = query.get("continuation-token") or query.get("start-after") or ""
        most = int(query.get("max-keys", 1000))
        keys, folders, last = bucket.page(query.get("prefix", ""), after, query.get("delimiter"), most)
        rows = []
        for key in keys:
            size, etag, moment = bucket.told[key]
            day = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))
            rows.append(
                f"<Contents><Key>{quote(key)}</Key><LastModified>{day}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
                f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        rows += [f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>" for name in folders]
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if last else ""
        return (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
            f"<IsTruncated>{str(bool(last)).lower()}</IsTruncated>{token}{''.join(rows)}</ListBucketResult>"
        ).encode()

    def deletion(self, bucket, text):
        keys, refused = [], []
        for found in re.findall(r"<Object>(.*?)</Object>", text, re.DOTALL):
            key = unescape(re.search(r"<Key>(.*?)</Key>", found, re.DOTALL)[1])
            etag = re.search(r"<ETag>(.*?)</ETag>", found, re.DOTALL)
            told = bucket.told.get(key)
            if etag and told and unescape(etag[1], {"&quot;": '"'}).strip('"') != told[1]:
                refused.append(f"<Error><Key>{escape(key)}</Key><Code>PreconditionFailed</Code></Error>")
            else:
                keys.append(key)
        bucket.delete(keys)
        done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return f"<DeleteResult>{'' if '<Quiet>true' in text else done}{''.join(refused)}</DeleteResult>".encode()


class Server(socketserver.ThreadingTCPServer):
    """Serves one bucket, whatever it is called."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, bucket):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bucket = bucket
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"
