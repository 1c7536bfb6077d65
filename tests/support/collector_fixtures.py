"""Fixtures: collectors and databases, and the kind of database for each test.

A test that uses `collector`, `database` or `empty_database` runs on one kind, by its file, so each kind runs half of
the files. A test that is marked `both_databases` runs on both: its SQL, its locks or its types differ, or no other
test runs its SQL on the other kind. With `--both-databases`, as each night, all tests run on both.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from loadtest.testbed.collector import Collector
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.tables_ready import put_tables

StartCollector = Callable[..., Collector]
KINDS = ("sqlite", "postgresql")
FIXTURES = ("collector", "database", "empty_database")
"""The fixtures that have a database of each kind."""


METERS = {"requests": {"count": "requests"}, "keyed": {"count": "requests", "dimensions": {"key": 100}}}
"""The meters of collectors that tests share."""


def only_sqlite(fixture: str) -> pytest.MarkDecorator:
    """Make a test use SQLite only, because the database does not affect its subject.

    `fixture` is the fixture with its database: `collector` or `database`.
    """
    return pytest.mark.parametrize(fixture, ["sqlite"], indirect=True)


def database_of(file: str) -> str:
    """Return the kind of database that runs a file's tests, by its path in the project.

    Of the bits of the checksum this one leaves PostgreSQL with most of the SQL: it refuses more than SQLite.
    """
    return KINDS[zlib.crc32(file.encode()) >> 11 & 1]


def runs(item: pytest.Item) -> bool:
    """Return whether a test runs on the kind of database that its parameters name."""
    callspec = getattr(item, "callspec", None)
    kinds = {callspec.params.get(fixture) for fixture in FIXTURES}.intersection(KINDS) if callspec else ()
    named = {mark.args[0] for mark in item.iter_markers("parametrize")}
    if not kinds or item.get_closest_marker("both_databases") or named.intersection(FIXTURES):
        return True
    return database_of(item.nodeid.partition("::")[0]) in kinds


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.both_databases:
        config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
        items[:] = filter(runs, items)


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> Iterator[Postgresql]:
    """A PostgreSQL server that all tests share, each with databases of its own. Long runs have too much data for
    memory.
    """
    if programs() is None:
        pytest.skip("PostgreSQL is not on this machine")
    with closing(Postgresql(in_memory=not pytestconfig.getoption("soak"), filled=True)) as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector on SQLite that tests share, see `collector`."""
    folder = tmp_path_factory.mktemp("sqlite")
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", meters=METERS)) as made:
        yield made.start()


@pytest.fixture(scope="session")
def postgresql_collector(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> Iterator[Collector]:
    """A shared collector on PostgreSQL, with a login that owns no table."""
    folder = tmp_path_factory.mktemp("postgresql")
    with closing(Collector(folder / "collector", postgresql.database_of_owner(), meters=METERS)) as made:
        yield made.start()


@pytest.fixture(scope="module", params=KINDS)
def collector(request: pytest.FixtureRequest) -> Collector:
    """A running collector, on each kind of database.

    Its start takes a quarter of a second of CPU, so tests share it: each ships under its own names (`Chain()`),
    queries only those, and does not stop it.
    """
    shared: Collector = request.getfixturevalue(f"{request.param}_collector")
    return shared


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with the tables and no rows, of each kind."""
    if request.param == "sqlite":
        return put_tables(f"sqlite:///{tmp_path}/data/ledger.db")
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture(params=KINDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/ledger.db"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.empty_database()


@pytest.fixture(scope="module")
def sqlite_without_threads() -> Iterator[None]:
    """Run SQLite's statements in the thread of the event loop, which takes a third less CPU.

    A transaction then runs as a whole before another task does, so tests of concurrency use `sqlite_with_threads`.
    """
    from tests.support import one_thread

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("edgeproxy.collector.database.database.create_async_engine", one_thread.create_engine)
        yield


@pytest.fixture
def sqlite_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run SQLite's statements in threads, as a collector does."""
    monkeypatch.setattr("edgeproxy.collector.database.database.create_async_engine", create_async_engine)


@pytest.fixture
def start_collector(tmp_path: Path, database: str) -> Iterator[StartCollector]:
    """Start a collector for one test on the test's database: `start_collector(**settings)`."""
    with ExitStack() as ends:

        def start(**settings: Any) -> Collector:
            created = ends.enter_context(closing(Collector(tmp_path / "collector", database, **settings)))
            return created.start()

        yield start
