"""Affinity: related requests go to one endpoint, and no client can choose the endpoint."""

import re
from collections import Counter
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import pytest

from edgeproxy.config.edge.balancing import Balance
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.upstreams import pool
from edgeproxy.edge.proxy.upstreams.affinity import Affinity, compute_name, find_cookie, find_owner
from edgeproxy.edge.proxy.upstreams.pool import Service
from tests.edge.proxy.services import at, service, told
from tests.support.transcript import Edge, get, ok
from tests.support.wire import Message

SECRET = "a-secret-of-thirty-two-characters"
VALUES = [str(number).encode() for number in range(4000)]
HASH, COOKIE = {"hash": "address"}, {"cookie": "edge-affinity", "secret": SECRET}


def owners(of: Service, region: str | None = None) -> dict[bytes, str]:
    return {value: of.select_for(value, region).address for value in VALUES}


def three(*weights: int, **settings: Any) -> Service:
    weights = weights or (1, 1, 1)
    endpoints = [at(f"10.0.0.{number}", weight=weight) for number, weight in enumerate(weights, 1)]
    return service(endpoints=endpoints, balance=HASH, **settings)


def test_endpoint_outage_moves_only_its_own_clients_and_returns_them() -> None:
    of = three()
    before = owners(of)
    of.update_addresses(told("10.0.0.1", "-10.0.0.2", "10.0.0.3"))
    during = owners(of)
    assert {value for value in VALUES if before[value] != during[value]} == {
        value for value in VALUES if before[value] == "10.0.0.2"
    }
    assert set(during.values()) == {"10.0.0.1", "10.0.0.3"}
    of.update_addresses(told("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert owners(of) == before


def test_new_endpoint_receives_its_share_and_moves_no_other_client() -> None:
    before, after = owners(three()), owners(three(1, 1, 1, 1))
    moved = [value for value in VALUES if before[value] != after[value]]
    assert {after[value] for value in moved} == {"10.0.0.4"}
    assert len(moved) == pytest.approx(len(VALUES) / 4, rel=0.1)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5), (1000, 1, 1000)])
def test_shares_are_by_weight(weights: tuple[int, ...]) -> None:
    shares = Counter(owners(three(*weights)).values())
    for number, weight in enumerate(weights, 1):
        expected = len(VALUES) * weight / sum(weights)
        assert shares[f"10.0.0.{number}"] == pytest.approx(expected, rel=0.1, abs=12)


def test_hash_affinity_ignores_the_order_of_endpoints() -> None:
    one, other = three(), service(endpoints=[at(f"10.0.0.{n}") for n in (3, 1, 2)], balance=HASH, seed=9)
    assert owners(one) == owners(other)


def test_affinity_depends_on_a_secret() -> None:
    endpoints = three().endpoints
    of_secret = [find_owner(endpoints, value, b"one").address for value in VALUES]
    of_other = [find_owner(endpoints, value, b"two").address for value in VALUES]
    assert sum(one == other for one, other in zip(of_secret, of_other, strict=True)) < len(VALUES) / 2


def test_hash_affinity_selects_the_nearest_or_preferred_region() -> None:
    endpoints = [at("10.0.0.1"), at("10.0.0.2"), at("10.9.0.1", region="us"), at("10.9.0.2", region="us")]
    of = service(endpoints=endpoints, balance=HASH)
    assert set(owners(of).values()) == {"10.0.0.1", "10.0.0.2"}
    assert set(owners(of, "us").values()) == {"10.9.0.1", "10.9.0.2"}
    assert owners(of, "nowhere") == owners(of)


def test_a_request_without_the_value_goes_to_the_less_loaded() -> None:
    of = service(endpoints=[at("10.0.0.1"), at("10.0.0.2")], balance=HASH)
    of.endpoints[1].outstanding = 5
    assert {of.select_for(None, None).address for _ in range(50)} == {"10.0.0.1"}
    assert of.select_for(None, "nowhere").address == "10.0.0.1"


def test_no_endpoint_that_is_up_is_an_error() -> None:
    of = three()
    of.update_addresses(told("-10.0.0.1", "-10.0.0.2", "-10.0.0.3"))
    with pytest.raises(UpstreamError):
        of.select_for(b"value", None)


