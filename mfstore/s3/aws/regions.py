"""In which regions buckets are, by what servers what."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping

from mfstore.s3.aws.errors import said
from mfstore.s3.calls import Call, Reply

REDIRECTS_REMEMBERED = 10_000  # far more calls than are ever under way at once
REGION = re.compile(r"[a-z0-9-]{1,63}")
WRONG_REGION = ("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed")


class BucketRegions:
    """The buckets of one client that are elsewhere than ``home``. Safe to use from several threads of one process.

    Only a region's name is taken from a server, never a host: credentials go nowhere that botocore would not send them.
    """

    def __init__(self, home: str, learned: Mapping[str, str]) -> None:
        self.learned = dict(learned)
        """The region of each bucket that a server told."""
        self.asked: set[str] = set()
        """Buckets whose region was asked for."""
        self.redirected: set[tuple[object, ...]] = set()
        """Calls that were told a region, with it: each is sent again once, or two servers could play ball with it."""
        self._home = home
        self.lock = threading.Lock()

    def of(self, bucket: str) -> str | None:
        """The region of a bucket, None if nothing was said of it."""
        return self.learned.get(bucket)

    def learn(self, call: Call, reply: Reply, ask: Callable[[str], str | None], changed: Callable[[], None]) -> bool:
        """What a reply says: True if the call is worth sending again, once per call and region. ``ask`` has a server
        tell a bucket's region; ``changed`` is called, with the lock held, when a region was not known before."""
        if call.bucket.startswith("arn:") or reply.failure is not None:
            return False
        what = said(reply)
        head = reply.status == 400 and call.operation.startswith("Head")  # no body to say AuthorizationHeaderMalformed
        moved = reply.status in (301, 302, 307, 308)
        if not (head or moved or what.code in WRONG_REGION or what.code.startswith("IllegalLocationConstraint")):
            return False
        region = reply.headers.get("x-amz-bucket-region") or what.region or self._answer(call.bucket, ask)
        if not region or not REGION.fullmatch(region):
            return False
        with self.lock:
            known = self.learned.get(call.bucket)
            if known is None and region == self._home:
                return False
            # Many calls may be under way with the old region: each is told once.
            told = (
                call.bucket, region, call.operation, call.key, call.start, call.part, call.upload, repr(call.params),
            )  # fmt: skip
            if told in self.redirected:
                return False
            if len(self.redirected) >= REDIRECTS_REMEMBERED:
                self.redirected.clear()
            self.redirected.add(told)
            if known != region:
                self.learned[call.bucket] = region
                changed()
            return True

    def _answer(self, bucket: str, ask: Callable[[str], str | None]) -> str | None:
        """The region by a question of our own, which is put once."""
        with self.lock:
            if bucket in self.asked:
                return self.learned.get(bucket)
            self.asked.add(bucket)
        return ask(bucket)
