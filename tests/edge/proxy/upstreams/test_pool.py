"""Services, endpoints and idle connections: choosing is pure, so nothing here opens a socket."""

import random
from collections import Counter
from typing import Any

import pytest

from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.upstreams import pool
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN, EJECTED
from edgeproxy.edge.proxy.upstreams.pool import Endpoint, Service
from tests.edge.proxy.services import Seconds, at, chosen, service, told


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
