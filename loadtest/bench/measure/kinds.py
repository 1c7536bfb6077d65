"""The program that times each kind of policy: `python kinds.py FOLDER` prints JSON; no network.

A decision is all that a request costs for its policy: the check, the charge, and the settlement at its end. Costs
are CPU time of this thread. The clock advances 20 µs per decision, as at 50,000 requests a second.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from time import monotonic, perf_counter_ns, thread_time_ns
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.admission import admit, admit_fast, charge_reported_costs
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from loadtest.bench.measure.tables import two_workers

STEP = 20e-6
PLENTY = 100_000_000
WINDOW = 60.0
CELL = WINDOW / 28
UTC = ZoneInfo("UTC")
BATCH = 50

Decide = Callable[[float], object]


class Pace(NamedTuple):
    """The size of a measurement: decisions in a row, repeats, new cells, new subjects."""

    decisions: int
    repeats: int
    cells: int
    subjects: int


FULL = Pace(decisions=10_000, repeats=5, cells=300, subjects=300)


@cache
def rule(algorithm: str, limit: int, mode: str = "enforce") -> Rule:
    """Return a rule, which is created with a configuration, not per request. Credits return too slowly to count."""
    window = 0.0 if algorithm == "concurrency" else 3600.0 if algorithm == "burst_credits" else WINDOW
    return Rule(algorithm, limit, window, algorithm=algorithm, mode=mode, depth=limit)


GUARD = Rule("per_ip", PLENTY, 1.0, scope="guard")


class Worker:
    """The tables that one worker decides with. `subject` is a customer's name or an address."""

    def __init__(self, store: Store) -> None:
        self.customers, self.addresses = Policies(store.customers), Policies(store.addresses)
        self.quotas = Policies(store.quotas)

    def rate(self, subject: bytes, limit: int, algorithm: str = "sliding_window", mode: str = "enforce") -> Policy:
        return self.customers.get_policy(rule(algorithm, limit, mode), subject)

    def window(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet((self.rate(subject, limit),))

    def token_bucket(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet((self.rate(subject, limit, "token_bucket"),))

    def hybrid(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet((self.rate(subject, limit, "hybrid"),))

    def concurrency(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet(slots=(self.customers.get_concurrency(rule("concurrency", limit), subject),))

    def quota(self, subject: bytes, limit: int) -> LimitSet:
        quota = self.quotas.get_quota("requests-month", limit, "month", UTC, subject, hard=True, when="answered")
        return LimitSet(quotas=(quota,))

    def shadow(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet(shadows=(self.rate(subject, limit, mode="shadow"),))

    def reported(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet(reported=(self.rate(subject, limit),))

    def credits(self, subject: bytes, limit: int) -> LimitSet:
        """Return a window with room, and credits that are not needed."""
        return LimitSet((self.rate(subject, limit),), plan_policies=1, credits=self._credits(subject, limit))

    def bought(self, subject: bytes, limit: int) -> LimitSet:
        """Return a window without room, whose excess is paid with credits."""
        return LimitSet((self.rate(subject, 1),), plan_policies=1, credits=self._credits(subject, limit))

    def _credits(self, subject: bytes, limit: int) -> Policy:
        return self.rate(subject, limit, "burst_credits")

    def both(self, subject: bytes, limit: int) -> LimitSet:
        return LimitSet((self.rate(subject, limit),), slots=self.concurrency(subject, PLENTY).slots)


class Kind(NamedTuple):
    """A kind of policy. `guarded`: behind a limit per address, which is charged first. `celled`: cells or levels are
    refreshed at times. `refuses`: there is a refusal to measure.
    """

    what: str
    terms: Callable[[Worker, bytes, int], LimitSet]
    guarded: bool = False
    celled: bool = True
    refuses: bool = True


KINDS = (
    Kind("sliding_window", Worker.window),
    Kind("token_bucket", Worker.token_bucket),
    Kind("hybrid", Worker.hybrid),
    Kind("concurrency", Worker.concurrency, celled=False),
    Kind("quota, hard", Worker.quota, celled=False),
    Kind("sliding_window in shadow mode", Worker.shadow, refuses=False),
    Kind("sliding_window with cost_header", Worker.reported),
    Kind("sliding_window and burst credits that rest", Worker.credits, refuses=False),
    Kind("sliding_window and burst credits that pay", Worker.bought),
    Kind("per_ip, sliding_window and concurrency", Worker.both, guarded=True),
)


def deciding(worker: Worker, kind: Kind, subject: bytes, limit: int) -> Decide:
    """Return the complete cost of a request: the policy's part of Exchange.guard, .admit, .reported and .settle."""
    terms = kind.terms(worker, subject, limit)
    guard = worker.addresses.get_policy(GUARD, subject) if kind.guarded else None

    admission = admit_fast if terms.traits.simple else admit

    def admitted(now: float) -> None:
        admission(terms, now)

    def settled(now: float) -> None:
        refused = admission(terms, now)
        if refused is not None and not refused[0]:
            if terms.traits.other_rates.reported:
                charge_reported_costs(terms, now, [1])
            terms.release()
            if terms.traits.quotas:
                terms.refund(now, lambda when: True)

    decide = settled if terms.traits.has_end_work else admitted
    if guard is None:
        return decide

    def guarded(now: float) -> None:
        if guard.left(now) > 0:
            guard.charge()
        decide(now)

    return guarded


def refusing(workers: tuple[Worker, Worker], kind: Kind, subject: bytes, now: float) -> Decide:
    """Return a refusal with its text, after each of two workers has used one of two."""
    terms = kind.terms(workers[0], subject, 2)
    for worker in workers:
        own = kind.terms(worker, subject, 2)
        for _ in range(3):
            if not admit(own, now)[0] and own.traits.other_rates.reported:
                charge_reported_costs(own, now, [1])
            if own.slots:
                break

    def refuse(now: float) -> None:
        refused, *_ = admit(terms, now)
        if not refused:
            raise RuntimeError(f"{kind.what} refuses nothing")
        compute_denial(terms, now)

    return refuse


class Clock:
    """The one clock of all measurements: it never goes back."""

    def __init__(self, now: float) -> None:
        self.now = now

    def steps(self, number: int, seconds: float = STEP) -> Iterator[float]:
        for _ in range(number):
            self.now += seconds
            yield self.now


def in_a_row(decides: tuple[Decide, ...], clock: Clock, pace: Pace) -> float:
    """Return the µs of one decision if these take turns: the best of some repeats."""
    best = float("inf")
    for _ in range(pace.repeats):
        times = list(clock.steps(pace.decisions))
        if len(decides) == 1:
            (decide,) = decides
            began = thread_time_ns()
            for now in times:
                decide(now)
        else:
            one, other = decides
            began = thread_time_ns()
            for now in times:
                one(now)
                other(now)
        best = min(best, (thread_time_ns() - began) / pace.decisions / len(decides))
    return best / 1000


def one_by_one(timed: Iterator[Callable[[], object]]) -> float:
    """Return the µs per call, each timed alone without the cost of the clock: the mean of the best batch."""
    look = min(-perf_counter_ns() + perf_counter_ns() for _ in range(1000))
    best, spent = float("inf"), 0
    for number, call in enumerate(timed, 1):
        began = perf_counter_ns()
        call()
        spent += perf_counter_ns() - began - look
        if number % BATCH == 0:
            best, spent = min(best, spent / BATCH), 0
    return best / 1000


def measure(kind: Kind, workers: tuple[Worker, Worker], clock: Clock, pace: Pace) -> dict[str, float | str | None]:
    """Return all columns of one kind, in µs."""
    number = count()
    name = kind.what.encode()

    def subject() -> bytes:
        return b"%b %d" % (name, next(number))

    def new_cells(decides: tuple[Decide, Decide]) -> Iterator[Callable[[], object]]:
        own, other = decides
        for now in clock.steps(pace.cells, CELL):
            other(now)
            yield lambda now=now: own(now)  # type: ignore[misc]

    def strangers() -> Iterator[Callable[[], object]]:
        for now in clock.steps(pace.subjects):
            new = subject()
            yield lambda new=new, now=now: deciding(workers[0], kind, new, PLENTY)(now)  # type: ignore[misc]

    known = subject()
    one, other = (deciding(worker, kind, known, PLENTY) for worker in workers)
    spent = refusing(workers, kind, subject(), clock.now) if kind.refuses else None
    return {
        "what": kind.what,
        "refused": None if spent is None else in_a_row((spent,), clock, pace),
        "alone": in_a_row((one,), clock, pace),
        "turns": in_a_row((one, other), clock, pace),
        "new_cell": one_by_one(new_cells((one, other))) if kind.celled else None,
        "stranger": one_by_one(strangers()),
    }


def run(folder: Path, pace: Pace) -> list[dict[str, float | str | None]]:
    """Return one row for each kind."""
    with two_workers(folder, rows=len(KINDS) * (pace.subjects + 10) * 3) as (first, second):
        clock = Clock(monotonic() + first.offset)
        return [measure(kind, (Worker(first), Worker(second)), clock, pace) for kind in KINDS]


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), FULL)))
