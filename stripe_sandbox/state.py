"""State of the sandbox besides objects: the time, the fault plan, the wake-up of timers."""

import asyncio
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stripe_sandbox import delivery
from stripe_sandbox.description import Description
from stripe_sandbox.faults import DELAYS, Fault, FaultPlan, Faults
from stripe_sandbox.operations import VIEWS
from stripe_sandbox.store import connect
from stripe_sandbox.transaction import Account, Body, Transaction


class State:
    """The state of a sandbox, in one file. Raises sqlite3.Error if the file is unusable."""

    def __init__(self, file: Path | str, description: Description, base: str, usage_lag: float, limited: bool) -> None:
        self.connection = connect(file)
        self._offset = float(self._find_setting("offset") or 0.0)
        self.faults = Faults(FaultPlan())
        self.woken = asyncio.Event()
        self._usage_lag = usage_lag
        self.account = Account(
            self.connection,
            description,
            base,
            VIEWS,
            self._deliver,
            self.clock,
            usage_lag,
            limited=limited,
            summary_error=self._summary_error,
        )
        stored_plan = self._find_setting("faults")
        if stored_plan is not None:
            self.apply_fault_plan(msgspec.json.decode(stored_plan, type=FaultPlan))

    def _deliver(self, tx: Transaction, event: Body, endpoint: str, form: str) -> None:
        delivery.enqueue(self.faults, tx, event, endpoint, form)

    # ---- settings

    def _find_setting(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set_setting(self, name: str, value: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

    # ---- time

    def clock(self) -> float:
        """Return the time in seconds since 1970."""
        fault = self.faults.find_lasting("clock")
        return time.time() + self._offset + (0.0 if fault is None else fault.seconds)

    def advance(self, seconds: float) -> float:
        """Advance the clock; returns the new time."""
        self._offset += seconds
        self._set_setting("offset", repr(self._offset))
        self.wake()
        return self.clock()

    def has_objects(self) -> bool:
        """Return whether there is any object."""
        return self.connection.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is not None

    def wake(self) -> None:
        """Wake the timers and deliveries."""
        self.woken.set()

    # ---- faults

    def apply_fault_plan(self, plan: FaultPlan) -> None:
        """Replace the fault plan."""
        self.faults = Faults(plan)
        lag, summary_lag = self.faults.find_lasting("lag"), self.faults.find_lasting("summary_lag")
        self.account.usage_lag = self._usage_lag if lag is None else lag.seconds
        self.account.summary_lag = 0.0 if summary_lag is None else summary_lag.seconds
        search_lag = self.faults.find_lasting("search_lag")
        self.account.search_lag = 0.0 if search_lag is None else search_lag.seconds
        self._remember()

    def _remember(self) -> None:
        self._set_setting("faults", msgspec.json.encode(self.faults.plan).decode())

    def get_delay(self, path: str, method: str) -> float:
        """Return the delay of a call in seconds."""
        if not self.faults.plan.faults:
            return 0.0
        return sum(fault.seconds for fault in self.faults.match_faults(DELAYS, path, method))

    def match_fault(self, kinds: Sequence[str], path: str, method: str) -> Fault | None:
        """Return the fault of these kinds that a call meets, and store that it met it, across restarts."""
        if not self.faults.plan.faults:
            return None
        met = self.faults.match_fault(kinds, path, method)
        self._remember()
        return met

    def _summary_error(self) -> int:
        return sum(fault.by for fault in self.faults.match_faults(("summary_wrong",), ""))

    # ---- reports

    def count_payments(self) -> int:
        """Count the payments, which determine the allowed reads."""
        return self._payments(int(time.monotonic()) // 10)

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one state a process
    def _payments(self, _: int) -> int:
        (many,) = self.connection.execute("SELECT COUNT(*) FROM objects WHERE kind = 'charge'").fetchone()
        return int(many)

    def list_effects(self, after: int, limit: int, what: str) -> list[Body]:
        """Return recorded effects whose name begins with `what`, oldest first."""
        rows = self.connection.execute(
            "SELECT seq, at, live, what, id, request, details FROM journal WHERE seq > ? AND what GLOB ? "
            "ORDER BY seq LIMIT ?",
            (after, f"{what}*", limit),
        )
        return [
            {"seq": seq, "at": at, "livemode": bool(live), "what": name, "id": id, "request": request}
            | json.loads(details)
            for seq, at, live, name, id, request, details in rows
        ]
