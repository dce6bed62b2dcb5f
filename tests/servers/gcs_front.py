"""A proxy before fake-gcs-server that does what Google documents and the server leaves out.

* Conditions on generations, of every request about one object; the server looks at them in uploads of one kind alone.
* Checksums that are given with an upload are compared with its bytes.
* Resumable uploads. The server's end with the first question how far they are, and are forgotten when they have ended.
* Tokens that a test has a judge for may what he says; who may not list is not told that something is absent.
* What is absent is named, the bucket or the object; a deletion is answered 204; each answer has an id.

All that changes an object is done one request at a time for each, with the whole body read before. The rest goes
through as it is, batches of requests among it, whose parts nobody looks at.
"""

import asyncio
import itertools
import json
import uuid
import weakref
from dataclasses import replace
from urllib.parse import quote

from mfstore.testing import FaultProxy
from mfstore.testing._flow import Flow
from mfstore.testing._http import Body, Head
from mfstore.testing._wire import Broken
from mfstore.testing.actions import Action
from tests.servers import gcs_rules
from tests.servers.base import Answer

REQUEST_ID = "X-GUploader-UploadID"


class GcsFront(FaultProxy):
    """Where clients connect, instead of to the server."""

    def __init__(self, url):
        super().__init__(url)
        self.sessions = {}
        self.ids = itertools.count(1)
        self.judges = {}
        """By a token, who judges what it may: ``judge(permission, bucket, name, listing)``. All others may all."""
        self._locks = weakref.WeakValueDictionary()

    def lock(self, bucket, name):
        """One change of an object at a time."""
        return self._locks.setdefault((bucket, name), asyncio.Lock())

    def note(self, exchange):
        """It lives as long as the tests do; who counts requests has a proxy of its own."""

    async def _serve(self, wire, number):
        self._clients.add(wire)
        try:
            await _FrontFlow(self, wire, number).serve()
        finally:
            wire.close()
            self._clients.discard(wire)


class Secure(Action):
    """For a proxy that speaks https before the front: so does where uploads go on."""

    async def after(self, flow):
        if location := flow.response.get("Location"):
            flow.response.set("Location", location.replace("http://", "https://", 1))


