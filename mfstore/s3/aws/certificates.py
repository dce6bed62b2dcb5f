"""Which authorities are trusted where nobody names any: those of botocore, else those of the host.

Other than a bundle that is named: verify=, AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE, ca_bundle of the profile
(``sessions.transport_for``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

HOST_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat, of newer releases alone
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/ssl/cert.pem",  # macOS, Alpine, the BSDs
    "/usr/local/etc/ssl/cert.pem",  # FreeBSD
)
"""Where systems have theirs, the commoner places first. The OpenSSL of a wheel knows none: it was built elsewhere."""


@dataclass(frozen=True)
class Authorities:
    """A file of certificates, in PEM."""

    path: str
    origin: str
    """Who named it: ``botocore``, ``SSL_CERT_FILE`` or ``host``."""


def authorities() -> Authorities:
    """Those that connections trust by themselves. Imports botocore; asks no network."""
    from mfstore.s3.aws.botocore_internals import certificates

    return choose(certificates(), os.environ, os.path.exists)


def choose(of_botocore: str, environ: Mapping[str, str], exists: Callable[[str], bool]) -> Authorities:
    """botocore's, as for every other client of it. Where that file is not there, which packagers manage who want the
    host's to be used, the file that OpenSSL would be told of, else the host's. botocore's again where there is none:
    whoever reads it says that it is missing."""
    if exists(of_botocore):
        return Authorities(of_botocore, "botocore")
    named = environ.get("SSL_CERT_FILE")
    if named:
        return Authorities(named, "SSL_CERT_FILE")
    for path in HOST_BUNDLES:
        if exists(path):
            return Authorities(path, "host")
    return Authorities(of_botocore, "botocore")
