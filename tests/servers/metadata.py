"""Metaflow's metadata service as far as Metaflow's own client uses it, in memory.

The service itself is released as a container image only. What is here is its contract: the routes, status codes and
fields that Metaflow's ``ServiceMetadataProvider`` depends on. A request for anything else is answered 404 and kept in
``refused``, so that a test sees that the contract has grown.
"""

import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "2.5.0"
LEVELS = ("flow_id", "run_number", "step_name", "task_id")
KINDS = ("flow", "run", "step", "task")
WORDS = ("flows", "runs", "steps", "tasks")


class MetadataService:
    """Within ``with``, at ``url``."""

    def __enter__(self):
        self.log, self.refused = [], []
        self._objects = {}  # (flow, run, …): record
        self.lists = {}  # (task's path, "metadata" | "artifacts"): records
        self.refuses_tags = False
        self._connections = set()
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                service._connections.add(self.connection)

            def finish(self):
                service._connections.discard(self.connection)
                super().finish()

            def _serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = service._answer(self.command, self.path, json.loads(body) if body else None)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("METADATA_SERVICE_VERSION", VERSION)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _serve

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._connections):  # their clients need not hang up before they are let go
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def environment(self):
        """What makes Metaflow use it."""
        return {"METAFLOW_DEFAULT_METADATA": "service", "METAFLOW_SERVICE_URL": self.url}

    def add(self, *ids, tags=(), system_tags=(), user="ada", began=None, heartbeat=None):
        """A flow, run, step or task, with all above it; times in seconds since the epoch. What it was before goes."""
        for depth in range(1, len(ids)):
            self._objects.setdefault(ids[:depth], dict(zip(LEVELS, ids[:depth], strict=False)))
        self._objects.pop(ids, None)
        self._create(ids, {"tags": list(tags), "system_tags": list(system_tags), "user_name": user})
        if began is not None:
            self._objects[ids]["ts_epoch"] = int(began * 1000)
        if len(ids) in (2, 4):
            self._objects[ids]["last_heartbeat_ts"] = heartbeat

    def tags(self, *ids):
        """Those of a run."""
        return self._objects[ids]["tags"]

    def children(self, *ids):
        """The ids of what is one level below."""
        return [path[-1] for path in self._objects if path[:-1] == ids]

    # ---- the contract -----------------------------------------------------------------------

    def _answer(self, method, target, body):
        path, _, query = target.partition("?")
        with self._lock:
            status, answer = self._route(method, path, query, body)
        self.log.append((method, path, status))
        if answer is None:
            self.refused.append((method, target))
            return 404, {"message": "no such route"}
        return status, answer

    def _route(self, method, path, query, body):
        if path == "/ping":
            return 200, "pong"
        ids, rest = _split(path)
        if rest == "/heartbeat" and method == "POST":
            if ids not in self._objects:
                return 404, {"message": "not found"}
            self._objects[ids]["last_heartbeat_ts"] = int(time.time())
            return 200, json.dumps({"wait_time_in_seconds": 10})  # as text within JSON: so the service does
        if rest == "" and method == "GET":
            found = self._objects.get(ids)
            return (200, found) if found else (404, {"message": "not found"})
        if rest == "" and method == "POST" and len(ids) == 1:
            return self._create(ids, body)
        if rest == "/tag/mutate" and method == "PATCH":
            if self.refuses_tags:
                return 403, {"message": "not allowed"}
            run = self._objects[ids]
            run["tags"] = sorted({*run["tags"], *body["tags_to_add"]} - {*body["tags_to_remove"]})
            return 200, {"tags": run["tags"]}
        if method == "POST":
            return self._post(ids, rest, body)
        return self._get(ids, rest, query) if method == "GET" else (404, None)

    def _post(self, ids, rest, body):
        kind = rest.removeprefix("/")
        if kind in ("run", "step", "task") and len(ids) == KINDS.index(kind) + (kind == "step"):
            if kind == "step":  # its name is in the path
                return self._create(ids, body)
            name = body.get("run_number" if kind == "run" else "task_id")
            name = str(len(self._objects) + 1) if name is None else str(name)
            return self._create((*ids, name), body)
        if kind in ("metadata", "artifact") and len(ids) == 4:
            if ids not in self._objects:
                return 400, {"message": "need to register run_id and task_id first"}
            common = dict(zip(LEVELS, ids, strict=True))
            records = self.lists.setdefault((ids, kind), [])
            if kind == "metadata":
                records += [{**common, "id": len(records) + n, **record} for n, record in enumerate(body)]
            else:
                records += [{**record, **common} for record in body]
            return 200, {f"{kind}{'s' * (kind == 'artifact')}_created": len(body)}
        return 404, None

    def _get(self, ids, rest, query):
        if rest == "/metadata" and len(ids) == 4:
            return 200, self.lists.get((ids, "metadata"), [])
        if rest == "/filtered_tasks" and len(ids) == 3 and not query:
            return 200, ["/".join(path) for path in self._objects if path[:3] == ids and len(path) == 4]
        one = re.fullmatch(r"/artifacts/(\w+)(?:/attempt/(\d+))?", rest)
        if one and len(ids) == 4:
            found = [item for item in self._artifacts(ids, one[2]) if item["name"] == one[1]]
            return (200, found[0]) if found else (404, {"message": "artifact not found"})
        many = re.fullmatch(r"(?:/attempt/(\d+))?/artifacts", rest)
        if many:
            tasks = [path for path in self._objects if path[: len(ids)] == ids and len(path) == 4]
            return 200, [item for path in tasks for item in self._artifacts(path, many[1])]
        if rest.removeprefix("/") in WORDS and WORDS.index(rest[1:]) == len(ids):
            deeper = [path for path in self._objects if path[: len(ids)] == ids and len(path) == len(ids) + 1]
            return 200, [self._objects[path] for path in reversed(deeper)]
        return 404, None

    def _create(self, ids, body):
        if ids in self._objects:
            return 409, {"message": "exists"}
        now = int(time.time() * 1000)
        self._objects[ids] = {
            **dict(zip(LEVELS, ids, strict=False)),
            "user_name": body.get("user_name"),
            "tags": body.get("tags") or [],
            "system_tags": body.get("system_tags") or [],
            "ts_epoch": now,
            **({"last_heartbeat_ts": now // 1000} if len(ids) in (2, 4) else {}),
        }
        return 200, self._objects[ids]

    def _artifacts(self, ids, attempt):
        """Of one attempt, else of the latest."""
        records = self.lists.get((ids, "artifact"), [])
        latest = max((record["attempt_id"] for record in records), default=0)
        wanted = latest if attempt is None else int(attempt)
        return [record for record in records if record["attempt_id"] == wanted]


def _split(path):
    """``("Flow", "1", "start"), "/tasks"`` of "/flows/Flow/runs/1/steps/start/tasks"."""
    ids = []
    while len(ids) < len(WORDS) and (found := re.match(rf"/{WORDS[len(ids)]}/([^/]+)", path)):
        ids.append(found[1])
        path = path[found.end() :]
    return tuple(ids), path
