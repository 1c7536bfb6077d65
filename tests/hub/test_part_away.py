"""The part of a hub that has a row does not answer, and the rest does: this row alone goes by `on_loss`."""

import random
from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.totals import SharedTotals
from tests.support.hosts import LAYOUT, Worker, World
from tests.support.tables import WIDTH, limits, make

RULE = Rule("basic", 60, 60.0)
OTHER = Rule("other", 60, 90.0)


def left(world: World, worker: Worker) -> tuple[int, bool]:
    """Return the number of requests that may still pass, and True if the next one must ask the hub."""
    gate, passes = worker.gates[RULE.stem], worker.policies.get_policy(RULE, b"acme").left(world.now)
    return passes, gate.must_ask(world.now, 1, passes)


@pytest.mark.parametrize(
    ("on_loss", "mode", "expected"),
    [
        ("share", "bounded", 20),
        ("share", "strict", -10),
        ("full", "bounded", 40),
        ("full", "strict", -10),
        ("deny", "bounded", -10),
    ],
)
def test_no_request_waits_for_an_unavailable_part(
    tmp_path: Path, seed: int, on_loss: OnLoss, mode: str, expected: int
) -> None:
    world = World(tmp_path, seed, (0.001, 0.001))
    workers = [host.workers[0] for host in world.hosts]
    for rule in (RULE, OTHER):
        for worker in workers:
            for number in range(10):
                world.later(number, worker.request, rule, mode)
    world.run(12)
    one = world.hosts[0]
    (row,) = (row for row in one.shared._rows.values() if row.plan.key == RULE.key(b"acme"))
    other = workers[0].policies.get_policy(OTHER, b"acme").left(world.now)
    assert 38 <= other <= 41, "but for a claim in hand, and what the other host counted last"
    one.shared.hold_row(row, world.now, on_loss)
    # Ten of its allowance are used. The allowance is half of sixty, none, or all that the others have not used.
    held = left(world, workers[0])[0]
    assert expected <= held <= expected + 1
    if expected > 0:
        # This holds for any number of passed requests, and for any time without an answer.
        for _ in range(held):
            assert left(world, workers[0])[1] is False
            workers[0].request(RULE, mode)  # type: ignore[arg-type]
            world.now += 0.1
            one.shared.hold_row(row, world.now, on_loss)
        assert left(world, workers[0])[0] <= 0
        assert not workers[0].waiting[RULE.stem]
    assert workers[0].policies.get_policy(OTHER, b"acme").left(world.now) == other, "the other row is as it was"


@pytest.mark.parametrize(("on_loss", "elsewhere"), [("share", 5), ("deny", 10), ("full", 0)])
def test_gauge_of_an_unavailable_node_keeps_its_share_and_reports_again(
    tmp_path: Path, seed: int, on_loss: OnLoss, elsewhere: int
) -> None:
    table, now = limits(make(tmp_path, LAYOUT)), 50_000_000.0
    totals = SharedTotals(table, 1, random.Random(seed))
    totals.hosts = 2
    row, generation, _ = table.find(table.make_key(b"acme"), WIDTH, now, HAS_GAUGES)
    totals.record_use(row, generation, 10, now)
    ((total, _),) = totals.build_reports(now)
    totals.hold_row(total, now, on_loss)
    assert table.words[row + LAYOUT.head(LAYOUT.columns - 1) + at.GAUGE] == elsewhere
    for _ in range(3):
        assert list(totals.build_reports(now + 0.5)) == [], "not at once, again and again"
        now += 1.25
        assert len(list(totals.build_reports(now))) == 1
        totals.hold_row(total, now, on_loss)
