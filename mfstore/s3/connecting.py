"""How connections to a service are made of which botocore knows nothing: by arguments, and by the environment as
``requests`` reads it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from mfstore.errors import Unsupported
from mfstore.s3.aws.certificates import HOST_BUNDLES
from mfstore.s3.aws.routes import Transport

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name a bundle of certificates, the one that counts first."""


def transport_to(url: str, verify: bool | str | None = None) -> Transport:
    """How to connect to ``url``. ``verify``: False: trust any certificate; a path: this bundle; None: as the
    environment says, else certifi's, else the host's. Raises Unsupported for a bundle that is not there."""
    proxy = _proxy(url)
    # Over plain HTTP nothing is verified, and the engine need not find out by what it would be.
    verified = verify is not False and (url.startswith("https:") or (proxy or "").startswith("https:"))
    return Transport(
        verify=verified,
        ca_file=_bundle(verify) if verified else None,
        proxy=proxy,
        threads=min(4, os.cpu_count() or 1),
    )


def _bundle(verify: bool | str | None) -> str:
    named = [("verify=", verify)] if isinstance(verify, str | os.PathLike) else []
    named += [(name, value) for name in BUNDLES if (value := os.environ.get(name))]
    if named:
        source, path = named[0][0], os.fspath(str(named[0][1]))
        if not os.path.exists(path):  # noqa: PTH110
            raise Unsupported(f"the CA bundle {path!r} does not exist", hint=f"It comes from {source}")
        return path
    try:
        from certifi import where
    except ImportError:
        found = next((path for path in HOST_BUNDLES if os.path.exists(path)), None)  # noqa: PTH110
        if found is None:
            raise Unsupported(
                "there are no certificates to verify servers by",
                hint="pip install certifi, or give verify='bundle.pem'",
            ) from None
        return found
    return where()


def _proxy(url: str) -> str | None:
    """The proxy of the environment for ``url``, unless NO_PROXY excludes it."""
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}"
