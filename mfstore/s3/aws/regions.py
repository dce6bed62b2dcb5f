"""In which regions buckets are, by what servers what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from mfstore.s3.aws.errors import said
from mfstore.s3.calls import Call, Reply

REDIRECTS_REMEMBERED = 10_000  # far more calls than are ever under way at once
SECONDS_TO_SEND = 1.0
"""From when a request is prepared, for a region or by a clock, to when it is sent, at most."""
REGION = re.compile(r"[a-z0-9-]{1,63}")
WRONG_REGION = ("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed")


class BucketRegions:
    """The buckets of one client that are elsewhere than ``home``. Safe to use from several threads of one process and
    in signal handlers: there is no lock that one could hold and another wait for.

    Only a region's name is taken from a server, never a host: credentials go nowhere that botocore would not send them.
    """

    def __init__(self, home: str, learned: Mapping[str, str]) -> None:
        self.learned = dict(learned)
        """The region of each bucket that a server told."""
        self.asked: dict[str, object] = {}
        """Buckets whose region was asked for."""
        self.redirected: dict[tuple[object, ...], object] = {}
        """Calls that were told a region, with it: each is sent again once, or two servers could play ball with it. How
        often those are which were under way when it was told, is for who sends them to bound."""
        self._when: dict[str, float] = {}
        """When a bucket's region was told (time.monotonic())."""
        self._home = home

    def of(self, bucket: str) -> str | None:
        """The region of a bucket, None if nothing was said of it."""
        return self.learned.get(bucket)

    def learn(self, call: Call, reply: Reply, ask: Callable[[str], str | None], changed: Callable[[], None]) -> bool:
        """What a reply says: True if the call is worth sending again, once per call and region. ``ask`` has a server
        tell a bucket's region; ``changed`` is called when a region was not known before."""
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
        known = self.learned.get(call.bucket)
        if known is None and region == self._home:
            return False
        if known == region and 0.0 < reply.submitted < self._when.get(call.bucket, 0.0) + SECONDS_TO_SEND:
            return True  # of many that were under way with the old region; several may be alike
        told = (
            call.bucket, region, call.operation, call.key, call.start, call.part, call.upload, repr(call.params),
        )  # fmt: skip
        if told not in self.redirected and len(self.redirected) >= REDIRECTS_REMEMBERED:
            self.redirected.clear()
        if not _first(self.redirected, told):
            return False
        if known != region:
            self.learned[call.bucket] = region
            self._when[call.bucket] = monotonic()
            changed()
        return True

    def _answer(self, bucket: str, ask: Callable[[str], str | None]) -> str | None:
        """The region by a question of our own, which is put once."""
        if not _first(self.asked, bucket):
            return self.learned.get(bucket)
        return ask(bucket)


def _first(seen: dict[Any, object], what: object) -> bool:
    """Note ``what``: whether nobody has before. One step, of all threads that come at once true for one."""
    mine = object()
    return seen.setdefault(what, mine) is mine
