"""Services, endpoints and idle connections: choosing is pure, so nothing here opens a socket."""

import random
from collections import Counter

import pytest

from edgeproxy.proxy.pool import Endpoint, Service


class Seconds:
    """A histogram is passed through and not looked at."""


def service(n: int, *, pool: int = 256, seed: int = 1) -> Service:
    return Service(
        "api",
        [("10.0.0.1", 9000 + number) for number in range(n)],
        Seconds(),
        connect_timeout=1.0,
        head_timeout=30.0,
        idle_timeout=60.0,
        pool=pool,
        chance=random.Random(seed),
    )


# ---- connections


def test_the_connection_kept_last_is_the_first_to_be_used() -> None:
    endpoint = service(1).endpoints[0]
    for name in ("first", "second", "third"):
        assert endpoint.release(name)
    assert [endpoint.idle.pop() for _ in range(3)] == ["third", "second", "first"]


def test_no_more_connections_are_kept_than_the_pool_holds() -> None:
    endpoint = service(1, pool=2).endpoints[0]
    assert endpoint.release("a")
    assert endpoint.release("b")
    assert not endpoint.release("c")
    assert endpoint.idle == ["a", "b"]
    endpoint.idle.pop()
    assert endpoint.release("c")


def test_the_bound_is_each_endpoints_own() -> None:
    one, other = service(2, pool=1).endpoints
    assert one.release("a")
    assert other.release("b")


def test_a_forgotten_connection_is_given_to_nobody() -> None:
    endpoint = service(1).endpoints[0]
    endpoint.release("a")
    endpoint.release("b")
    endpoint.forget("a")
    assert endpoint.idle == ["b"]
    endpoint.forget("a")
    assert endpoint.idle == ["b"]


# ---- the choice


def test_a_single_endpoint_is_always_chosen() -> None:
    only = service(1)
    only.endpoints[0].outstanding = 1000
    assert {only.select() for _ in range(10)} == {only.endpoints[0]}


def test_the_less_loaded_of_two_is_chosen() -> None:
    both = service(2)
    one, other = both.endpoints
    one.outstanding = 1
    assert {both.select() for _ in range(100)} == {other}


def test_a_slow_endpoint_counts_as_more_loaded() -> None:
    both = service(2)
    slow, quick = both.endpoints
    slow.seconds, quick.seconds = 0.1, 0.01
    quick.outstanding = 8
    assert {both.select() for _ in range(100)} == {quick}
    quick.outstanding = 10
    assert {both.select() for _ in range(100)} == {slow}


def test_the_most_loaded_of_many_is_never_chosen() -> None:
    """Of two different endpoints one is less loaded, so the worst one always loses (Mitzenmacher 2001)."""
    many = service(5)
    many.endpoints[3].outstanding = 9
    chosen = Counter(many.select() for _ in range(5000))
    assert many.endpoints[3] not in chosen
    assert set(chosen) == set(many.endpoints) - {many.endpoints[3]}


def test_equals_share_the_load() -> None:
    many = service(4)
    for _ in range(4000):
        many.select().outstanding += 1
    assert max(e.outstanding for e in many.endpoints) - min(e.outstanding for e in many.endpoints) <= 4


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_two_that_are_compared_are_never_the_same_endpoint(n: int) -> None:
    several = service(n)
    for _ in range(2000):
        one, other = several.next_pair()
        assert one is not other


def test_the_choice_follows_from_the_chance_alone() -> None:
    def ports(seed: int) -> list[int]:
        chosen = service(6, seed=seed)
        return [chosen.select().port for _ in range(50)]

    assert ports(7) == ports(7)
    assert ports(7) != ports(8)


# ---- the other one


def test_the_only_endpoint_has_no_other() -> None:
    only = service(1)
    assert only.other_than(only.endpoints[0]) is None


def test_the_other_endpoint_is_the_least_loaded_of_the_rest() -> None:
    several = service(3)
    first, second, third = several.endpoints
    second.outstanding = 1
    assert several.other_than(first) is third
    assert several.other_than(third) is first


# ---- learning


def test_the_time_to_answer_moves_slowly_towards_what_is_seen() -> None:
    endpoint: Endpoint = service(1).endpoints[0]
    endpoint.seconds = 1.0
    endpoint.learn(2.0)
    assert endpoint.seconds == pytest.approx(1.1)
    for _ in range(200):
        endpoint.learn(0.05)
    assert endpoint.seconds == pytest.approx(0.05, rel=0.01)
