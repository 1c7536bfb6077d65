"""The ledger's counts of quotas in the hub: a list of lines beside the directory, the newest last.

Each line is the number of a change and what was counted, as JSON; numbers grow from line to line, and are next to each
other unless the list was begun anew. Edges hear on a channel that there is more, and look by themselves too.
"""

COUNTS_KEY = b"dir:{people}:counted"
"""The list."""
LINES_MAX = 65536
"""Lines of the list (scripts/counted.lua)."""
NEWS_CHANNEL = b"dir:{people}:counted-more"
"""The channel."""


def format_line(seq: int, count: bytes) -> bytes:
    """Return the line of a change."""
    return b"%d %b" % (seq, count)


def parse_line(raw: bytes) -> tuple[int, bytes]:
    """Return the number of a line, and what it says; raises ValueError."""
    seq, _, count = raw.partition(b" ")
    return int(seq), count
