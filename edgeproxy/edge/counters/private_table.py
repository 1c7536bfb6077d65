"""A table of limits in one process's memory, without a file."""

from pathlib import Path
from tempfile import TemporaryDirectory

from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable


def private_table(rows: int) -> LimitTable:
    """Create a table of this many rows."""
    layout = Layout("addresses", rows, columns=2, ring=16, cells=13, width=LONE_HEAD_WORDS, parts=HEADS_APART)
    with TemporaryDirectory(prefix="edgeproxy-limits-") as folder:
        file = Path(folder) / "addresses.1.tbl"
        TableFile.create(file, layout, generation=1, instance=1, boot=1)
        # The file is gone at once, and its memory lives as long as this.
        return LimitTable(TableFile.open(file, kind=layout.kind, instance=1), 0)
