"""Tables of limits in a folder of the test's own, and workers on their columns."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.counters.layout import HEAD_WORDS, Layout
from edgeproxy.counters.rows import LimitTable
from tests.support.tables import close_all, limits, make

Worker = Callable[[int], LimitTable]


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    """Whatever the test opens through `tables`."""
    yield
    close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of twenty customers, with four workers' columns and as many spare."""
    return make(tmp_path, Layout("customers", rows=20, columns=8, ring=32, cells=28, width=HEAD_WORDS))


@pytest.fixture
def worker(path: Path) -> Worker:
    """The table as another process has it that counts in this column."""
    return lambda column: limits(path, column)
