"""The algorithms that a limit may name, and how deep the bucket of each is where no `burst` is written.

How each of them decides, and what else it is, edge/limits/kinds.py says.
"""

from collections.abc import Callable
from typing import Final, Literal

AlgorithmName = Literal["sliding_window", "token_bucket", "hybrid"]

DEFAULT_ALGORITHM: Final[AlgorithmName] = "sliding_window"

DEFAULT_DEPTHS: Final[dict[AlgorithmName, Callable[[int], int] | None]] = {
    "sliding_window": None,
    "token_bucket": lambda count: count,
    "hybrid": lambda count: max(1, count // 10),
}
"""The depth (≥ 1) of a bucket whose rate is `count` (≥ 1) requests in its window; None: there is no bucket."""

BUCKETS: Final = tuple(name for name, depth in DEFAULT_DEPTHS.items() if depth is not None)
"""Algorithms whose limits may have a `burst`."""
BUCKETLESS: Final = tuple(name for name in DEFAULT_DEPTHS if name not in BUCKETS)
"""The others."""
