"""Whose certificates are trusted where nobody names any."""

import pytest

from mfstore.s3.aws.certificates import HOST_BUNDLES, Authorities, authorities, choose

OF_BOTOCORE = "/site-packages/certifi/cacert.pem"
DEBIAN, FEDORA = HOST_BUNDLES[:2]


@pytest.mark.parametrize(
    ("there", "environ", "expected"),
    [
        ({OF_BOTOCORE, DEBIAN}, {"SSL_CERT_FILE": "/mine.pem"}, Authorities(OF_BOTOCORE, "botocore")),
        ({DEBIAN, "/mine.pem"}, {"SSL_CERT_FILE": "/mine.pem"}, Authorities("/mine.pem", "SSL_CERT_FILE")),
        # Never another than the one that is named.
        ({DEBIAN}, {"SSL_CERT_FILE": "/gone.pem"}, Authorities("/gone.pem", "SSL_CERT_FILE")),
        ({DEBIAN, FEDORA}, {"SSL_CERT_FILE": ""}, Authorities(DEBIAN, "host")),
        ({FEDORA}, {}, Authorities(FEDORA, "host")),
        (set(), {}, Authorities(OF_BOTOCORE, "botocore")),
    ],
)
def test_whose_are_trusted(there, environ, expected):
    assert choose(OF_BOTOCORE, environ, there.__contains__) == expected


def test_botocores_are_trusted_here():
    from botocore.httpsession import get_cert_path

    assert authorities() == Authorities(str(get_cert_path(True)), "botocore")
