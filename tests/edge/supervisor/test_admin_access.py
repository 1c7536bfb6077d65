"""Access to the admin listener by address."""

import hashlib

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.admin import Admin
from edgeproxy.config.tokens import AdminToken
from edgeproxy.edge.supervisor.admin_access import AdminRefusedError, AdminRequest, identify_caller

NOW = 1_800_000_000.0


def create_token(name: str, *secrets: str, expires: float | None = None) -> AdminToken:
    digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in secrets]
    return AdminToken(name=name, sha256=digests, expires=expires)


ANYWHERE = Admin(
    address=Address("0.0.0.0", 9090),
    tokens=(create_token("ops", "new", "old"), create_token("gone", "gone", expires=NOW)),
    hosts=("edge.internal",),
)
LOOPBACK = Admin(address=Address("127.0.0.1", 9090))


def build_request(
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
        (build_request("/status", "10.0.0.7:9090", secret="new"), ANYWHERE, "ops"),
        (build_request("/status", "Edge.Internal.:8443", secret="old"), ANYWHERE, "ops"),
        (build_request("/status", secret="old"), ANYWHERE, "ops"),  # HTTP/1.0 has no Host, and no browser speaks it.
        (build_request("/metrics", "10.0.0.7"), ANYWHERE, "-"),
        (build_request("/healthz", "[fd00:0::7]:9090", local="fd00::7"), ANYWHERE, "-"),
        (build_request("/status", "127.0.0.1:9090", local="127.0.0.1"), LOOPBACK, "local"),
        (build_request("/status", "localhost", local="127.0.0.1"), LOOPBACK, "local"),
    ],
)
def test_identified_caller_has_a_name(request_: AdminRequest, admin: Admin, name: str) -> None:
    assert identify_caller(request_, admin, NOW) == name


@pytest.mark.parametrize(
    ("request_", "admin", "status", "challenge"),
    [
        (build_request("/status", "10.0.0.7"), ANYWHERE, 401, "Bearer"),
        (build_request("/status", "10.0.0.7", secret="wrong"), ANYWHERE, 401, 'Bearer error="invalid_token"'),
        (build_request("/status", "10.0.0.7", secret="gone"), ANYWHERE, 401, 'Bearer error="invalid_token"'),
        (build_request("/status", "127.0.0.1", local="127.0.0.1"), ANYWHERE, 401, "Bearer"),
        (build_request("/status", "evil.example", secret="new"), ANYWHERE, 421, None),
        (build_request("/metrics", "10.0.0.8"), ANYWHERE, 421, None),
        (build_request("/metrics", "10.0.0.7", "10.0.0.7"), ANYWHERE, 421, None),
        (build_request("/metrics", "[::7"), ANYWHERE, 421, None),
        (build_request("/metrics", "10.0.0.7:80@evil.example"), ANYWHERE, 421, None),
        (build_request("/status", "localhost", secret="new"), ANYWHERE, 421, None),
        (build_request("/reload", "127.0.0.1.evil.example", local="127.0.0.1"), LOOPBACK, 421, None),
        (build_request("/reload", "127.0.0.1", origin="https://evil.example", local="127.0.0.1"), LOOPBACK, 403, None),
        (build_request("/reload", "127.0.0.1", origin="null", local="127.0.0.1"), LOOPBACK, 403, None),
        (build_request("/metrics", "10.0.0.7", origin="http://10.0.0.7:9090"), ANYWHERE, 403, None),
    ],
)
def test_unauthorized_caller_is_refused_with_a_challenge(
    request_: AdminRequest, admin: Admin, status: int, challenge: str | None
) -> None:
    with pytest.raises(AdminRefusedError) as refusal:
        identify_caller(request_, admin, NOW)
    assert (refusal.value.status, refusal.value.headers.get("WWW-Authenticate")) == (status, challenge)
