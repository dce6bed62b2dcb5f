"""Where ``mfstore.S3`` looks: from a run, a root or a full URL to bucket and key."""

from __future__ import annotations

import os.path
import sys
from typing import Any

from mfstore.s3.datatools.exceptions import MetaflowS3Exception, MetaflowS3InvalidRange, MetaflowS3URLException, failure
from mfstore.s3.urls import split_url


def find_root(run: Any, s3root: str | None, bucket: str | None, prefix: str | None, configured: str | None) -> Any:
    """(root or None, bucket, prefix): the root that keys are relative to, without a trailing slash, by the rules of
    ``S3(run=…)``, ``S3(s3root=…)`` and ``S3()``. MetaflowS3URLException when it cannot be told."""
    if run:
        if configured is None:
            raise failure(
                MetaflowS3URLException,
                "S3(run=…) needs a root, and DATATOOLS_S3ROOT is not configured",
                hint="Set METAFLOW_DATATOOLS_S3ROOT or METAFLOW_DATASTORE_SYSROOT_S3 to s3://bucket/prefix",
            )
        default_bucket, path = _divide(configured)
        bucket = bucket or default_bucket
        prefix = os.path.join(prefix or path, *_run_path(run))  # noqa: PTH118
        return f"s3://{bucket}/{prefix.strip('/')}", bucket, prefix
    if s3root:
        root = s3root.decode() if isinstance(s3root, bytes) else str(s3root)
        if not _is_url(root):
            raise failure(
                MetaflowS3URLException,
                "s3root has to be an S3 URL",
                found=repr(root),
                hint="Write it as s3://bucket/prefix",
            )
        return "s3://" + root[5:].rstrip("/"), bucket, prefix
    return None, bucket, prefix


def _run_path(run: Any) -> tuple[str, str]:
    """Flow and run id, of a flow that is running or of a Run of Metaflow's client."""
    metaflow = sys.modules.get("metaflow")
    flow = getattr(metaflow, "FlowSpec", None)
    if flow is not None and isinstance(run, flow):
        if not _running():
            raise failure(
                MetaflowS3URLException,
                "a FlowSpec says where to look only while its flow is running",
                hint="Outside of it give a Run: S3(run=Flow('…').latest_run)",
            )
        current: Any = sys.modules["metaflow.metaflow_current"].current
        return current.flow_name, current.run_id
    try:
        return run.parent.id, run.id
    except AttributeError:
        raise failure(
            MetaflowS3URLException, "run has to be a FlowSpec or a Run", found=type(run).__name__, hint="S3(run=self)"
        ) from None


def _running() -> bool:
    module = sys.modules.get("metaflow.metaflow_current")
    return module is not None and bool(module.current.is_running_flow)


def full_url(root: str | None, given: Any) -> str:
    """The URL of a key (or of an object with a ``key``). MetaflowS3URLException for a relative key without a root, or
    a URL with one."""
    key = getattr(given, "key", given)
    key = key.decode() if isinstance(key, bytes) else key
    if root is None:
        if isinstance(key, str) and _is_url(key) and "/" in key[5:]:
            return key
        hint = "Use S3(run=self)" if _running() else "Use S3(s3root='s3://…'), S3(run=…)"
        raise failure(
            MetaflowS3URLException,
            "this S3 has no root, so it takes only full s3:// URLs",
            found=f"{key!r:.200}",
            hint=hint + " for keys relative to it",
        )
    if not key:
        return root
    if not isinstance(key, str):
        raise failure(MetaflowS3URLException, "a key is a string", found=f"{key!r:.200}")
    if key.startswith("s3://"):
        raise failure(
            MetaflowS3URLException,
            "this S3 has a root, so it takes keys relative to it, not URLs",
            key=key,
            expected=f"a key under {root}",
            hint="Use S3() without run and s3root for full URLs",
        )
    return f"{root}/{key.lstrip('/')}"


def target(url: str) -> str:
    """The URL as the bulk client reads it: what follows the bucket and all slashes after it is the key.
    MetaflowS3Exception when there is none."""
    bucket, key = split_url("s3://" + url[5:])
    key = key.lstrip("/")
    if not key:
        raise failure(MetaflowS3Exception, "S3 operation failed: the URL names no object", key=url)
    return f"s3://{bucket}/{key}"


def listed(url: str) -> str:
    """The prefix to list for everything under ``url``, which is taken for a directory."""
    bucket, key = split_url("s3://" + url[5:])
    key = key.lstrip("/")
    return f"s3://{bucket}/{key}{'/' if key and not key.endswith('/') else ''}"


def ranged(given: Any, url: str) -> Any:
    """The item of a get: ``url``, or (url, start, length) when ``given`` asks for a part.

    ``length`` None means to the end; a negative one the last so many bytes, whatever the offset.
    MetaflowS3InvalidRange for what is no range in HTTP.
    """
    start, length = getattr(given, "offset", None), getattr(given, "length", None)
    if start is None and length is None:
        return url
    if length is not None and length < 0:
        return url, length, None
    start = start or 0
    if start < 0 or length == 0:
        raise failure(
            MetaflowS3InvalidRange,
            "a range begins at 0 or later and has at least one byte",
            key=url,
            found=f"offset {start}, length {length}",
            hint="For the last n bytes give length=-n",
        )
    return url, start, length


def _is_url(text: str) -> bool:
    return text[:5].lower() == "s3://"


def _divide(url: str) -> tuple[str, str]:
    bucket, _, path = url.partition("://")[2].partition("/")
    return bucket, "/" + path if path else ""
