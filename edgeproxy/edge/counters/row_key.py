"""Keys of rows, and the bits of a row's state."""

from typing import NamedTuple

DIGESTED = 1 << 8
"""A bit of a row's state beside the key's length: the row stores a digest of the key."""
KEY_STATE = DIGESTED | 0xFF
HAS_FOREIGN = 1 << 9
"""A bit of a row's state: its foreign ring has been written to."""
HAS_GAUGES = 1 << 10
"""A bit of a row's state: it counts things in use now, not arrivals."""
HAS_PERIODS = 1 << 11
"""A bit of a row's state: it counts in calendar periods."""
KINDS_OF_ROWS = HAS_GAUGES | HAS_PERIODS


class RowKey(NamedTuple):
    """A key for a look-up: its hash, and the state and key words that its row must have."""

    hash: int
    state: int
    stored: bytes
