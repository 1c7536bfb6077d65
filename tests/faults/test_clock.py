"""Clock steps of an hour forwards and back on a running edge: limits are wrong for one window at most."""

import asyncio
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.store import Store
from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.waiting import turned
from tests.support.asking import Asking
from tests.support.edge_tables import in_use, shown
from tests.support.service import Service

HOUR = 3600.0
WORKERS = 2
LIMIT = 20
WINDOW = 2.0
GUARD = 200
"""Requests of an address in a window, more than any other limit gets."""
DEPTH = 10
SWEEP = 0.5
"""Seconds between two checks of the clock by a worker."""
DELAY = 0.3
"""Seconds allowed between a decision and its observation by the client."""
PHASE = 2 * WINDOW + SWEEP
INCLUDED = 5

LATE = datetime(2026, 6, 15, 23, 30, tzinfo=UTC).timestamp() - EPOCH
"""The initial edge time: half an hour before midnight in UTC, and long before midnight in Tokyo."""

LIMITS: dict[str, dict[str, Any]] = {
    "window": {},
    "bucket": {"algorithm": "token_bucket"},
    "shallow": {"algorithm": "token_bucket", "burst": DEPTH},
    "hybrid": {"algorithm": "hybrid", "burst": DEPTH},
}


def quota(timezone: str) -> dict[str, Any]:
    """Return a hard daily quota in this time zone."""
    return {"quotas": [{"meter": "requests", "per": "day", "included": INCLUDED, "cap": "hard", "timezone": timezone}]}


def settings() -> dict[str, Any]:
    """Return customers with one limit each, customers with quotas, and a limit by address."""
    described = people(**dict.fromkeys([*LIMITS, "night", "noon", "absent", "pair"], "free"))
    customers = described["customers"]
    for name, terms in LIMITS.items():
        customers[name]["limits"] = [{"rate": f"{LIMIT}/{WINDOW:g}s", **terms}]
    customers["night"] |= quota("UTC")
    customers["absent"] |= quota("UTC")
    customers["noon"] |= quota("Asia/Tokyo")
    customers["pair"]["concurrency"] = 2
    return {**described, "trusted_proxies": ["127.0.0.1"], "per_ip": {"rate": f"{GUARD}/{WINDOW:g}s"}}


@pytest.fixture
def edge(start_edge: StartEdge, service: Service, tmp_path: Path) -> Edge:
    """An edge whose clock starts at LATE."""
    terms = {"workers": WORKERS, "customers": 2000, "addresses": 2000}
    with closing(Store.prepare(tmp_path / "edge" / "state", offset=LATE - monotonic(), **terms)) as store:
        assert abs(monotonic() + store.offset - LATE) < 10
    return start_edge(port=service.port, workers=WORKERS, **settings())


def step(edge: Edge, seconds: float) -> float:
    """Step the edge's clock by some seconds. Return the monotonic time of the step."""
    with closing(Control.open(Path(edge.settings["state"]) / "control")) as control:
        control.begin_boot(control.boot, control.offset + seconds)
    return monotonic()


def fullest(asking: Asking, span: float, since: float, until: float) -> int:
    """Return the highest number of admitted requests in any `span` seconds between these times."""
    asked = sorted(asked for asked, _ in asking.passed() if since <= asked < until)
    return max((sum(first <= each < first + span for each in asked) for first in asked), default=0)


def emptiest(asking: Asking, span: float) -> int:
    """Return the lowest number of admitted requests in the `span` seconds before a refusal.

    Only refusals count. A client that a busy machine slows down makes few requests, but it is not refused for that.
    """
    refused = [answered for _, answered, status in asking.told if status == 429]
    begun = min(asked for asked, *_ in asking.told)
    passed = sorted(asked for asked, _ in asking.passed())
    return min(sum(last - span <= each < last for each in passed) for last in refused if begun <= last - span)


async def hour_forth_and_back(edge: Edge) -> tuple[dict[str, Asking], list[float]]:
    """Let all customers make requests during both clock steps. Return their results and the times of the steps."""
    everyone = {name: Asking(edge.port, name, fields={"X-Forwarded-For": f"192.0.2.{n}"})
                for n, name in enumerate([*LIMITS, "night", "noon"], 1)}  # fmt: skip
    everyone["guard"] = Asking(edge.port, "umbra", connections=5, pause=0.025, fields={"X-Forwarded-For": "192.0.2.99"})
    absent = Asking(edge.port, "absent", fields={"X-Forwarded-For": "192.0.2.100"})
    begun = monotonic()
    moments = []
    everyone["pair"] = Asking(
        edge.port, "pair", path="/hold?ms=100", pause=0.02, fields={"X-Forwarded-For": "192.0.2.101"}
    )
    async with AsyncExitStack() as ends:
        for asking in everyone.values():
            await ends.enter_async_context(asking)
        async with absent:
            await turned(lambda: absent.statuses[429] > 3, "the quota of absent is used up")
        await turned(lambda: monotonic() > begun + WINDOW + SWEEP, "a window has passed")
        for seconds in (HOUR, -HOUR):
            moments.append(await asyncio.to_thread(step, edge, seconds))
            await turned(lambda: monotonic() > moments[-1] + PHASE, "two windows have passed")
    again = Asking(edge.port, "absent", fields={"X-Forwarded-For": "192.0.2.100"})
    async with again:
        await turned(lambda: len(again.told) > 3 * INCLUDED, "absent has made enough requests")
    everyone["absent"] = again
    return everyone, moments


def test_clock_steps_of_an_hour_distort_limits_for_one_window_at_most(edge: Edge, service: Service) -> None:
    everyone, moments = asyncio.run(hour_forth_and_back(edge))
    for name, asking in everyone.items():
        assert not asking.lost
        print(name, dict(asking.statuses))
    quiet = [(0.0, moments[0]), *[(moment + SWEEP + DELAY, moment + PHASE) for moment in moments]]
    excess = 2 * (WORKERS - 1)
    for name, limit, apart, bound in (
        ("window", LIMIT, LIMIT, LIMIT - 2),
        ("bucket", 2 * LIMIT, LIMIT, LIMIT - 2),
        ("shallow", LIMIT + DEPTH, DEPTH, LIMIT - 2),
        # A step frees the window but not the bucket, so less of the next window may be usable.
        ("hybrid", LIMIT, DEPTH, LIMIT - DEPTH),
        ("guard", GUARD, GUARD, GUARD * 0.9),
    ):
        asking = everyone[name]
        # Within SWEEP of a step, each worker may admit the whole limit without the counts of the other.
        whole = fullest(asking, WINDOW - DELAY, 0.0, monotonic())
        usual = [fullest(asking, WINDOW - DELAY, *span) for span in quiet]
        least = emptiest(asking, WINDOW * 29 / 28 + DELAY)
        print(f"{name}: at most {usual} of {limit}, {whole} around a step, at least {least}")
        assert max(usual) <= limit + excess
        assert whole <= 2 * limit + apart + excess
        assert least >= bound
    # In UTC a day began once and did not begin again. In Tokyo the day went on.
    assert everyone["night"].statuses[200] == 2 * INCLUDED
    assert everyone["noon"].statuses[200] == INCLUDED
    assert everyone["absent"].statuses[200] == 0
    # A clock step does not change concurrency.
    assert everyone["pair"].statuses[429] > 0
    assert not service.of("pair").above(2)
    assert in_use(edge, "pair") == shown(edge, "pair") == 0
