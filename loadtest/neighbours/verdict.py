"""The goal, and whether a row holds it."""

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """The waits of a client in milliseconds."""

    p50: float
    p99: float
    longest: float
    answers: int


def figures(waits: Sequence[float]) -> Figures:
    """Of waits in seconds; percentiles by the nearest rank, all infinite where nothing was answered."""
    if not waits:
        return Figures(float("inf"), float("inf"), float("inf"), 0)
    ordered = sorted(waits)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return Figures(rank(0.5), rank(0.99), ordered[-1] * 1000, len(ordered))


@dataclass(frozen=True)
class Goal:
    """Bounds: milliseconds that the 99th percentile may be above idle, the longest wait, MiB of growth."""

    added_p99: float = 20.0
    longest: float = 100.0
    growth: float = 64.0

    def scaled(self, factor: float) -> "Goal":
        """The same for a noisy machine: waits `factor` times as long. Memory stays."""
        return Goal(self.added_p99 * factor, self.longest * factor, self.growth)


@dataclass(frozen=True)
class Row:
    """One neighbour beside one peer. `after` is the first request after the flood in ms (None: it failed); `turn` the
    upper bound of the longest turn of a worker's loop in ms (None: not measured)."""

    neighbour: str
    peer: str
    idle: Figures
    beside: Figures
    errors: tuple[str, ...]
    connections: int
    """Of the neighbour, one after the other ones included."""
    growth: int
    killed: bool
    after: float | None
    turn: float | None = None

    @property
    def added_p99(self) -> float:
        """Milliseconds."""
        return self.beside.p99 - self.idle.p99


def misses(row: Row, goal: Goal) -> list[str]:
    """Return the parts of the goal that the row misses, by name."""
    after = float("inf") if row.after is None else row.after
    judged = (
        (row.connections > 0, "no attack"),
        (row.added_p99 <= goal.added_p99, "p99"),
        (row.beside.longest <= goal.longest, "longest"),
        (not row.errors, "cut"),
        (not row.killed, "worker replaced"),
        (row.growth <= goal.growth * MIB, "memory"),
        (after <= goal.longest, "afterwards"),
    )
    return [name for holds, name in judged if not holds]
