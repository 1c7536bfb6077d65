"""Limits as clients meet them: what passes, what the answers say of it, and when to come back."""

import math
import random
import time
from pathlib import Path

import pytest

from tests.support.ask import Answer, assert_problem
from tests.support.customers import UNLIMITED, key_of, people
from tests.support.edge import Edge, StartEdge
from tests.support.load import Load, Plan
from tests.support.structured import parse_list
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

WORKERS = 2


def latest(window: float, cells: int = 28) -> int:
    """The whole second at which a window that is used up now has room again: its oldest cell counts in full."""
    return math.ceil(window + window / cells)


def left_of(answer: Answer, name: str, count: int, window: int) -> tuple[int, int]:
    """What the RateLimit fields say is left of this policy, and in how many seconds it is whole again."""
    (policy,) = parse_list(answer["ratelimit-policy"])
    assert policy == (name, {"q": count, "w": window})
    (limit,) = parse_list(answer["ratelimit"])
    assert limit.value == name
    assert limit.parameters.keys() == {"r", "t"}
    left, seconds = limit.parameters["r"], limit.parameters["t"]
    assert isinstance(left, int)
    assert isinstance(seconds, int)
    assert 0 <= left < count
    assert 0 <= seconds <= latest(window)
    return left, seconds


def test_of_a_burst_of_200_on_a_basic_key_sixty_pass(start_edge: StartEdge, tmp_path: Path) -> None:
    edge = start_edge(**people(acme="basic"))
    load = Load(tmp_path / "load", "burst", Plan(edge.port, ["acme"], connections=20, requests=200))
    account = load.account(30)
    passed = account.answered("acme", 200)
    assert 60 <= passed <= 60 + 2 * (WORKERS - 1)
    assert account.answered("acme", 200, 429) == sum(account.answers["acme"].values()) >= 200
    refused = edge.ask(key=key_of("acme"))
    problem = assert_problem(refused, 429)
    assert problem["violated-policies"] == ["basic"]
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert 1 <= int(refused["retry-after"]) <= latest(60)
    assert left_of(refused, "basic", 60, 60)[0] == 0
    assert edge.usage() == {"acme": passed}
    assert edge.limit("acme")["used"] == passed


def test_each_answer_says_what_is_left(start_edge: StartEdge) -> None:
    edge = start_edge(**people(acme="basic"), legacy_headers=True)
    for number in range(3):
        answer = edge.ask(key=key_of("acme"))  # over a connection of its own: either worker may serve it
        left, seconds = left_of(answer, "basic", 60, 60)
        assert left == 59 - number
        assert answer["x-ratelimit-limit"] == "60"
        assert answer["x-ratelimit-remaining"] == str(left)
        assert abs(int(answer["x-ratelimit-reset"]) - seconds) <= 1
    assert "ratelimit" not in edge.ask(key=key_of(UNLIMITED))
    assert "ratelimit" not in edge.ask(key="unknown")


def test_the_policy_closest_to_refusal_is_the_one_that_is_shown(start_edge: StartEdge) -> None:
    described = people(acme=["100/min", "10/10s"])
    described["customers"]["acme"]["limits"] = [
        {"name": "long", "rate": "100/min"},
        {"name": "short", "rate": "10/10s"},
    ]
    edge = start_edge(**described)
    left_of(edge.ask(key=key_of("acme")), "short", 10, 10)
    for _ in range(9):
        assert edge.ask(key=key_of("acme")).status == 200
    refused = edge.ask(key=key_of("acme"))
    assert assert_problem(refused, 429)["violated-policies"] == ["short"]
    left_of(refused, "short", 10, 10)
    policies = {policy["name"]: policy for policy in edge.limits("acme")}
    assert (policies["long"]["used"], policies["short"]["used"]) == (10, 10)


def test_a_retry_after_as_many_seconds_as_the_refusal_says_passes(start_edge: StartEdge, seed: int) -> None:
    edge = start_edge(**people(acme=["5/2s"]))
    assert_retries_pass(edge, "acme", random.Random(seed), rounds=2, most=latest(2))


@pytest.mark.soak
def test_a_retry_after_a_minute_passes(start_edge: StartEdge, seed: int) -> None:
    edge = start_edge(**people(acme="basic"))
    assert_retries_pass(edge, "acme", random.Random(seed), rounds=1, most=latest(60))


def assert_retries_pass(edge: Edge, customer: str, draw: random.Random, *, rounds: int, most: int) -> None:
    """Use all of a limit, unevenly, and come back when the refusal says so, as often as `rounds`."""
    key = key_of(customer)
    for _ in range(rounds):
        while (answer := edge.ask(key=key)).status == 200:
            wait_until(time.monotonic() + draw.random() * 0.1)
        seconds = int(answer["retry-after"])
        assert 1 <= seconds <= most
        wait_until(time.monotonic() + seconds)
        assert edge.ask(key=key).status == 200


def test_the_guard_holds_an_address_before_anybody_looks_at_its_key(start_edge: StartEdge) -> None:
    edge = start_edge(per_ip={"rate": "10/min"})
    statuses = [edge.ask(key=key).status for key in [key_of(UNLIMITED)] * 4 + ["unknown"] * 6]
    assert statuses == [200] * 4 + [401] * 6
    for key in (key_of(UNLIMITED), "unknown", None):
        refused = edge.ask(key=key)
        assert_problem(refused, 429)
        assert 1 <= int(refused["retry-after"]) <= latest(60, cells=13)
    assert edge.usage() == {UNLIMITED: 4}


def test_requests_without_a_key_are_held_by_address_as_the_tier_anonymous(start_edge: StartEdge) -> None:
    described = people()
    described["tiers"] = {**described["tiers"], "anonymous": {"limits": [{"rate": "5/min"}]}}
    edge = start_edge(
        routes=[{"name": "open", "path": "/*", "upstream": "api", "auth": "optional"}],
        trusted_proxies=["127.0.0.1/32"],
        **described,
    )
    for address in ("192.0.2.1", "192.0.2.2"):
        fields = {"X-Forwarded-For": address}
        answers = [edge.ask(fields=fields) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 5 + [429]
        assert parse_list(answers[0]["ratelimit"])[0].parameters["r"] == 4
    assert edge.ask(key=key_of(UNLIMITED), fields={"X-Forwarded-For": "192.0.2.1"}).status == 200
    assert edge.usage() == {"-": 10, UNLIMITED: 1}


def test_a_refused_request_is_not_charged_and_not_forwarded(start_edge: StartEdge, upstream: Upstream) -> None:
    edge = start_edge(**people(frugal=["3/min"]))
    statuses = [edge.ask(key=key_of("frugal")).status for _ in range(8)]
    assert statuses == [200] * 3 + [429] * 5
    assert edge.limit("frugal")["used"] == 3
    assert upstream.seen()["received"]["frugal"] == 3
