"""Rows that are reclaimed while workers want them, under real processes and a clock that the test turns."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.reclaim import Reclaim
from tests.support.program import Program
from tests.support.tables import CUSTOMERS, limits, make, opened, taken

WORKER = """
import random, sys
from pathlib import Path
from time import sleep
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.usage import compute_usage
from tests.support.program import Program
from tests.support.tables import limits, opened
number = int(sys.argv[3])
table, clock = limits(Path(sys.argv[1]), number), opened(Path(sys.argv[2])).words
policies, rule, chance = Policies(table), Rule("basic", 1 << 20, 1.0), random.Random(int(sys.argv[4]) + number)
kept = {}
counted = without = 0
print("ready", flush=True)
while (tick := clock[1000]) != 1:
    now = tick / 1000
    for _ in range(chance.randrange(6)):
        subject = b"%d" % chance.randrange(24)
        policy = kept.get(subject) or policies.get_policy(rule, subject)
        if chance.random() < 0.5:
            kept[subject] = policy
        else:
            kept.pop(subject, None)
        policy.left(now)
        policy.charge()
        if policy.counts.local:
            without += 1
        else:
            counted += 1
            # Whoever looks for the subject finds what was counted: the row is still its own.
            assert compute_usage(table, rule, subject, now).used >= 1, (subject, now)
            assert policy.left(now) < 1 << 20
    clock[1001 + number] = tick
    while clock[1000] == tick:
        sleep(0)
print(counted, without, flush=True)
"""

STEP = 700
"""Milliseconds of a turn of the clock. No decision takes longer than two of them, as no worker hangs for 2 s."""


def test_a_row_is_freed_or_wanted_and_never_both(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows become idle right after their window, because this tests freeing rows, not waiting for it.
    monkeypatch.setattr("edgeproxy.edge.counters.reclaim.IDLE_SECONDS", 0.0)
    # Twenty rows for twenty-four subjects: rows change hands all the time.
    table = limits(make(tmp_path, CUSTOMERS._replace(rows=20)))
    clock_path = make(tmp_path, Layout("usage", rows=1, columns=4, width=1))
    clock = opened(clock_path).words
    tick = 1_000_000
    clock[1000] = tick
    reclaim = Reclaim(table)
    closed = freed = revived = 0
    with ExitStack() as ends:
        programs = [Program("-c", WORKER, table.file.path, clock_path, number, seed) for number in range(2)]
        workers = [ends.enter_context(program) for program in programs]
        for worker in workers:
            assert worker.heard() == "ready"
        for _ in range(1500):
            tick += STEP
            clock[1000] = tick
            one, two, three = reclaim.slice(tick / 1000, float("inf"))
            closed, freed, revived = closed + one, freed + two, revived + three
            while min(clock[1001], clock[1002]) < tick - STEP:
                assert all(worker.process.poll() is None for worker in workers)
        clock[1000] = 1
        assert sum(int(worker.end().split()[0]) for worker in workers) > 1500
    assert freed > 100
    assert closed > freed
    assert table.rows_in_use == len(list(table.rows())) == len(taken(table))
