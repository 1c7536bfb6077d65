"""The identity of a request: keys, look-ups, and the lifetime of cached results."""

import hashlib
import json
import time
import traceback
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeproxy.config import units
from edgeproxy.edge.errors import RejectedError, UnidentifiedError
from edgeproxy.edge.messages import FetchIssuerKeys
from edgeproxy.edge.proxy.routing import identity_memory
from edgeproxy.edge.proxy.routing.binding import Route
from edgeproxy.edge.proxy.routing.identity import Directory, Identity
from edgeproxy.edge.proxy.routing.token_verifier import parse_keys
from tests.support.transcript import EXPIRED, GET, KEY, READER, UNLIMITED, Edge, digest, get, ok


async def directory(edge: Edge) -> Directory:
    await edge.starts()
    return edge.runtime.snapshot.directory


def route(edge: Edge, path: str) -> Route:
    return edge.runtime.snapshot.router.find_site(None).match(path.encode(), b"GET", GET)


def line(key: str) -> bytes:
    return b"X-API-Key: %b\r\n" % key.encode()


def refusal(people: Directory, key: str | None, leads: Route) -> RejectedError:
    who = people.resolve(None if key is None else key.encode())
    with pytest.raises(RejectedError) as raised:
        who.bind(leads)
    return raised.value


async def test_missing_and_unknown_keys_have_one_identity_each(edge: Edge) -> None:
    people = await directory(edge)
    assert people.resolve(None) is people.anonymous
    assert people.resolve(b"whoever") is people.unknown
    assert people.resolve(b"") is people.unknown


async def test_a_known_key_is_looked_up_once(edge: Edge) -> None:
    people = await directory(edge)
    who = people.resolve(KEY.encode())
    assert people.resolve(KEY.encode()) is who
    assert people.resolve(UNLIMITED.encode()) is not who


async def test_an_identity_with_a_recent_use_outlives_one_without(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_memory, "IDENTITY_BYTES", units.REMEMBERED_BYTES // 2)
    people = await directory(edge)
    first, second = (people.resolve(key.encode()) for key in (KEY, UNLIMITED))
    people.resolve(KEY.encode())
    people.resolve(READER.encode())
    assert people.resolve(KEY.encode()) is first
    assert people.resolve(UNLIMITED.encode()) is not second


async def test_unknown_keys_are_not_cached(edge: Edge) -> None:
    people = await directory(edge)
    for n in range(100):
        people.resolve(b"guess %d" % n)
    assert not people._identities


async def test_a_route_binding_is_created_once_per_route(edge: Edge) -> None:
    people = await directory(edge)
    who = people.resolve(KEY.encode())
    binding = who.bind(route(edge, "/v1/x"))
    assert who.bind(route(edge, "/v1/y")) is binding
    assert who.bind(route(edge, "/maybe/y")) is not binding
    assert (binding.customer, binding.tier) == ("acme", "basic")


async def test_the_binding_of_an_open_route_has_no_customer(edge: Edge) -> None:
    people = await directory(edge)
    for key in (KEY, None, "whoever", EXPIRED):
        who = people.resolve(None if key is None else key.encode())
        binding = who.bind(route(edge, "/public/x"))
        assert (binding.customer, binding.tier, binding.priority, binding.message) == ("-", "-", 0, None)
        # Without an anonymous tier there are no limits, so all addresses share one route binding.
        assert binding.limit_set is not None
        assert not binding.limit_set.traits.applies


async def test_an_open_route_with_an_anonymous_tier_has_limits_by_address(edge: Edge) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "2/min"}], "priority": 3, "message": "Get a key"}
    people = await directory(edge)
    binding = people.anonymous.bind(route(edge, "/public/x"))
    assert (binding.customer, binding.tier, binding.priority, binding.message) == ("-", "anonymous", 3, "Get a key")
    assert binding.limit_set is None


async def test_refusals_are_not_cached(edge: Edge) -> None:
    """A refusal must not be cached as a route binding."""
    people = await directory(edge)
    for _ in range(2):
        for key, path, reason in ((None, "/v1/x", "missing"), ("whoever", "/maybe/x", "unknown")):
            refused = refusal(people, key, route(edge, path))
            assert isinstance(refused, UnidentifiedError)
            assert (refused.status, refused.reason) == (401, reason)
        assert refusal(people, UNLIMITED, route(edge, "/read/x")).status == 403
    assert edge.count("edge_auth_failures_total", "scope") == 2


