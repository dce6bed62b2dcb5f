"""``mfstore.S3`` and the values it takes and returns, under the name that programs import them by."""

from mfstore.s3.datatools.objects import RangeInfo, S3GetObject, S3Object, S3PutObject
from mfstore.s3.datatools.s3 import S3

__all__ = ["S3", "RangeInfo", "S3GetObject", "S3Object", "S3PutObject"]
