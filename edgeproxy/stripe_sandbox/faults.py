"""Faults that are asked for: which of them meets a call or a delivery. A seed makes them the same again."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

BEFORE = ("call_lost", "error_before", "refused", "rate_limited", "restart_before")
AFTER = ("answer_lost", "answer_cut", "error_after", "restart_after")
DELAYS = ("latency",)
DELIVERIES = ("webhook_lost", "webhook_late", "webhook_duplicated", "webhook_shuffled", "webhook_forged")
LASTING_FAULTS = ("lag", "summary_lag", "search_lag", "summary_wrong", "clock")
"""What is so for as long as it is asked for."""


class Fault(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A fault that is asked for."""

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
    """Of each that it may meet."""
    count: int | None = None
    """How many it meets at most."""
    skip: int = 0
    """How many it lets pass first."""
    method: str | None = None
    path: str | None = None
    """What the path of a call, or the type of an event, begins with."""
    status: int | None = None
    seconds: float = 0.0
    by: int = 0
    """By how much a summary is wrong."""
    reason: str | None = None
    """`Stripe-Rate-Limited-Reason`; without one, a 429 is a lock that was not had."""
    seen: int = 0
    """How many it could have met."""
    met: int = 0
    """How many it met."""


class FaultPlan(msgspec.Struct, forbid_unknown_fields=True):
    """All faults that are asked for, and their seed."""

    seed: int = 0
    faults: list[Fault] = []


class Faults:
    """Decides. The same seed and the same calls in the same order meet the same faults."""

    def __init__(self, plan: FaultPlan) -> None:
        self.asked = plan

    def meet(self, kinds: Sequence[str], name: str, method: str | None = None) -> list[Fault]:
        """The faults of these kinds that a call of this path, or an event of this type, meets now."""
        return list(self._met(kinds, name, method))

    def meet_one(self, kinds: Sequence[str], name: str, method: str | None = None) -> Fault | None:
        """The first of them, where a call can meet one alone."""
        return next(self._met(kinds, name, method), None)

    def _met(self, kinds: Sequence[str], name: str, method: str | None) -> Iterator[Fault]:
        for place, fault in enumerate(self.asked.faults):
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
        """A number from 0 to 1 that this seed has for this."""
        digest = hashlib.sha256(f"{self.asked.seed} {what}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def standing(self, kind: str) -> Fault | None:
        """A fault that is so for as long as it is asked for."""
        return next((fault for fault in self.asked.faults if fault.kind == kind), None)
