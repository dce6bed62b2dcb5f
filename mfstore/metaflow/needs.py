"""Imports what Metaflow's processes will need of mfstore, so that all of it is used or nothing: what is missing should
not be found out in the middle of a run.

It is imported while Metaflow itself is, and so must not need Metaflow. As of ``extension`` its name stays.
"""

import isal.igzip_lib

from mfstore._core import codec, crc, transfer
from mfstore.format import digests
from mfstore.s3.datatools.s3 import S3

__all__ = ["S3", "codec", "crc", "digests", "isal", "transfer"]