async def test_a_cached_refusal_refers_to_no_request(edge: Edge) -> None:
    """All invented keys get one error on a route. With its traceback it would keep the frames of a request."""
    for key in ("invented-1", "invented-2"):
        assert (await edge.refuses(get("/v1/x", f"X-API-Key: {key}"))).status == 401
    people = edge.runtime.snapshot.directory
    (cached,) = people.unknown._refusals.values()
    assert (cached.__traceback__, cached.__context__) == (None, None)
    raised = [refusal(people, "invented-3", route(edge, "/v1/x")) for _ in range(2)]
    assert raised == [cached, cached]
    assert len(traceback.extract_tb(cached.__traceback__)) == 2, "frames of one caller, whose `bind` raised it"


async def test_a_route_requires_all_of_its_scopes(edge: Edge) -> None:
    edge.config["routes"][3]["scopes"] = ["read", "write"]
    edge.config["keys"].append({"sha256": digest("both"), "customer": "free", "scopes": ["write", "read", "more"]})
    people = await directory(edge)
    leads = route(edge, "/read/x")
    assert "write" in refusal(people, READER, leads).detail
    assert "read" in refusal(people, UNLIMITED, leads).detail
    assert people.resolve(b"both").bind(leads).customer == "free"
    assert "read" in refusal(people, UNLIMITED, leads).detail, "another key of the customer lends no scope"


async def test_a_cached_key_expires_at_its_time(edge: Edge) -> None:
    """The test sends identical requests over one connection, so that all caches could answer."""
    ends = datetime.now(UTC) + timedelta(seconds=100)
    edge.config["keys"].append({"sha256": digest("short"), "customer": "free", "expires": ends.isoformat()})
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()

    async def asks() -> int:
        return (await client.asks(get("/v1/x", "X-API-Key: short"))).status

    assert [await asks() for _ in range(3)] == [200, 200, 200]
    edge.passes_time(90)
    assert await asks() == 200
    edge.passes_time(15)
    assert [await asks() for _ in range(2)] == [401, 401]
    assert edge.count("edge_auth_failures_total", "expired") == 2


async def trust(edge: Edge, signing: ec.EllipticCurvePrivateKey) -> tuple[Directory, dict[str, object]]:
    """Return a directory that accepts tokens with this signature, and their claims."""
    edge.config["issuers"] = {
        "id": {"issuer": "https://id.example", "jwks": "https://id.example/k", "audiences": ["x"]}
    }
    people = await directory(edge)
    listed = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True)
    edge.runtime.key_lookup.issuer_keys["id"] = parse_keys(json.dumps({"keys": [{**listed, "kid": "old"}]}))
    return people, {"iss": "https://id.example", "aud": "x", "sub": "acme", "exp": time.time() + 3600}


async def test_a_token_with_a_recent_use_outlives_one_without(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_memory, "IDENTITY_BYTES", units.REMEMBERED_BYTES // 2)
    signing = ec.generate_private_key(ec.SECP256R1())
    people, claims = await trust(edge, signing)
    tokens = [jwt.encode({**claims, "jti": str(number)}, signing, "ES256").encode() for number in range(3)]

    def use(token: bytes) -> Identity | None:
        return people.refresh(people.resolve(token), route(edge, "/v1/x"), time.monotonic() + edge.runtime.offset)

    first, second = use(tokens[0]), use(tokens[1])
    people.resolve(tokens[0])
    use(tokens[2])
    assert people.resolve(tokens[0]) is first
    assert people.resolve(tokens[1]) is not second


async def test_a_token_with_an_unknown_signing_key_fetches_the_issuers_keys(edge: Edge) -> None:
    signing = ec.generate_private_key(ec.SECP256R1())
    people, claims = await trust(edge, signing)
    token = jwt.encode(claims, signing, "ES256").encode()
    holder = people.refresh(people.resolve(token), route(edge, "/v1/x"), time.monotonic() + edge.runtime.offset)
    assert holder is not None
    assert people.resolve(token) is holder, "the holder is cached"
    assert people.resolve(hashlib.sha256(token).digest()) is not holder
    stale = jwt.encode(claims, signing, "ES256", {"kid": "new"}).encode()
    for _ in range(2):
        people.refresh(people.resolve(stale), route(edge, "/v1/x"), time.monotonic() + edge.runtime.offset)
    assert edge.inquiries == [FetchIssuerKeys("id")], "the issuer's keys are requested once"
