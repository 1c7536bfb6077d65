"""The program that times limit decisions: `python decision.py FOLDER` prints JSON. It needs edgeproxy on its path.

No network. Time goes on by 20 µs a decision, as under 50,000 requests a second, so that new cells are summed as often
as they would be.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from edgeproxy.edge.limits.admission import admit_fast
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from loadtest.bench.measure.tables import two_workers

_STEP = 20e-6
_DECISIONS = 50_000
_REPEATS = 5


def microseconds(decide: Callable[[float], object], moments: Iterator[float]) -> float:
    """The best of some repeats, for one decision; the loop around it costs some 0.03 µs of that."""
    best = float("inf")
    for _ in range(_REPEATS):
        times = [next(moments) for _ in range(_DECISIONS)]
        began = time.perf_counter()
        for now in times:
            decide(now)
        best = min(best, time.perf_counter() - began)
    return best / _DECISIONS * 1e6


def main(folder: Path) -> None:
    with two_workers(folder) as (worker, _):
        customers, addresses = Policies(worker.customers), Policies(worker.addresses)
        guard = addresses.get_policy(Rule("per_ip", 100_000_000, 1.0, scope="guard"), b"127.0.0.1")
        window = customers.get_policy(Rule("enterprise", 100_000_000, 60.0), b"acme")
        spent = customers.get_policy(Rule("basic", 60, 60.0), b"tiny")
        alone, guarding, refused = LimitSet((window,)), LimitSet((guard,)), LimitSet((spent,))
        first = time.monotonic() + worker.offset
        # One clock for all of them: it never goes back.
        moments = (first + number * _STEP for number in count())

        def charge_one(now: float) -> None:
            if window.left(now) > 0:
                window.charge()

        layers = (
            ("one limit decision, 2 workers", True, charge_one),
            ("admit: one policy", False, lambda now: admit_fast(alone, now)),
            ("admit: the guard, a window of a second", False, lambda now: admit_fast(guarding, now)),
            ("admit: refused", False, lambda now: admit_fast(refused, now)),
        )
        for now in (next(moments) for _ in range(60)):
            admit_fast(refused, now)
        print(
            json.dumps(
                [
                    {"what": what, "budgeted": budgeted, "microseconds": microseconds(decide, moments)}
                    for what, budgeted, decide in layers
                ]
            )
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
