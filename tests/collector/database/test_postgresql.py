"""Connections to PostgreSQL: they lead to the primary alone, also through a pooler, and there are so many of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database import postgresql
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, UnusableDatabaseError
from edgeproxy.collector.database.postgresql import Connections
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.database.single_runner import acquire_lock
from loadtest.testbed.address import MovableAddress
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.pgbouncer import PROGRAM, PgBouncer
from loadtest.testbed.postgresql import OWNER, Postgresql
from loadtest.testbed.waiting import until
from tests.support.batch_shipper import BatchShipper

SLOW = 60.0
"""Seconds within which a connection to the new primary is expected on a busy machine."""
CHANGED_SETTINGS = """SELECT count(*) FROM pg_settings
WHERE name IN ('default_transaction_read_only', 'synchronous_standby_names') AND setting NOT IN ('off', '')"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgresql]:
    with closing(Postgresql(in_memory=True)) as made:
        yield made


@pytest.fixture
def server(own_server: Postgresql) -> Iterator[Postgresql]:
    """A server that no other file uses, because it is demoted. It is a primary again after each test."""
    yield own_server
    own_server.ask("ALTER SYSTEM RESET ALL")
    own_server.ask("SELECT pg_reload_conf()")
    until(lambda: own_server.ask(CHANGED_SETTINGS) == "0", "new connections have the settings")


@pytest.fixture
def pooler(postgresql: Postgresql) -> Iterator[PgBouncer]:
    if PROGRAM is None:
        pytest.skip("PgBouncer is not on this machine")
    with PgBouncer(postgresql.port) as made:
        yield made


def demote(server: Postgresql) -> None:
    """Let a server take no more changes; its connections stay."""
    server.ask("ALTER SYSTEM SET default_transaction_read_only = on")
    server.ask("SELECT pg_reload_conf()")


def promote(server: Postgresql) -> None:
    server.ask("ALTER SYSTEM SET default_transaction_read_only = off")
    server.ask("SELECT pg_reload_conf()")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    database = await Database.connect(url)
    try:
        yield database
    finally:
        await database.close()


async def repeated(work: Callable[[], Awaitable[object]]) -> None:
    """Do something until it raises: processes of a server hear of a setting a moment later."""
    async with asyncio.timeout(SLOW):
        while True:
            await work()


async def write(database: Database, name: str) -> None:
    async with database.writing() as connection:
        await database.ledger.insert_edges(connection, [{"edge": name, "region": "", "seq": 0, "received": 0}])


