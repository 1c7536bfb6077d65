"""The algorithms of limits: the depth of each one's bucket without a `burst`, and their description in settings.

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
WINDOWS: Final[tuple[AlgorithmName, ...]] = ("sliding_window", "hybrid")
"""Algorithms that never admit more than the count in a window, whatever the depth of a bucket: the counts of cells
decide. Hosts that share such a limit report each cell.
"""
BUCKETLESS: Final = tuple(name for name in DEFAULT_DEPTHS if name not in BUCKETS)
"""The others."""

ALGORITHM_DESCRIPTION: Final = (
    "How requests are counted. `sliding_window` keeps a promise that clients can check. `token_bucket` lets a steady "
    "rate pass, and bursts now and then. `hybrid` is both: the window, and a bucket that spreads its requests."
)
RATE_DESCRIPTION: Final = (
    "Requests in a time. `sliding_window`: at most this number in *any* window of that length. `token_bucket`: the "
    "rate at which the bucket empties."
)
BURST_DESCRIPTION: Final = (
    "Depth of the bucket: requests that may arrive at once. Only for `token_bucket` (by default the count of the rate) "
    "and `hybrid` (by default a tenth of it, at least 1)."
)
