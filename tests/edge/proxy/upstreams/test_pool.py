"""Services, endpoints and idle connections: choosing is pure, so nothing here opens a socket."""

import random
import re
from collections import Counter
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import pytest

from edgeproxy.config.edge.balancing import Balance
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.upstreams import pool
from edgeproxy.edge.proxy.upstreams.affinity import Affinity, compute_name, find_cookie, find_owner
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN, EJECTED
from edgeproxy.edge.proxy.upstreams.pool import Endpoint, Service
from tests.edge.proxy.services import Seconds, at, chosen, service, told
from tests.support.transcript import Edge, get, ok
from tests.support.wire import Message


def addresses(endpoints: Any) -> list[str]:
    return [endpoint.address for endpoint in endpoints]


# ---- connections


def test_the_connection_kept_last_is_the_first_to_be_used() -> None:
    endpoint = service(1).endpoints[0]
    for name in ("first", "second", "third"):
        assert endpoint.release(name)
    assert [endpoint.idle.pop() for _ in range(3)] == ["third", "second", "first"]


def test_pool_keeps_at_most_its_size_of_idle_connections() -> None:
    endpoint = service(1, pool=2).endpoints[0]
    assert endpoint.release("a")
    assert endpoint.release("b")
    assert not endpoint.release("c")
    assert endpoint.idle == ["a", "b"]
    endpoint.idle.pop()
    assert endpoint.release("c")


def test_forgotten_connection_is_no_longer_idle() -> None:
    endpoint = service(1).endpoints[0]
    endpoint.release("a")
    endpoint.release("b")
    endpoint.forget("a")
    assert endpoint.idle == ["b"]
    endpoint.forget("a")
    assert endpoint.idle == ["b"]


# ---- the choice


def test_the_less_loaded_of_two_is_chosen() -> None:
    both = service(2)
    one, other = both.endpoints
    one.outstanding = 1
    assert {both.select() for _ in range(100)} == {other}


