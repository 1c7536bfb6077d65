"""The algorithms of limits, and the depth of each one's bucket without a `burst`.

edge/limits/kinds.py defines how each algorithm decides, and its other properties.
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
"""The depth (≥ 1) of a bucket for a rate of `count` (≥ 1) requests per window. None: there is no bucket."""

BUCKETS: Final = tuple(name for name, depth in DEFAULT_DEPTHS.items() if depth is not None)
"""Algorithms whose limits may have a `burst`."""
BUCKETLESS: Final = tuple(name for name in DEFAULT_DEPTHS if name not in BUCKETS)
"""The others."""
