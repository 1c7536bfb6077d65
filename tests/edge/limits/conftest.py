"""Tables of limits in a folder of the test's own, and workers on their columns."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from tests.support.tables import limits, make
from tests.support.tables_closed import closed_at_the_end

__all__ = ["closed_at_the_end"]

Worker = Callable[[int], LimitTable]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of twenty customers, with four workers' columns and as many spare."""
    return make(tmp_path, Layout("customers", 20, 8, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART))


@pytest.fixture
def worker(path: Path) -> Worker:
    """The table as another process has it that counts in this column."""
    return lambda column: limits(path, column)
