"""The kinds of limits: a row for each `algorithm` that a Rule may have, with all that differs between them.

Everything else asks this table when a rule or its policy is made, never for a request. Those that operators may write
are in config/algorithms.py too. A quota has no rule and no row here: it counts in periods of the calendar (quota.py).
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
    """How a limit on requests in a time is kept."""

    counts: type[Counts]
    """Reads the limit's row, and charges it."""
    policy: Callable[[RuleTerms, Any, int], Policy]
    """Decides by such counts: (rule, counts, cost of a request) -> policy."""
    has_window: bool
    """The counts of its cells hold; hosts that share it tell each other each cell."""
    has_bucket: bool
    """The level of a bucket holds, and the rule has a depth; hosts that share it tell each other the level."""


class Kind(NamedTuple):
    """One kind of limit. Who changes a letter begins all limits of the kind anew."""

    letter: bytes
    """Stands for it in the key of a row; another one for each kind."""
    usage: Callable[[LimitTable, int | None, RuleTerms, float], Usage]
    """Reads what is used of a limit: (table, the word at which its row begins, rule, edge time) -> usage."""
    rate: Rate | None
    """None: it limits requests at once (Policies.concurrency)."""


KINDS: Final[dict[str, Kind]] = {
    "sliding_window": Kind(b"s", usage_of_window, Rate(Counts, SlidingWindow, has_window=True, has_bucket=False)),
    "token_bucket": Kind(b"t", usage_of_bucket, Rate(LevelCounts, TokenBucket, has_window=False, has_bucket=True)),
    "hybrid": Kind(b"h", usage_of_hybrid, Rate(LevelCounts, Hybrid, has_window=True, has_bucket=True)),
    "burst_credits": Kind(b"b", usage_of_bucket, Rate(LevelCounts, TokenBucket, has_window=False, has_bucket=True)),
    "concurrency": Kind(b"c", usage_of_concurrency, None),
}
"""By the name of the algorithm. Burst credits are a token bucket in a row of its own."""
