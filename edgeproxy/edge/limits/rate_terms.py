"""The terms of a rate that hosts share, equal for the worker that counts and the supervisor that reports to the hub."""

from typing import Literal, NamedTuple

from edgeproxy.config.algorithms import WINDOWS
from edgeproxy.edge.limits.rule import Rule

Mode = Literal["bounded", "eventual", "strict"]
"""The strictness of a shared rate (edge/limits/gate.py)."""


class RateTerms(NamedTuple):
    """The terms of a rate: `limit` in `cells` cells of a window of `span` seconds; 0 cells for no window.

    `depth` is the depth of a bucket that drains `rate` a second; 0 for no bucket.
    """

    limit: int
    span: float
    cells: int = 0
    depth: int = 0
    rate: float = 0.0
    mode: Mode = "bounded"

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""
        return min(self.limit, self.depth) if self.cells and self.depth else self.limit if self.cells else self.depth


def build_terms(rule: Rule, cells: int, mode: Mode) -> RateTerms:
    """Return the terms of a window or a bucket in a table whose rows have this many `cells`."""
    kind = rule.kind.rate
    assert kind is not None
    cells = cells if rule.algorithm in WINDOWS else 0
    if not kind.has_bucket:
        return RateTerms(rule.limit, rule.window, cells, mode=mode)
    rate = rule.limit / rule.window
    # Usage matters to other hosts until it has left the window, or drained.
    span = rule.window if cells else max(rule.window, rule.depth / rate)
    return RateTerms(rule.limit, span, cells, rule.depth, rate, mode)
