"""Faults of the plan: which of them meets a call or a delivery. A seed makes them repeatable."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

BEFORE = ("call_lost", "error_before", "refused", "rate_limited", "restart_before")
AFTER = ("answer_lost", "answer_cut", "error_after", "restart_after")
DELAYS = ("latency",)
DELIVERIES = ("webhook_lost", "webhook_late", "webhook_duplicated", "webhook_shuffled", "webhook_forged")


class Fault(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A fault of the plan."""

    kind: Literal[
        "call_lost",
        "error_before",
        "refused",
        "rate_limited",
        "restart_before",
        "answer_lost",
        "answer_cut",
        "error_after",
        "restart_after",
        "latency",
        "webhook_lost",
        "webhook_late",
        "webhook_duplicated",
        "webhook_shuffled",
        "webhook_forged",
        "lag",
        "summary_lag",
        "search_lag",
        "summary_wrong",
        "clock",
    ]
    probability: float = 1.0
    """Probability that it meets a call."""
    count: int | None = None
    """The most calls that it meets."""
    skip: int = 0
    """Calls that it skips first."""
    method: str | None = None
    path: str | None = None
    """The start of the path of a call, or of the type of an event."""
    status: int | None = None
    seconds: float = 0.0
    by: int = 0
    """Error of a summary."""
    reason: str | None = None
    """`Stripe-Rate-Limited-Reason`; without it a 429 is a lock timeout."""
    seen: int = 0
    """Calls that it could have met."""
    met: int = 0
    """Calls that it has met."""


class FaultPlan(msgspec.Struct, forbid_unknown_fields=True):
    """A plan of faults, and its seed."""

    seed: int = 0
    faults: list[Fault] = []


class Faults:
    """Decides which faults happen. One seed and one order of calls always give equal faults."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan

    def match_faults(self, kinds: Sequence[str], name: str, method: str | None = None) -> list[Fault]:
        """Return the faults of these kinds that meet a call of this path, or an event of this type."""
        return list(self._met(kinds, name, method))

    def match_fault(self, kinds: Sequence[str], name: str, method: str | None = None) -> Fault | None:
        """Return the first such fault, if a call can meet only one."""
        return next(self._met(kinds, name, method), None)

    def _met(self, kinds: Sequence[str], name: str, method: str | None) -> Iterator[Fault]:
        for place, fault in enumerate(self.plan.faults):
            if fault.kind not in kinds or fault.method not in (None, method):
                continue
            if name.startswith(fault.path or "") and self._meets(place, fault):
                yield fault

    def _meets(self, place: int, fault: Fault) -> bool:
        fault.seen += 1
        if fault.seen <= fault.skip or (fault.count is not None and fault.met >= fault.count):
            return False
        if self.draw(place, fault.seen) >= fault.probability:
            return False
        fault.met += 1
        return True

    def draw(self, *what: object) -> float:
        """Draw a number from 0 to 1 by the seed."""
        digest = hashlib.sha256(f"{self.plan.seed} {what}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def find_lasting(self, kind: str) -> Fault | None:
        """Find a lasting fault of this kind."""
        return next((fault for fault in self.plan.faults if fault.kind == kind), None)
