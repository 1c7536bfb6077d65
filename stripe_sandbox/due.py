"""Timers that are due, by the sandbox's clock and by test clocks: in order, each in a transaction of its own."""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from stripe_sandbox.objects import alerts, billing_thresholds, clocks, usage
from stripe_sandbox.refusal import ApiError
from stripe_sandbox.store import transaction
from stripe_sandbox.transaction import Account, Transaction

LOG = logging.getLogger("stripe-sandbox")
STEPS = 200
"""Timers that run at once, before calls are answered again."""

Work = Mapping[str, Callable[[Transaction, str], None]]
"""The functions of timers, by name."""


class Timer(NamedTuple):
    """A timer: its work, its object and its time."""

    seq: int
    at: int
    what: str
    id: str
    live: bool


class DueWork:
    """Runs the timers that are due."""

    def __init__(self, account: Account, work: Work) -> None:
        self._account = account
        self._work = work

    def run_due(self, now: float) -> bool:
        """Run some timers; returns whether there may be more."""
        more = False
        for live in (False, True):
            more |= self._count(live, now)
        for clock in Transaction(self._account, False, int(now)).all("test_helpers.test_clock", status="advancing"):
            more |= self._advance(clock["id"], clock["status_details"]["advancing"]["target_frozen_time"], int(now))
        return self._run_timers("", int(now), int(now)) or more

    def _count(self, live: bool, now: float) -> bool:
        waiting = self._account.connection.execute(
            "SELECT 1 FROM usage WHERE state = 'waiting' AND due <= ? AND live = ? LIMIT 1", (now, live)
        ).fetchone()
        if waiting is None:
            return False
        with transaction(self._account.connection):
            tx = Transaction(self._account, live, int(now))
            many, counted = usage.count_events(tx, now)
            alerts.evaluate_alerts(tx, counted)
            billing_thresholds.evaluate_thresholds(tx, counted)
            return many == usage.BATCH

    def _advance(self, clock: str, target: int, now: int) -> bool:
        if self._run_timers(clock, target, now):
            return True
        with transaction(self._account.connection):
            tx = Transaction(self._account, False, now)
            clocks.finish_advance(tx, tx.get("test_helpers.test_clock", clock))
        return False

    def _run_timers(self, clock: str, until: int, now: int) -> bool:
        """Run the timers of one clock in their order; returns whether there are more."""
        for _ in range(STEPS):
            row = self._account.connection.execute(
                "SELECT seq, at, what, id, live FROM timers WHERE clock = ? AND at <= ? ORDER BY at, seq LIMIT 1",
                (clock, until),
            ).fetchone()
            if row is None:
                return False
            self._do(Timer(*row), clock, now)
        return True

    def _do(self, timer: Timer, clock: str, now: int) -> None:
        # By the sandbox's clock things are done as of when they were due: a jump of it is as if time had passed.
        tx = Transaction(self._account, bool(timer.live), now if clock else timer.at)
        try:
            with transaction(self._account.connection):
                self._drop(timer)
                if clock:
                    test_clock = tx.get("test_helpers.test_clock", clock)
                    tx.save({**test_clock, "frozen_time": max(test_clock["frozen_time"], timer.at)})
                self._work[timer.what](tx, timer.id)
        except ApiError as error:
            LOG.error("the timer %s of %s was refused: %s", timer.what, timer.id, error)
            self._drop(timer)
        except Exception:  # One object that cannot be handled keeps no other waiting.
            LOG.exception("the timer %s of %s failed", timer.what, timer.id)
            self._drop(timer)

    def _drop(self, timer: Timer) -> None:
        self._account.connection.execute("DELETE FROM timers WHERE seq = ?", (timer.seq,))
