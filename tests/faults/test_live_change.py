"""Limits edited under full load: customers never pass more than the larger limit allows, and usage is kept."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.waiting import turned
from tests.support.asking import Asking
from tests.support.edge_tables import in_use, shown
from tests.support.service import Service

WORKERS = 2
EXCESS = 2 * (WORKERS - 1)
WINDOW = 2.0
COUNTS = (10, 20, 40, 80)
AT_ONCE: tuple[int | str, ...] = (1, 2, 4, "none")
ANY = 1 << 30
CHANGES = 9
BETWEEN = 0.9
"""The mean number of seconds between two changes: less than a window."""
DELAY = 0.3
"""The allowed number of seconds between a decision and the client's record of it."""
ALGORITHMS: dict[str, dict[str, Any]] = {
    "window": {},
    "bucket": {"algorithm": "token_bucket"},
    "hybrid": {"algorithm": "hybrid"},
}


@dataclass
class Said:
    """The limits of a customer over time."""

    terms: list[tuple[float, float, int]] = field(default_factory=list)
    """Each limit: the earliest and the latest start of its validity, and its count."""

    def most(self, since: float, until: float) -> int:
        """Return the highest limit that was valid at any moment between these times."""
        ends = [last for _, last, _ in self.terms[1:]] + [float("inf")]
        return max(
            count for (first, _, count), end in zip(self.terms, ends, strict=True) if first < until > since < end
        )


def assert_window_held(asking: Asking, said: Said) -> None:
    """Assert that no window passed more requests than the highest limit valid in it."""
    asked = sorted(asked for asked, _ in asking.passed())
    worst = -ANY
    for first in asked:
        most = said.most(first - DELAY, first + WINDOW)
        passed = sum(first <= each < first + WINDOW - DELAY for each in asked)
        worst = max(worst, passed - most)
        assert passed <= most + EXCESS, f"{asking.customer}: {passed} at {first}, {most} hold"
    print(f"{asking.customer}: {dict(asking.statuses)}, {worst:+} at most")


def assert_bucket_held(asking: Asking, said: Said) -> None:
    """Assert that no request passed a full bucket, by the highest depth and drain rate valid at each moment."""
    level = before = 0.0
    worst = -float(ANY)
    for asked in sorted(asked for asked, _ in asking.passed()):
        level = max(0.0, level - (asked - before) * said.most(before - DELAY, asked + DELAY) / WINDOW) + 1
        depth = said.most(asked - DELAY, asked + DELAY)
        room = depth * (1 + DELAY / WINDOW) + EXCESS
        worst = max(worst, level - depth)
        assert level <= room, f"{asking.customer}: {level} in a bucket of {depth} at {asked}"
        before = asked
    print(f"{asking.customer}: {dict(asking.statuses)}, {worst:+.1f} at most")


def described(chance: random.Random, at_once: int | str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return random limits as settings, and their counts by customer.

    The limits have other names and another order. Some belong to tiers, and some to the customers.
    """
    described = people(**dict.fromkeys([*ALGORITHMS, "slots"], "free"))
    described["tiers"] = dict(described["tiers"])
    now = {}
    for name, terms in ALGORITHMS.items():
        now[name] = count = chance.choice(COUNTS)
        limits = [
            {"name": chance.choice(["one", "other"]), "rate": f"{count}/{WINDOW:g}s", **terms},
            {"name": "wide", "rate": "100000/h"},
        ]
        chance.shuffle(limits)
        if chance.random() < 0.5:
            described["customers"][name]["limits"] = limits
        else:
            tier = f"{name}-{count}"
            described["tiers"][tier] = {"limits": limits}
            described["customers"][name]["tier"] = tier
    described["customers"]["slots"]["concurrency"] = at_once
    now["slots"] = at_once if isinstance(at_once, int) else ANY
    return described, now


async def change_while_they_ask(edge: Edge, chance: random.Random, first: dict[str, int]) -> tuple[
    dict[str, Asking], dict[str, Said]
]:  # fmt: skip
    """All customers send requests flat out while their limits change again and again."""
    said = {name: Said([(0.0, 0.0, count)]) for name, count in first.items()}
    everyone = {name: Asking(edge.port, name, connections=4, pause=0.015) for name in ALGORITHMS}
    everyone["slots"] = Asking(edge.port, "slots", path="/hold?ms=30", connections=8, pause=0.005)
    async with AsyncExitStack() as ends:
        for asking in everyone.values():
            await ends.enter_async_context(asking)
        for at_once in [*chance.choices(AT_ONCE, k=CHANGES - 1), 2]:
            until = monotonic() + chance.uniform(0, 2 * BETWEEN)
            await turned(lambda end=until: monotonic() > end, "a while has passed")  # type: ignore[misc]
            settings, now = described(chance, at_once)
            begun = monotonic()
            answer = await asyncio.to_thread(lambda new=settings: edge.reload(**new))  # type: ignore[misc]
            assert answer.status == 200, answer
            for name, count in now.items():
                said[name].terms.append((begun, monotonic(), count))
    return everyone, said


def test_limits_changed_under_load_never_pass_more_than_the_larger_one(
    start_edge: StartEdge, service: Service, seed: int
) -> None:
    chance = random.Random(seed)
    settings, first = described(chance, 2)
    edge = start_edge(port=service.port, workers=WORKERS, **settings)
    everyone, said = asyncio.run(change_while_they_ask(edge, chance, first))
    print({name: [count for *_, count in each.terms] for name, each in said.items()})
    for name in ALGORITHMS:
        asking = everyone[name]
        assert not asking.lost
        assert asking.statuses[200] > 2 * min(COUNTS)
        assert asking.statuses[429] > 0
        check = assert_bucket_held if name == "bucket" else assert_window_held
        check(asking, said[name])
    assert not everyone["slots"].lost
    for since, until, peak in service.of("slots").above(1):
        assert peak <= said["slots"].most(since - DELAY, until)
    assert in_use(edge, "slots") == shown(edge, "slots") == 0
