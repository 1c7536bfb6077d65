"""Access to the admin listener by address."""

import hashlib

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.admin import Admin
from edgeproxy.config.tokens import AdminToken
from edgeproxy.edge.supervisor.admin_access import AdminRefusedError, AdminRequest, identify_caller

NOW = 1_800_000_000.0


def token(name: str, *secrets: str, expires: float | None = None) -> AdminToken:
    digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in secrets]
    return AdminToken(name=name, sha256=digests, expires=expires)


ANYWHERE = Admin(
    address=Address("0.0.0.0", 9090),
    tokens=(token("ops", "new", "old"), token("gone", "gone", expires=NOW)),
    hosts=("edge.internal",),
)
LOOPBACK = Admin(address=Address("127.0.0.1", 9090))


def asked(
    path: str = "/status",
    *hosts: str,
    origin: str | None = None,
    secret: str | None = None,
    local: str = "10.0.0.7",
) -> AdminRequest:
    return AdminRequest(path, hosts, origin, None if secret is None else f"Bearer {secret}", local)


@pytest.mark.parametrize(
    ("request_", "admin", "name"),
    [
        (asked("/status", "10.0.0.7:9090", secret="new"), ANYWHERE, "ops"),
        (asked("/status", "Edge.Internal.:8443", secret="old"), ANYWHERE, "ops"),
        (asked("/status", secret="old"), ANYWHERE, "ops"),  # HTTP/1.0 has no Host, and no browser speaks it.
        (asked("/metrics", "10.0.0.7"), ANYWHERE, "-"),
        (asked("/healthz", "[fd00:0::7]:9090", local="fd00::7"), ANYWHERE, "-"),
        (asked("/status", "127.0.0.1:9090", local="127.0.0.1"), LOOPBACK, "local"),
        (asked("/status", "localhost", local="127.0.0.1"), LOOPBACK, "local"),
    ],
)
def test_identified_caller_has_a_name(request_: AdminRequest, admin: Admin, name: str) -> None:
    assert identify_caller(request_, admin, NOW) == name


@pytest.mark.parametrize(
    ("request_", "admin", "status", "challenge"),
    [
        (asked("/status", "10.0.0.7"), ANYWHERE, 401, "Bearer"),
        (asked("/status", "10.0.0.7", secret="wrong"), ANYWHERE, 401, 'Bearer error="invalid_token"'),
        (asked("/status", "10.0.0.7", secret="gone"), ANYWHERE, 401, 'Bearer error="invalid_token"'),
        (asked("/status", "127.0.0.1", local="127.0.0.1"), ANYWHERE, 401, "Bearer"),
        (asked("/status", "evil.example", secret="new"), ANYWHERE, 421, None),
        (asked("/metrics", "10.0.0.8"), ANYWHERE, 421, None),
        (asked("/metrics", "10.0.0.7", "10.0.0.7"), ANYWHERE, 421, None),
        (asked("/metrics", "[::7"), ANYWHERE, 421, None),
        (asked("/metrics", "10.0.0.7:80@evil.example"), ANYWHERE, 421, None),
        (asked("/status", "localhost", secret="new"), ANYWHERE, 421, None),
        (asked("/reload", "127.0.0.1.evil.example", local="127.0.0.1"), LOOPBACK, 421, None),
        (asked("/reload", "127.0.0.1", origin="https://evil.example", local="127.0.0.1"), LOOPBACK, 403, None),
        (asked("/reload", "127.0.0.1", origin="null", local="127.0.0.1"), LOOPBACK, 403, None),
        (asked("/metrics", "10.0.0.7", origin="http://10.0.0.7:9090"), ANYWHERE, 403, None),
    ],
)
def test_unauthorized_caller_is_refused_with_a_challenge(
    request_: AdminRequest, admin: Admin, status: int, challenge: str | None
) -> None:
    with pytest.raises(AdminRefusedError) as refused:
        identify_caller(request_, admin, NOW)
    assert (refused.value.status, refused.value.headers.get("WWW-Authenticate")) == (status, challenge)
