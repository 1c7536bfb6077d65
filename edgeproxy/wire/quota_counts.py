"""The ledger's counts of quotas in the hub: a list of lines beside the directory, the newest last.

Each line has the number of a change and its count as JSON. The numbers increase by one from line to line, unless the
list was started again. A channel announces new lines to edges, which also check at intervals.
"""

COUNTS_KEY = b"dir:{people}:counted"
"""The list."""
LINES_MAX = 65536
"""Maximum lines of the list (scripts/counted.lua)."""
NEWS_CHANNEL = b"dir:{people}:counted-more"
"""The channel."""


def format_line(seq: int, count: bytes) -> bytes:
    """Return the line of a change."""
    return b"%d %b" % (seq, count)


def parse_line(raw: bytes) -> tuple[int, bytes]:
    """Return the number and the content of a line. Raises ValueError."""
    seq, _, count = raw.partition(b" ")
    return int(seq), count
