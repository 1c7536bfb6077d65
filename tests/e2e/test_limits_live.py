"""Operators change limits while real workers serve: usage stays, and /limits shows the new limits."""

from contextlib import ExitStack
from typing import Any

from loadtest.testbed.customers import key_line, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import Answer, Wire
from loadtest.testbed.process import kill
from loadtest.testbed.waiting import until
from tests.support.structured import parse_list

OPEN = b"POST /open HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\nContent-Length: 2\r\n\r\n" % key_of("acme").encode()
"""A request that stays under way, because its body does not arrive."""


def acme(tier: dict[str, Any], name: str = "small", **more: Any) -> dict[str, Any]:
    """Return settings with this tier, and with two keys of acme."""
    keys = [key_line("acme"), {**key_line("other"), "customer": "acme"}]
    return {"tiers": {name: tier}, "customers": {"acme": {"tier": name}}, "keys": keys, **more}


def ask(edge: Edge, times: int = 1, key: str = "acme", path: str = "/") -> list[int]:
    """Return the statuses of this many requests, each over its own connection, so that either worker may serve it."""
    return [edge.ask(path, key=key_of(key)).status for _ in range(times)]


def used(edge: Edge, *what: str) -> dict[str, tuple[Any, ...]]:
    """Return used and remaining units, and other fields, by policy. Names are unique."""
    lines = edge.limits("acme")
    found = {line["name"]: tuple(line.get(field) for field in ("used", "remaining", *what)) for line in lines}
    assert len(found) == len(lines)
    return found


def changed(edge: Edge, settings: dict[str, Any]) -> None:
    """Reload successfully."""
    answer = edge.reload(**settings)
    assert (answer.status, answer.json()["result"]) == (200, "ok"), answer


def violated(answer: Answer) -> list[str]:
    assert answer.status == 429, answer
    names: list[str] = answer.json()["violated-policies"]
    return names


def test_limit_usage_survives_renamed_reordered_and_changed_limits(start_edge: StartEdge) -> None:
    window = {"name": "window", "rate": "60/h"}
    bucket = {"name": "bucket", "rate": "10/h", "algorithm": "token_bucket", "burst": 20}
    both = {"name": "both", "rate": "50/2h", "algorithm": "hybrid", "burst": 30}
    quota = {"meter": "requests", "per": "month", "included": 1000}
    edge = start_edge(**acme({"limits": [window, bucket, both], "quotas": [quota]}))
    assert ask(edge, 8) == [200] * 8
    # Rates of buckets are only raised here: one that is emptied more slowly may show a hundredth of a token more.
    eight = {"window": (8, 52), "bucket": (8, 12), "both": (8, 22), "requests-month": (8, 992)}
    assert used(edge) == eight

    changed(
        edge,
        acme(
            {
                "limits": [
                    {**both, "name": "w2", "rate": "70/2h", "burst": 32},
                    {**bucket, "name": "w3", "rate": "20/h", "burst": 15},
                    {**window, "name": "w1", "rate": "10/h"},
                ],
                "quotas": [{**quota, "included": 20}],
            }
        ),
    )
    assert used(edge, "limit") == {
        "w1": (8, 2, 10),
        "w2": (8, 24, 70),
        "w3": (8, 7, 20),
        "requests-month": (8, 12, 20),
    }
    answer = edge.ask(key=key_of("acme"))
    (shown,) = parse_list(answer["ratelimit"])
    assert (answer.status, shown.value, shown.parameters["r"]) == (200, "w1", 1)
    assert used(edge)["w1"] == (9, 1)
    assert ask(edge) == [200]
    assert violated(edge.ask(key=key_of("acme"))) == ["w1"]
    # A refused request uses nothing.
    ten = {"w1": (10, 0), "w2": (10, 22), "w3": (10, 5), "requests-month": (10, 10)}
    assert used(edge) == ten

    # Another tier with equal limits, except for names and counts. A new window starts from zero.
    hard = {**quota, "included": 12, "cap": "hard"}
    big = {"limits": [{"rate": "600/h"}, {"rate": "7/min"}], "quotas": [hard]}
    changed(edge, acme(big, "big"))
    assert used(edge) == {"big": (10, 590), "big-2": (0, 7), "requests-month": (10, 2)}
    assert ask(edge, 2) == [200] * 2
    assert violated(edge.ask(key=key_of("acme"))) == ["requests-month"]
    assert used(edge, "cap")["requests-month"] == (12, 0, "hard")

    # And back, by way of an end, and of tables that are laid out for more workers.
    edge.end()
    limits = [{**bucket, "rate": "20/h"}, {**both, "rate": "70/2h"}, window]
    edge.start(workers=3, **acme({"limits": limits, "quotas": [quota]}))
    assert used(edge) == {"window": (12, 48), "bucket": (10, 10), "both": (10, 20), "requests-month": (12, 988)}
    assert ask(edge) == [200]
    assert used(edge)["window"] == (13, 47)