async def test_error_of_a_demoted_server_ends_the_connection(
    server: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was looked at just before the fail-over meets the error itself."""
    monkeypatch.setattr(postgresql, "ROLE_SECONDS", 3600.0)
    url = server.database()

    async with connected(url) as database:
        await write(database, "before")
        demote(server)
        with pytest.raises(CONNECTION_ERRORS, match="read-only transaction"):
            await repeated(lambda: database.set_minutes_floor(None))
        with pytest.raises(CONNECTION_ERRORS, match="not the primary"):
            await write(database, "during")
        promote(server)
        await write(database, "after")
        async with database.reading() as connection:
            names = (await connection.execute(sa.select(edges.c.edge).order_by(edges.c.edge))).scalars().all()
        assert names == ["after", "before"]


@pytest.mark.parametrize("use", ["reading", "writing"])
async def test_idle_connection_to_a_demoted_server_is_not_used(
    server: Postgresql, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """Otherwise readers would get data from before the fail-over, without an error."""
    monkeypatch.setattr(postgresql, "ROLE_SECONDS", 0.0)
    url = server.database()

    async with connected(url) as database:
        async with database.reading() if use == "reading" else database.writing() as connection:
            await connection.exec_driver_sql("SELECT 1")
        demote(server)

        async def ask() -> None:
            async with database.reading() if use == "reading" else database.writing() as connection:
                await connection.exec_driver_sql("SELECT 1")

        with pytest.raises(CONNECTION_ERRORS, match="not the primary"):
            await repeated(ask)


async def test_job_ends_when_the_server_of_its_lock_is_demoted(server: Postgresql) -> None:
    """A collector at the new primary takes the lock, too."""
    url = server.database()

    async with connected(url) as database, acquire_lock(database, "job") as lock:
        assert lock.is_ours
        demote(server)
        async with asyncio.timeout(SLOW):
            assert "not the primary" in await lock.wait_until_lost()


def test_start_at_a_standby_names_the_role(server: Postgresql) -> None:
    url = server.database()
    demote(server)
    with pytest.raises(UnusableDatabaseError, match="standby or read-only, not the primary"):
        asyncio.run(Database.connect(url))


def test_collector_finds_the_new_primary_and_loses_no_batch(server: Postgresql, tmp_path: Path) -> None:
    """The address leads to a server that is read-only, and later to the primary again. Nothing is set aside."""
    url = sa.make_url(server.database())
    with MovableAddress(server.port) as address:
        at = url.set(port=address.port).render_as_string()
        with closing(Collector(tmp_path / "collector", at)) as collector:
            collector.start()
            chain = Chain()
            assert collector.post(chain.next()).status == 200
            demote(server)
            until(lambda: not collector.ready(), "the collector says that it is not ready", seconds=SLOW)
            waiting = chain.next()
            assert collector.post(waiting).status == 503
            assert collector.send("POST", "/v1/tokens", {"name": "during", "role": "read"}).status == 503
            promote(server)
            until(collector.ready, "the collector is ready again", seconds=SLOW)
            assert collector.post(waiting).status == 200
            assert collector.counted(chain) == chain.total


def test_lagging_standby_for_a_second_and_then_for_ever_loses_no_batch(server: Postgresql, tmp_path: Path) -> None:
    """The address leads to the standby three times for a moment, while the primary answers, and then the standby is
    promoted. It applies changes an hour late, but has them on its disk before they are acknowledged.
    """
    url = sa.make_url(server.database())
    with (
        closing(Postgresql(in_memory=True, primary=server, lag_seconds=3600)) as standby,
        MovableAddress(server.port) as address,
    ):
        server.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.ask("SELECT pg_reload_conf()")
        at = url.set(port=address.port).render_as_string()
        with closing(Collector(tmp_path / "collector", at).start()) as collector:
            shipper = BatchShipper(collector)
            shipper.start()
            names = map(str, count())
            try:
                shipper.wait_for_next()
                for _ in range(3):
                    lead(address, standby.port, server)
                    until(lambda: address.connections[-1] == standby.port, "a connection to the standby")
                    lead(address, server.port, server)
                    until(lambda: add_token(collector, next(names)) == 201, "a change succeeds", seconds=SLOW)
                    shipper.wait_for_next()
                lead(address, standby.port, server)
                until(lambda: not collector.ready(), "the collector says that it is not ready", seconds=SLOW)
                assert add_token(collector, "standby") == 503
                standby.ask("SELECT pg_promote()")
                until(lambda: add_token(collector, next(names)) == 201, "a change succeeds", seconds=SLOW)
                shipper.wait_for_next()
                until(collector.ready, "the collector is ready again", seconds=SLOW)
            finally:
                shipper.end()
            assert collector.counted(shipper.chain) == shipper.chain.total
            assert shipper.statuses == {200, 503}


def lead(address: MovableAddress, port: int, server: Postgresql) -> None:
    """Let the address lead to this port, and end the connections to the server."""
    address.target = port
    server.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{OWNER}'")


def add_token(collector: Collector, name: str) -> int:
    """Try a change. Return its status."""
    return collector.send("POST", "/v1/tokens", {"name": f"token-{name}", "role": "read"}).status


def test_connections_are_divided() -> None:
    for number in range(10, 200):
        divided = Connections.divide(number)
        assert min(divided) >= 1
        assert 1 + 2 * divided.readers + divided.locks == number
    assert Connections.divide(26) == (4, 17)


async def test_collector_has_no_more_connections_than_the_url_says(postgresql: Postgresql) -> None:
    url = postgresql.database()
    name = url.rpartition("/")[2]

    async with connected(f"{url}?connections=10") as database:

        async def hold(connection: object) -> None:
            async with connection as one:  # type: ignore[attr-defined]
                await one.exec_driver_sql("SELECT pg_sleep(0.5)")

        locks = [database.locks.connect() for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            for one in (*(database.reading() for _ in range(10)), database.writing(), *locks):
                group.create_task(hold(one))
            await asyncio.sleep(0.2)
            count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
            assert int(await asyncio.to_thread(postgresql.ask, count)) <= 10


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pooler_is_found_out(postgresql: Postgresql, mode: str) -> None:
    if PROGRAM is None:
        pytest.skip("PgBouncer is not on this machine")
    url = postgresql.database()

    async def is_pooled(at: str) -> bool | None:
        async with connected(at) as database:
            return database._server.is_pooled

    with PgBouncer(postgresql.port, mode=mode) as pooler:
        assert asyncio.run(is_pooled(pooler.url(url))) is True
    assert asyncio.run(is_pooled(url)) is False
    assert asyncio.run(is_pooled(f"{url}?pooler=transaction")) is True


async def test_settings_hold_for_transactions_through_a_pooler(postgresql: Postgresql, pooler: PgBouncer) -> None:
    """No session of the pooler keeps any, which another program would meet."""
    url = postgresql.database()

    async with connected(pooler.url(url)) as database:
        for use in (database.reading, database.writing):
            async with use() as connection:
                assert (await connection.exec_driver_sql("SHOW jit")).scalar_one() == "off"
        async with database._server.create_engine(1, settings={}).connect() as connection:
            assert (await connection.exec_driver_sql("SHOW jit")).scalar_one() == "on"


def test_collector_works_through_a_pooler_by_transaction(
    postgresql: Postgresql, pooler: PgBouncer, tmp_path: Path
) -> None:
    """With callers side by side, and while the pooler starts anew under them."""
    url = pooler.url(postgresql.database())
    with closing(Collector(tmp_path / "collector", url)) as collector:
        collector.start()
        chains = [Chain() for _ in range(3)]  # Each has a thread, and one is left to start the pooler.

        async def ship(chain: Chain) -> None:
            for _ in range(10):
                batch = chain.next()

                def is_taken(batch: object = batch) -> bool:
                    answer = collector.post(batch)  # type: ignore[arg-type]
                    assert answer.status in (200, 503), answer
                    return answer.status == 200

                await asyncio.to_thread(until, is_taken, "the batch is taken")

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for chain in chains:
                    group.create_task(ship(chain))
                await asyncio.to_thread(pooler.kill)
                await asyncio.to_thread(pooler.start)

        asyncio.run(run())
        assert collector.counted(*chains) == sum(chain.total for chain in chains)
        assert "prepared statement" not in collector.output


async def test_tables_are_made_through_a_pooler(postgresql: Postgresql, pooler: PgBouncer) -> None:
    url = pooler.url(postgresql.empty_database())

    async with connected(url) as database, database.reading() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(edges))).scalar_one() == 0


async def test_purge_rewrites_keys_through_a_pooler(postgresql: Postgresql, pooler: PgBouncer) -> None:
    url = postgresql.database()

    async with connected(pooler.url(url)) as database:
        assert await database.purge_deleted(has_erased=True)
        async with database.writing() as connection:
            await connection.exec_driver_sql("LOCK TABLE data_keys IN ROW EXCLUSIVE MODE")
            assert not await database.purge_deleted(has_erased=True)


async def test_job_runs_alone_through_a_pooler(postgresql: Postgresql, pooler: PgBouncer) -> None:
    url = postgresql.database()

    async with connected(pooler.url(url)) as one, connected(pooler.url(url)) as other:
        async with acquire_lock(one, "job") as lock, acquire_lock(other, "job") as theirs:
            assert (lock.is_ours, theirs.is_ours) == (True, False)
        async with acquire_lock(other, "job") as theirs:
            assert theirs.is_ours