class _FrontFlow(Flow):
    async def _forward(self):
        asked = gcs_rules.Asked.of(self.exchange.method, self.exchange.path, self.exchange.query, self.exchange.headers)
        self.host = self.request.get("Host")
        self.request.set("Host", self._server())  # by which it knows requests of the XML API
        if asked.what == "other":
            await super()._forward()
            return
        if self.request.closes:  # the client's connection: the server is asked more on ours
            self.closing = True
            self.request.set("Connection", None)
        if asked.what == "read":
            if refusal := await self._denied(asked):
                await self._reply(refusal)
            else:
                await self._read(asked)
            return
        body, whole = await self._body()
        if asked.what == "chunk":
            answer = await self._chunk(asked, body, whole)
        elif not whole:
            raise Broken(self.client, reset=False)
        else:
            answer = await getattr(self, f"_{asked.what}")(asked, body)
        await self._reply(answer)

    # ---- each kind of request ---------------------------------------------------------------

    async def _read(self, asked):
        upstream = await self._connect()
        conditions = list(asked.conditions())
        if conditions and not asked.media:
            current = await self._current(asked.bucket, asked.name)
            if current and (status := gcs_rules.unmet(conditions, current)):
                await self._reply(gcs_rules.unmet_condition(asked, status))
                return
        await upstream.send(self.request.raw)
        head = Head.parse(await self._head(upstream))
        body = Body.of_response(head, self.exchange.method, upstream)
        current = {"generation": head.get("x-goog-generation"), "metageneration": "1"}
        if head.status == 404:
            await body.collect()
            await self._reply(gcs_rules.absent(asked, await self._has_bucket(asked.bucket)))
        elif asked.media and head.status < 400 and (status := gcs_rules.unmet(conditions, current)):
            await body.collect()
            await self._reply(gcs_rules.unmet_condition(asked, status))
        else:
            head.edit([*head.fields, self._id()])
            await self.client.send(head.raw + await body.whole() if body.simple else head.raw)
            await body.relay(self.client)

    async def _insert(self, asked, body):
        if asked.query.get("uploadType") == "multipart":
            found = gcs_rules.described(asked.headers, body)
            if found is None:
                return gcs_rules.invalid(asked, "Malformed multipart body.")
            said, data = found
        else:
            said, data = {}, body
        asked = replace(asked, name=said.get("name") or asked.name)
        if refusal := await self._denied(asked) or gcs_rules.mismatch(asked, said, data):
            return refusal
        return await self._store(asked, self.request.line.split(" ")[1], self._passed_headers(), body)

    async def _start(self, asked, body):
        said = json.loads(body) if body.strip() else {}
        asked = replace(asked, name=said.get("name") or asked.name)
        if refusal := await self._denied(asked):
            return refusal
        if not await self._has_bucket(asked.bucket):
            return gcs_rules.absent(asked, False)
        key = uuid.uuid4().hex
        said["name"] = asked.name
        self.proxy.sessions[key] = gcs_rules.Session(asked, said)
        where = f"http://{self.host}{self.exchange.path}?uploadType=resumable&upload_id={key}"
        return Answer(200, {"Location": where}, b"")

    async def _chunk(self, asked, body, whole):
        session = self.proxy.sessions.get(asked.query["upload_id"])
        if session is None:
            return gcs_rules.error(asked, 404, "notFound", "No such upload.")
        if session.finished:
            return session.finished
        outcome = session.take(asked.headers, body, whole)
        if not whole:
            raise Broken(self.client, reset=False)
        if outcome is None:
            return session.progress()
        if outcome != "end":
            return gcs_rules.invalid(asked, outcome)
        given = replace(session.asked, headers={**session.asked.headers, **asked.headers})
        if refusal := gcs_rules.mismatch(given, session.said, session.data):
            del self.proxy.sessions[asked.query["upload_id"]]
            return refusal
        answer = await self._store(session.asked, *session.whole())
        if answer.status == 200:
            session.finished, session.data = answer, bytearray()
        return answer

    async def _cancel(self, asked, body):
        if self.proxy.sessions.pop(asked.query["upload_id"], None) is None:
            return gcs_rules.error(asked, 404, "notFound", "No such upload.")
        return Answer(499, {}, b"")

    async def _store(self, asked, target, headers, body):
        async with self.proxy.lock(asked.bucket, asked.name):
            conditions = list(asked.conditions())
            current = await self._current(asked.bucket, asked.name) if conditions else None
            if status := gcs_rules.unmet(conditions, current):
                return gcs_rules.unmet_condition(asked, status)
            answer = await self._ask("POST", target, headers, body)
        return gcs_rules.absent(asked, False) if answer.status == 404 else answer

    async def _change(self, asked, body):
        if refusal := await self._denied(asked):
            return refusal
        method, target = self.request.line.split(" ")[:2]
        creates = asked.source or target.partition("?")[0].endswith("/compose")
        async with self.proxy.lock(asked.bucket, asked.name):
            for conditions, where in (
                (list(asked.source_conditions()), asked.source),
                (list(asked.conditions()), (asked.bucket, asked.name)),
            ):
                if not conditions:
                    continue
                current = await self._current(*where)
                if current is None and not (creates and where != asked.source):
                    return gcs_rules.absent(asked, await self._has_bucket(where[0]), where)
                if status := gcs_rules.unmet(conditions, current):
                    return gcs_rules.unmet_condition(asked, status)
            answer = await self._ask(method, target, self._passed_headers(), body)
        if answer.status == 404:
            where = asked.source or (asked.bucket, asked.name)
            return gcs_rules.absent(asked, await self._has_bucket(where[0]), where)
        return Answer(204, {}, b"") if method == "DELETE" and answer.status == 200 else answer

    _delete = _update = _change

    async def _denied(self, asked):
        """The refusal of what the request's token may not; or None."""
        judge = self.proxy.judges.get(self.request.get("Authorization").removeprefix("Bearer "))
        if judge is None:
            return None
        exists = asked.name is not None and await self._current(asked.bucket, asked.name) is not None
        for permission, bucket, name in gcs_rules.permissions(asked, exists):
            if not judge(permission, bucket, name, asked.listing):
                return gcs_rules.denied(asked, permission)
        return None

    # ---- the server -------------------------------------------------------------------------

    async def _current(self, bucket, name):
        """What is there: its generation and metageneration; None if nothing is."""
        target = f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name or '', safe='')}"
        answer = await self._ask("GET", target)
        if answer.status != 200:
            return None
        found = json.loads(answer.body)
        return {"generation": found["generation"], "metageneration": found.get("metageneration", "1")}

    async def _has_bucket(self, name):
        return (await self._ask("GET", f"/storage/v1/b/{quote(name, safe='')}")).status == 200

    async def _ask(self, method, target, headers=None, body=b""):
        upstream = await self._connect()
        fields = {"Host": self._server(), "Content-Length": str(len(body)), **(headers or {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await upstream.send(f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1"))
        if body:
            await upstream.send(body)
        head = Head.parse(await self._head(upstream))
        data = await Body.of_response(head, method, upstream).collect()
        passed = {
            k: v for k, v in head.fields if k.lower() not in ("content-length", "transfer-encoding", "connection")
        }
        # Links in what it says lead to where the client connected, for Google's own client follows them.
        return Answer(head.status, passed, data.replace(f"//{self._server()}/".encode(), f"//{self.host}/".encode()))

    def _server(self):
        return f"127.0.0.1:{self.proxy.upstream[1]}"

    async def _head(self, upstream):
        raw = await upstream.until(b"\r\n\r\n")
        if not raw:
            raise Broken(upstream, reset=False)
        return raw

    def _passed_headers(self):
        left = ("host", "content-length", "transfer-encoding", "connection", "expect", "authorization")
        return {name: value for name, value in self.request.fields if name.lower() not in left}

    # ---- the client -------------------------------------------------------------------------

    async def _body(self):
        """The request's body, and whether all of it came."""
        if "100-continue" in self.request.get("Expect").lower():
            await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.request_body
        if body.chunked:
            return await body.collect(), True
        data = bytearray()
        while len(data) < body.length:
            try:
                piece = await self.client.receive(min(body.length - len(data), 1 << 20))
            except Broken:
                piece = b""
            if not piece:
                return data, False
            data += piece
        body.passed = len(data)
        return data, True

    async def _reply(self, answer):
        bodiless = answer.status in (204, 304)
        fields = [*answer.headers.items(), self._id()]
        if not bodiless:
            fields.append(("Content-Length", str(len(answer.body))))
        text = "".join(f"{name}: {value}\r\n" for name, value in fields)
        head = f"HTTP/1.1 {answer.status} Front\r\n{text}\r\n".encode("latin-1")
        self.answered = True
        await self.client.send(head if bodiless or self.exchange.method == "HEAD" else head + answer.body)

    def _id(self):
        return REQUEST_ID, f"front-{next(self.proxy.ids)}"