def test_concurrency_counts_a_request_until_it_ends_or_its_worker_dies(start_edge: StartEdge) -> None:
    edge = start_edge(**acme({"concurrency": 2}))

    def in_use() -> tuple[Any, ...]:
        return used(edge, "limit", "window_s", "reset_s")["concurrency"]

    assert in_use() == (0, 2, 2, 0, 0)
    with ExitStack() as wires:
        one, two, three = (wires.enter_context(Wire(edge.port)) for _ in range(3))
        for wire, now in ((one, 1), (two, 2)):
            wire.send(OPEN)
            until(lambda now=now: in_use()[0] == now, "the request is active")
        assert in_use() == (2, 0, 2, 0, 1)
        assert violated(edge.ask(key=key_of("acme"))) == ["concurrency"]
        changed(edge, acme({"concurrency": 3}))
        assert in_use() == (2, 1, 3, 0, 1)
        three.send(OPEN)
        until(lambda: in_use()[0] == 3, "the request is active")
        changed(edge, acme({"concurrency": 1}, "other"))
        assert in_use() == (3, 0, 1, 0, 1)
        one.send(b"ab")
        assert one.hear().status == 200
        until(lambda: in_use()[0] == 2, "the request has ended")
        for pid in edge.worker_pids():
            kill(pid)
        until(lambda: in_use() == (0, 1, 1, 0, 0), "nothing of the dead is in use")
    until(lambda: len(edge.worker_pids()) == 2 and edge.ready(), "the workers are replaced")
    assert ask(edge, 3) == [200] * 3
    until(lambda: in_use()[0] == 0, "all are over")


def test_credits_that_were_spent_are_shown_and_stay_spent(start_edge: StartEdge) -> None:
    limits = [{"name": "window", "rate": "3/h"}]
    edge = start_edge(**acme({"limits": limits, "burst_credits": {"earn": "1/h", "max": 5}}))
    assert used(edge) == {"window": (0, 3), "burst-credits": (0, 5)}
    assert ask(edge, 9) == [200] * 8 + [429]
    assert used(edge, "limit", "window_s") == {"window": (3, 0, 3, 3600), "burst-credits": (5, 0, 5, 5 * 3600)}
    changed(edge, acme({"limits": limits, "burst_credits": {"earn": "1/h", "max": 6}}, "other"))
    assert used(edge)["burst-credits"] == (5, 1)
    assert ask(edge, 2) == [200, 429]
    assert used(edge) == {"window": (3, 0), "burst-credits": (6, 0)}
    changed(edge, acme({"limits": [{"name": "window", "rate": "5/h"}]}))
    assert used(edge) == {"window": (3, 2)}


def test_live_limits_list_each_key_route_and_anonymous_separately(start_edge: StartEdge) -> None:
    tier = {
        "limits": [
            {"name": "key", "rate": "9/h", "scope": "key"},
            {"name": "route", "rate": "9/2h", "scope": "customer_route"},
            {"name": "address", "rate": "100/h", "scope": "ip"},
            {"name": "trial", "rate": "2/h", "mode": "shadow"},
        ]
    }
    routes = [
        {"name": "all", "path": "/*", "upstream": "api"},
        {
            "name": "dear",
            "path": "/dear",
            "upstream": "api",
            "cost": 3,
            "limits": [{"rate": "50/3h", "scope": "route"}],
        },
    ]
    edge = start_edge(**acme(tier, routes=routes))
    assert ask(edge, 2) + ask(edge, 1, "other") + ask(edge, 1, "other", "/dear") == [200] * 4

    def shown() -> dict[tuple[str, str | None], Any]:
        lines = edge.limits("acme")
        assert all(("key" in line) == (line["scope"] == "key") for line in lines)
        return {(line["name"], line.get("key", line.get("route"))): line["used"] for line in lines}

    one, other = (key_line(name)["sha256"][:8] for name in ("acme", "other"))  # type: ignore[index]
    expected = {
        ("key", one): 2,
        ("key", other): 4,
        ("address", None): None,
        # Requests beyond it pass and are not charged to it.
        ("trial", None): 2,
        ("route", "all"): 3,
        ("route", "dear"): 3,
        ("dear", "dear"): 1,
    }
    assert shown() == expected
    # A renamed route is a new route. A key keeps its state wherever it is listed.
    edge.settings["routes"][1]["name"] = "cheap"
    edge.settings["keys"].reverse()
    changed(edge, {})
    del expected["route", "dear"], expected["dear", "dear"]
    assert shown() == {**expected, ("route", "cheap"): 0, ("cheap", "cheap"): 0}
