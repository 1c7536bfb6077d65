"""The kinds of limits: a row for each `algorithm` of a Rule, with the differences between them.

This table is read when a rule or its policy is created, never for a request. config/algorithms.py lists the kinds for
operators, and the ones with a window (`WINDOWS`). A quota has no rule and no row here: it counts in periods of the
calendar (quota.py).
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.bucket import Hybrid, TokenBucket
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.levels import LevelCounts
from edgeproxy.edge.limits.policy import Policy, RuleTerms
from edgeproxy.edge.limits.row_usage import (
    Usage,
    usage_of_bucket,
    usage_of_concurrency,
    usage_of_hybrid,
    usage_of_window,
)
from edgeproxy.edge.limits.window import SlidingWindow


class Rate(NamedTuple):
    """The implementation of a limit on requests in a time."""

    counts: type[Counts]
    """The class that reads the limit's row and charges it."""
    policy: Callable[[RuleTerms, Any, int, bool], Policy]
    """Creates a policy on such counts: (rule, counts, cost of a request, True if it is charged later) -> policy."""
    has_bucket: bool
    """True if the level of a bucket decides, and the rule has a depth. Hosts that share it report the level."""


class Kind(NamedTuple):
    """A kind of limit. Another letter starts all limits of the kind at zero."""

    letter: bytes
    """The letter of the kind in the key of a row."""
    usage: Callable[[LimitTable, int | None, RuleTerms, float], Usage]
    """Reads the use of a limit: (table, position of its row or None, rule, edge time) -> usage."""
    rate: Rate | None
    """None for the kind that limits concurrency (Policies.get_concurrency)."""


KINDS: Final[dict[str, Kind]] = {
    "sliding_window": Kind(b"s", usage_of_window, Rate(Counts, SlidingWindow, has_bucket=False)),
    "token_bucket": Kind(b"t", usage_of_bucket, Rate(LevelCounts, TokenBucket, has_bucket=True)),
    "hybrid": Kind(b"h", usage_of_hybrid, Rate(LevelCounts, Hybrid, has_bucket=True)),
    "burst_credits": Kind(b"b", usage_of_bucket, Rate(LevelCounts, TokenBucket, has_bucket=True)),
    "concurrency": Kind(b"c", usage_of_concurrency, None),
}
"""The kinds by the name of their algorithm. Burst credits are a token bucket in a row of its own."""
