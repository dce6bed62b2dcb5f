"""Azure's roles and Google's, enforced: what a policy does not allow is refused on its way to an emulator, which would let
it through. What the policy means is judged by ``cloud_policies``."""

import re
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote

from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import azure_error
from tests.rigs.cloud_policies import Request, azure_allows, google_permits


class AzureGate:
    """A proxy before Azurite. ``become`` says what those may who come through it; ``refused`` is what they may not."""

    def __init__(self, server):
        self.allows, self.refused = (lambda asked: True), []
        fault = NetworkFault(action=azure_error(403, "AuthorizationPermissionMismatch"), when=self._refuses)
        self.proxy = FaultProxy(server.url, [fault])

    def become(self, definition=None, condition=None):
        """Have this role, under this condition; without one may everything."""
        self.refused.clear()
        self.allows = (lambda asked: azure_allows(definition, condition, asked)) if definition else (lambda asked: True)

    def _refuses(self, exchange):
        asked = asked_of_azure(exchange)
        if asked is not None and self.allows(asked):
            return False
        self.refused.append(asked or f"{exchange.method} {exchange.path}?{exchange.query}")
        return True


def asked_of_azure(exchange):
    """What a request asks for; None for what no role of mfstore's allows."""
    found = re.fullmatch(r"/[^/]+/([^/]+)(?:/(.+))?", exchange.path)
    query = parse_qs(exchange.query)
    if found is None:
        return None
    container, key = found[1], unquote(found[2]) if found[2] else None
    if key is not None:
        right = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "delete"}.get(exchange.method)
        return Request(right, container, key) if right else None
    if exchange.method not in ("GET", "HEAD"):
        return None
    if query.get("comp") == ["list"]:
        return Request("list", container, query.get("prefix", [""])[0])
    return Request("exposure", container)


@contextmanager
def google_user(server, token, roles, policy):
    """Within, who has this token may what the policy of the bucket gives him by these custom roles: yields what he was
    refused, as permissions with where."""
    refused = []

    def judge(permission, bucket, name, listing):
        right = "list" if listing else "read" if name is not None else "settings"
        allowed = google_permits(roles, policy, permission, Request(right, bucket, name))
        if not allowed:
            refused.append((permission, name))
        return allowed

    server.judge(token, judge)
    try:
        yield refused
    finally:
        server.judge(token, None)
