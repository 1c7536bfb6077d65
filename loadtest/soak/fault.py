"""The faults of a soak test, their times, and the marks of the client troubles that they cause."""

from dataclasses import dataclass, field
from enum import StrEnum


class FaultKind(StrEnum):
    """A kind of fault: of the edge, of its endpoints, or between its counts and the ledger. Reloads are kinds too."""

    RELOAD = "reload"
    BAD_RELOAD = "invalid reload"
    KILL_WORKER = "worker killed"
    HANG_WORKER = "worker stopped"
    KILL_SUPERVISOR = "supervisor killed"
    ROLL = "rolling replacement"
    RESTART = "endpoint killed and started again"
    OUTAGE = "all endpoints killed and started again"
    KILL_STEP = "supervisor killed, and the next one at a step"
    KILL_EDGE = "edge killed whole"
    TEAR = "edge killed whole, and the end of its spool torn"
    END = "edge ended and started"
    MOVE = "edge ended, and its state directory moved and adopted"
    SWITCH = "shipping switched off and on"
    FILL = "disk full, or with room again"
    CLOCK = "clock set"
    WEATHER = "another weather in the network"
    LATE = "old batches delivered once more"
    COLLECTOR_KILL = "collector killed at a step"
    COLLECTOR_END = "collector ended and started"
    COLLECTOR_COPY = "collector copied"
    COLLECTOR_BACK = "collector put back to its copy"


@dataclass
class Fault:
    """A fault that the test has made. Times are seconds of the monotonic clock."""

    kind: FaultKind
    began: float
    ended: float = float("inf")
    """When everything that it broke worked again."""
    ports: frozenset[int] = frozenset()
    """For a lost worker, the ports of the clients that it held at that moment."""
    endpoints: frozenset[str] = frozenset()
    """The endpoints that were down."""
    note: str = ""


@dataclass
class Held:
    """A setting that reloads change, and when all processes had applied each value."""

    turns: list[tuple[float, bool | None]] = field(default_factory=list)
    """(since, value); None while processes have different values."""

    def turn(self, since: float, what: bool | None) -> None:
        """Record a new value from now on."""
        self.turns.append((since, what))

    def between(self, began: float, at: float) -> set[bool | None]:
        """Return all values between the two moments."""
        before = [what for since, what in self.turns if since <= began]
        return {*before[-1:], *(what for since, what in self.turns if began < since <= at)}