@pytest.mark.parametrize("under_way", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("weights", [(1, 99), (1, 3), (2, 1, 7)])
def test_shares_are_by_weight_also_while_the_others_are_busy(weights: tuple[int, ...], under_way: int) -> None:
    """An endpoint that is idle because its weight is small must not get whatever comes."""
    of = service(endpoints=[at(f"10.0.0.{n}", weight=weight) for n, weight in enumerate(weights)])
    chance = random.Random(2)
    busy: list[Endpoint] = []
    got: Counter[Endpoint] = Counter()
    for _ in range(10_000):
        endpoint = of.select()
        endpoint.outstanding += 1
        got[endpoint] += 1
        busy.append(endpoint)
        if len(busy) == under_way:
            busy.pop(chance.randrange(under_way)).outstanding -= 1
    for endpoint in of.endpoints:
        assert got[endpoint] / got.total() == pytest.approx(endpoint.weight / sum(weights), rel=0.4)


def test_the_most_loaded_of_many_is_never_chosen() -> None:
    """Of two different endpoints one is less loaded, so the worst one always loses (Mitzenmacher 2001)."""
    many = service(5)
    many.endpoints[3].outstanding = 9
    picked = Counter(many.select() for _ in range(5000))
    assert many.endpoints[3] not in picked
    assert set(picked) == set(many.endpoints) - {many.endpoints[3]}


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_two_that_are_compared_are_never_the_same_endpoint(n: int) -> None:
    several = service(n)
    for _ in range(2000):
        one, other = several.next_pair()
        assert one is not other


# ---- the other one


def test_the_other_endpoint_is_the_least_loaded_of_the_rest() -> None:
    several = service(3)
    first, second, third = several.endpoints
    second.outstanding = 1
    assert several.select_other([first]) is third
    assert several.select_other([third]) is first
    assert several.select_other([first, third]) is second


def test_retry_selects_a_recently_failed_endpoint_last() -> None:
    """An endpoint that refuses at once has no open requests. By load alone, every retry would go to it."""
    first, dead, busy = (several := service(3)).endpoints
    dead.record_failure(0.0)
    busy.outstanding = 100
    assert several.select_other([first]) is busy
    assert several.select_other([first, busy]) is dead


def test_retry_selects_another_region_only_without_near_endpoints() -> None:
    several = service(endpoints=[at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3", region="us-east")])
    near, also_near, far = several.endpoints
    also_near.outstanding = 100
    assert several.select_other([near]) is also_near
    assert several.select_other([near, also_near]) is far


def test_select_other_skips_down_endpoints_and_prefers_unejected_ones() -> None:
    several = service(3)
    first, second, third = several.endpoints
    third.state = EJECTED
    assert several.select_other([first]) is second
    second.state = DOWN
    assert several.select_other([first]) is third
    third.state = DOWN
    assert several.select_other([first]) is None


# ---- regions


def test_a_farther_region_serves_while_the_nearer_ones_are_down() -> None:
    of = service(
        endpoints=[
            at("10.0.0.1", region="asia"),
            at("10.0.0.2", region="eu-west"),
            at("10.0.0.3"),
            at("10.0.0.4", region="us-east"),
        ]
    )
    assert set(chosen(of)) == {"10.0.0.2", "10.0.0.3"}
    of.update_addresses(told("10.0.0.1", "-10.0.0.2", "10.0.0.3", "10.0.0.4"))
    assert set(chosen(of)) == {"10.0.0.3"}
    of.update_addresses(told("10.0.0.1", "-10.0.0.2", "-10.0.0.3", "10.0.0.4"))
    assert set(chosen(of)) == {"10.0.0.1"}
    of.update_addresses(told("-10.0.0.1", "-10.0.0.2", "-10.0.0.3", "10.0.0.4"))
    assert set(chosen(of)) == {"10.0.0.4"}
    of.update_addresses(told("10.0.0.1", "10.0.0.2", "-10.0.0.3", "10.0.0.4"))
    assert set(chosen(of)) == {"10.0.0.2"}


def preferring(of: Service, region: str, times: int = 600) -> Counter[str]:
    return Counter(of.select_in(region).address for _ in range(times))


def test_preferred_region_is_served_by_weight() -> None:
    of = service(
        endpoints=[
            at("10.0.0.1"),
            at("10.0.0.2", region="us-east", weight=3),
            at("10.0.0.3", region="us-east"),
            at("10.0.0.4", region="asia"),
        ]
    )
    shared = preferring(of, "us-east", 4000)
    assert set(shared) == {"10.0.0.2", "10.0.0.3"}
    assert shared["10.0.0.2"] == pytest.approx(3000, rel=0.02)
    assert set(preferring(of, "asia")) == {"10.0.0.4"}
    assert set(chosen(of)) == {"10.0.0.1"}


def test_less_loaded_endpoint_of_the_preferred_region_is_asked() -> None:
    of = service(endpoints=[at("10.0.0.1"), at("10.0.0.2", region="us"), at("10.0.0.3", region="us")])
    of.endpoints[1].outstanding = 9
    assert set(preferring(of, "us")) == {"10.0.0.3"}
    for _ in range(100):
        of.select_in("us").outstanding += 1
    assert abs(of.endpoints[1].outstanding - of.endpoints[2].outstanding) <= 2


def test_preferred_region_without_an_endpoint_falls_back_to_the_usual_choice() -> None:
    of = service(endpoints=[at("10.0.0.1"), at("10.0.0.2", region="us"), at("10.0.0.3", region="us")])
    assert set(preferring(of, "nowhere")) == {"10.0.0.1"}
    assert set(preferring(of, "us")) == {"10.0.0.2", "10.0.0.3"}
    of.update_addresses(told("10.0.0.1", "-10.0.0.2", "10.0.0.3"))
    assert set(preferring(of, "us")) == {"10.0.0.3"}
    for n in range(5):
        of.endpoints[2].record_failure(float(n))
    assert of.endpoints[2].state is EJECTED
    assert set(preferring(of, "us")) == {"10.0.0.1"}
    of.update_addresses(told("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert set(preferring(of, "us")) == {"10.0.0.2"}


def test_a_preference_counts_for_the_breaker_once() -> None:
    class Pending:
        total = 0

        def claim(self, most: int) -> bool:
            self.total += 1
            return self.total <= most

    pending = Pending()
    upstream = Upstream.model_validate(
        {"endpoints": [at("10.0.0.1"), at("10.0.0.2", region="us")], "breaker": {"pending": 10}}
    )
    of = Service("api", upstream, "eu-west", Seconds(), pending=pending)
    for region in ("us", "nowhere"):
        of.select_in(region)
    assert pending.total == 2


# ---- addresses


def test_an_ip_address_is_there_from_the_start_also_in_brackets() -> None:
    of = service(endpoints=["http://[::1]:80", "http://10.0.0.1:81"])
    assert [(endpoint.host, endpoint.address, endpoint.port) for endpoint in of.endpoints] == [
        ("::1", "::1", 80),
        ("10.0.0.1", "10.0.0.1", 81),
    ]


def test_unresolved_upstream_name_is_a_dns_error() -> None:
    of = service(endpoints=[at("api.internal", weight=3)])
    assert of.endpoints == ()
    for _ in range(2):
        with pytest.raises(UpstreamError) as fault:
            of.select()
        assert (fault.value.status, fault.value.error) == (502, "dns_error")
    assert of.update_addresses(told("10.0.0.1 10.0.0.2")) == []
    assert set(chosen(of)) == {"10.0.0.1", "10.0.0.2"}
    assert [(endpoint.host, endpoint.weight) for endpoint in of.endpoints] == [("api.internal", 3)] * 2


def test_upstream_with_all_addresses_down_answers_503_until_one_is_up() -> None:
    of = service(2)
    of.update_addresses(told("-10.0.0.1", "-10.0.0.1"))
    for _ in range(2):
        with pytest.raises(UpstreamError) as fault:
            of.select()
        assert (fault.value.status, fault.value.error) == (503, "destination_unavailable")
    of.update_addresses(told("-10.0.0.1", "10.0.0.1"))
    assert of.select() is of.endpoints[1]


def test_remaining_address_keeps_its_connections_and_error_record() -> None:
    of = service(endpoints=[at("api.internal")])
    of.update_addresses(told("10.0.0.1 10.0.0.2"))
    stays = of.endpoints[1]
    stays.release("a")
    stays.outstanding, stays.errors = 3, 2
    assert of.update_addresses(told("10.0.0.3 10.0.0.2")) == []
    assert sorted(addresses(of.endpoints)) == ["10.0.0.2", "10.0.0.3"]
    assert stays in of.endpoints
    assert (stays.idle, stays.outstanding, stays.errors) == (["a"], 3, 2)


def test_removed_address_releases_its_connections_and_accepts_no_more() -> None:
    of = service(endpoints=[at("api.internal"), at("10.0.0.9")])
    of.update_addresses(told("10.0.0.1 10.0.0.2", "10.0.0.9"))
    gone = of.endpoints[0]
    gone.release("a")
    gone.release("b")
    assert of.update_addresses(told("10.0.0.2", "10.0.0.9")) == ["a", "b"]
    assert gone.idle == []
    assert not gone.release("c")
    assert set(chosen(of)) == {"10.0.0.2", "10.0.0.9"}


def test_address_under_two_names_is_two_endpoints() -> None:
    of = service(endpoints=[at("a.internal"), at("b.internal", weight=2)])
    of.update_addresses(told("10.0.0.1", "10.0.0.1"))
    assert [(endpoint.host, endpoint.weight) for endpoint in of.endpoints] == [("a.internal", 1), ("b.internal", 2)]
    of.update_addresses(told("10.0.0.1", ""))
    assert addresses(of.endpoints) == ["10.0.0.1"]


def test_unchanged_addresses_draw_no_new_pairs() -> None:
    of = service(2)
    of.select()
    cycle = of.next_pair
    of.update_addresses(told("10.0.0.1", "10.0.0.1"))
    assert of.next_pair is cycle
    of.update_addresses(told("10.0.0.1", "-10.0.0.1"))
    assert of.next_pair is not cycle


def test_many_changes_between_two_requests_draw_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []
    draw = pool.draw_pairs
    monkeypatch.setattr(pool, "draw_pairs", lambda among, chance: draws.append(len(among)) or draw(among, chance))
    of = service(endpoints=[at("api.internal")])
    for n in range(1, 50):
        of.update_addresses(told(" ".join(f"10.0.0.{number}" for number in range(n))))
    for _ in range(10):
        of.select()
    assert draws == [49]


# ---- affinity


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
