"""What was done, from when to when, and by what a client's trouble that comes of it is known."""

from dataclasses import dataclass, field
from enum import StrEnum


class Deed(StrEnum):
    """What is done to the edge, to what stands behind it, and to what its counts are shipped to."""

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
    """One deed. Times are seconds of the monotonic clock."""

    deed: Deed
    began: float
    ended: float = float("inf")
    """When whatever it broke was whole again."""
    ports: frozenset[int] = frozenset()
    """Of a worker that is lost: the ports of the clients that it held at that moment."""
    endpoints: frozenset[str] = frozenset()
    """Those that were down."""
    note: str = ""


@dataclass
class Held:
    """A setting that reloads change, and since when every process goes by it."""

    turns: list[tuple[float, bool | None]] = field(default_factory=list)
    """(since, what); None: some go by the one, some by the other."""

    def turn(self, since: float, what: bool | None) -> None:
        """From now on."""
        self.turns.append((since, what))

    def between(self, began: float, at: float) -> set[bool | None]:
        """All that held at some moment from the one to the other."""
        before = [what for since, what in self.turns if since <= began]
        return {*before[-1:], *(what for since, what in self.turns if began < since <= at)}
