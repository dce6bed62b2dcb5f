"""``metaflow.S3``, which IncludeFile uses too."""

from ...switch import load

_s3 = load("mfstore.metaflow.needs")

if _s3 is not None:
    S3 = _s3.S3
del load
