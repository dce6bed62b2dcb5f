"""How S3 would be reached, by what botocore finds on this machine. No server is asked, and no secret is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mfstore.doctor.findings import Finding

METHODS = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the credentials file",
    "config-file": "the configuration file",
    "assume-role": "a role that the profile names, assumed when first needed",
    "assume-role-with-web-identity": "a web identity token, by which a role is assumed when first needed",
    "sso": "a login by SSO",
    "login": "a login in a browser",
}
"""botocore's words for where it found them."""
BUNDLES = {
    "botocore": "of botocore; nothing names another",
    "SSL_CERT_FILE": "named by SSL_CERT_FILE",
    "host": "the host's; botocore's is not there",
}
TRY = "mfstore doctor s3://bucket/prefix asks"


def aws() -> Iterator[Finding]:
    """Profile, region, endpoint, proxy, certificates, and where credentials come from."""
    if find_spec("botocore") is None:
        yield Finding("S3", "not usable: it needs botocore. pip install 'mfstore[s3]'")
        return
    from mfstore.s3.aws import sessions
    from mfstore.s3.aws.errors import local, without_passwords
    from mfstore.s3.aws.settings import ConnectionSettings

    settings = ConnectionSettings()
    try:
        session = sessions.session_for(settings)
        config = sessions.config_for(settings)
        client = sessions.client_for(settings, session, config)
    except Exception as error:
        told = local(error, os.environ.get("AWS_PROFILE"))
        yield Finding("configuration", told.message, "broken", told.hint or "")
        return
    endpoint = client.meta.endpoint_url
    yield Finding("profile", session.profile or "default")
    region = session.get_config_variable("region")
    yield Finding("region", region or "none is named: S3 says where a bucket lies when it is first asked for it")
    yield Finding("endpoint", without_passwords(endpoint))
    bundle = _bundle(*sessions.trust(settings, session))
    yield bundle
    if bundle.state != "broken":
        proxy = sessions.transport_for(settings, session, config, endpoint).proxy
        if proxy:
            yield Finding("proxy", without_passwords(proxy))
    yield _credentials(sessions.session_for(settings))


def _bundle(verify: Any, source: str) -> Finding:
    """The certificates that servers are trusted by."""
    if verify is True:
        from mfstore.s3.aws.certificates import authorities

        found = authorities()
        if not Path(found.path).exists():
            hint = "Install certificates (Debian: ca-certificates), or name a bundle: AWS_CA_BUNDLE"
            return Finding("CA bundle", f"{found.path} is not there, and no other was found", "broken", hint)
        return Finding("CA bundle", f"{found.path}, {BUNDLES.get(found.origin, found.origin)}")
    if not verify:
        hint = "Name the bundle that you trust: AWS_CA_BUNDLE"
        return Finding("CA bundle", f"servers are not verified, as {source} says", "doubtful", hint)
    if not Path(verify).exists():
        hint = f"Name one that exists, or unset {source}"
        return Finding("CA bundle", f"{verify} does not exist; {source} names it", "broken", hint)
    return Finding("CA bundle", f"{verify}, named by {source}")


def _credentials(session: Any) -> Finding:
    from mfstore.s3.aws import botocore_internals as internals

    profile = session.get_scoped_config()
    try:
        method = internals.credentials_without_asking(session)
    except Exception as error:  # half a pair of keys, a role that refers to a profile that is not there
        hint = "Look at the profile, and at the variables that begin with AWS_"
        return Finding("credentials", f"cannot be read: {error}", "broken", hint)
    if method is not None:
        return Finding("credentials", f"from {METHODS.get(method, method)}")
    return Finding("credentials", elsewhere(os.environ, profile))


def elsewhere(environment: Mapping[str, str], profile: Mapping[str, Any]) -> str:
    """Where credentials may come from that are not on this machine's disk or in its environment."""
    if profile.get("credential_process"):
        return f"from the program that the profile names, which was not started: {TRY}"
    if "role_arn" in profile:
        return f"from a role of the profile, assumed as what this machine or container is, which was not asked: {TRY}"
    if {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} & {*environment}:
        return f"from the container's service for credentials, which was not asked: {TRY}"
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return "none: public buckets alone can be read (anonymous=True)"
    return f"none here; the metadata service of a machine of AWS was not asked: {TRY}"
