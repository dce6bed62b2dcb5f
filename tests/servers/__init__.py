"""The real servers that tests and benchmarks run against, each a context manager on free ports of 127.0.0.1.

``Radosgw`` is Ceph's, from Debian: full signatures, atomic conditions, old in some ways. ``Ministack`` is from PyPI:
the checksums and conditions of newer S3. ``Nginx`` stores bytes faster than any of them and knows nothing else.
``Azurite`` is Azure's Blob service, ``FakeGcs`` Google Cloud Storage. Beside those, for Metaflow: ``Moto`` for what its schedulers ask of AWS, ``MetadataService`` for its runs.
"""

from tests.servers.azurite import Azurite, AzuriteTls
from tests.servers.base import Answer, Missing, Server, boto_client, client_options
from tests.servers.gcs import FakeGcs
from tests.servers.metadata import MetadataService
from tests.servers.ministack import Ministack
from tests.servers.moto import Moto
from tests.servers.nginx import Nginx
from tests.servers.radosgw import Radosgw

__all__ = [
    "Answer",
    "Azurite",
    "AzuriteTls",
    "FakeGcs",
    "MetadataService",
    "Ministack",
    "Missing",
    "Moto",
    "Nginx",
    "Radosgw",
    "Server",
    "boto_client",
    "client_options",
]
