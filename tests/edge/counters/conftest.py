"""Stores in a folder of the test's own, closed at its end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from edgeproxy.edge.counters.store import Store
from tests.support.tables_closed import closed_at_the_end

__all__ = ["closed_at_the_end"]


class Supervise(Protocol):
    """Prepare the test's state directory, as a supervisor with these settings does."""

    def __call__(
        self, workers: int = 2, customers: int = 40, addresses: int = 20, boot: str = "one", offset: float = 5e7
    ) -> Store: ...


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def stores() -> Iterator[list[Store]]:
    opened: list[Store] = []
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def supervise(state: Path, stores: list[Store]) -> Supervise:
    def prepare(
        workers: int = 2, customers: int = 40, addresses: int = 20, boot: str = "one", offset: float = 5e7
    ) -> Store:
        store = Store.prepare(
            state, workers=workers, customers=customers, addresses=addresses, boot=boot, offset=offset
        )
        stores.append(store)
        return store

    return prepare


@pytest.fixture
def work(state: Path, stores: list[Store]) -> Callable[[], Store]:
    """Join the test's state directory, as a worker does."""

    def join() -> Store:
        store = Store.join(state)
        stores.append(store)
        return store

    return join