def test_values_that_a_worker_remembers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OWNERS_MAX", 10)
    of = three()
    owners(of)
    assert len(of._owners) <= 10


def request(cookies: str = "", *lines: str, address: str = "192.0.2.1", **besides: Any) -> Any:
    keep = "".join(f"{line}\r\n" for line in (*([f"Cookie: {cookies}"] if cookies else []), *lines)).encode()
    client = SimpleNamespace(address=SimpleNamespace(text=address))
    return SimpleNamespace(keep=keep, client=client, is_secure=lambda: False, **besides)


def find(hashed: str, asked: Any, customer: str = "-") -> bytes | None:
    return Affinity(Balance(hash=hashed, secret=SECRET)).find_value(asked, customer)


def digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


def test_the_value_is_the_one_that_the_settings_name() -> None:
    asked = request("a=1; SID=x", "X-Room: 7", "X-Room: 8")
    assert find("address", asked) == digest(b"192.0.2.1")
    assert find("customer", asked, "acme") == digest(b"customer acme")
    assert find("customer", asked) == digest(b"192.0.2.1")
    assert find("header x-room", asked) == digest(b"7, 8")
    assert find("header X-Other", asked) is None
    assert find("cookie SID", asked) == digest(b"x")
    assert find("cookie sid", asked) is None


@pytest.mark.parametrize(
    ("cookies", "value"),
    [("n=1", b"1"), ("a=n; n = 2 ;n=3", b"2"), ('n="4"', b"4"), ("n", None), ("nn=1", None), ("", None)],
)
def test_the_first_cookie_of_the_name_counts(cookies: str, value: bytes | None) -> None:
    assert find_cookie(request(cookies).keep, b"n") == value


def test_a_cookie_leads_to_the_endpoint_that_it_names_while_that_is_up() -> None:
    endpoints = [at(f"10.0.0.{n}") for n in (1, 2)]
    of = service(endpoints=endpoints, balance=COOKIE)
    name = compute_name(of.endpoints[1], SECRET.encode())
    of.endpoints[1].outstanding = 100
    assert {of.select_for(name, None).address for _ in range(20)} == {"10.0.0.2"}
    of.update_addresses(told("10.0.0.1", "-10.0.0.2"))
    assert of.select_for(name, None).address == "10.0.0.1"
    of.update_addresses(told("10.0.0.1", "10.0.0.2"))
    assert of.select_for(name, None).address == "10.0.0.2"


@pytest.mark.parametrize("forged", ["10.0.0.2:80", "0" * 32, "F" * 32, "x" * 32, "", None])
def test_forged_affinity_cookie_is_ignored(forged: str | None) -> None:
    of = service(endpoints=[at(f"10.0.0.{n}") for n in (1, 2)], balance=COOKIE)
    assert of.affinity is not None
    of.endpoints[1].outstanding = 100
    if forged is None:  # Any client can compute this value.
        forged = compute_name(of.endpoints[1], b"").hex()
    value = of.affinity.find_value(request(f"edge-affinity={forged}"), "-")
    assert {of.select_for(value, None).address for _ in range(20)} == {"10.0.0.1"}


async def test_affinity_cookie_is_set_only_if_missing(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["balance"] = COOKIE
    _, answer = await edge.passes(get(), ok(b"x", "Set-Cookie: own=1"))
    own, line = answer.all("Set-Cookie")
    match = re.fullmatch(r"edge-affinity=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax", line)
    assert own == "own=1"
    assert match is not None
    asked, answer = await edge.passes(get("/public/", f"Cookie: edge-affinity={match[1]}"), ok())
    assert not answer.all("Set-Cookie")
    _, answer = await edge.passes(get("/public/", "Cookie: edge-affinity=forged"), ok())
    assert answer.all("Set-Cookie") == [line]
    assert isinstance(asked, Message)


async def test_a_hash_sets_no_cookie(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["balance"] = {"hash": "customer"}
    _, answer = await edge.passes(get(), ok())
    assert not answer.all("Set-Cookie")
