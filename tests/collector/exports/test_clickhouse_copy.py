"""An export to ClickHouse loads each file once, wherever it is interrupted, and reports every difference."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_rows import insert_events
from loadtest.testbed.batch_chains import NOON, Chain
from tests.support.books import Books, Clock, clock  # noqa: F401

pytest.importorskip("pyarrow", reason="there is no pyarrow on this machine")
from edgeproxy.collector.exports import clickhouse, exporter
from edgeproxy.collector.exports.clickhouse import CopyResult, StoredFile, open_clickhouse
from edgeproxy.collector.exports.manifest import DamagedExportError, File
from edgeproxy.collector.exports.storage import InvalidStorageError, Storage, StorageUnavailableError
from tests.support.clickhouse import PASSWORD, USER, ClickHouseServer, Embedded, Model, read_tables

ENVIRON = {"CLICKHOUSE_USER": USER, "CLICKHOUSE_PASSWORD": PASSWORD}
BEGIN = NOON // HOUR * HOUR


@pytest.fixture(scope="module", params=["model", "clickhouse"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "clickhouse":
        pytest.importorskip("chdb", reason="there is no chdb here")
    return str(request.param)


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[ClickHouseServer]:
    with ExitStack() as ends:
        engine: Model | Embedded = Model()
        if kind == "clickhouse":
            engine = Embedded(tmp_path)
            ends.callback(engine.close)
        yield ends.enter_context(ClickHouseServer(engine))


async def fill(books: Books, clock: Clock, place: Storage, chain: Chain) -> None:  # noqa: F811
    """Export three hours, one of them with a reading, and then late usage of the first hour."""
    for step in (0, 1, 3):
        chain.since = BEGIN + step * HOUR
        row = ("acme", "tokens", "v1", 3 + step, '{"model":"m1"}')
        await books.ship(chain.next(row, ("bolt", "requests", "v1", 1)))
    level = UsageEvent("s", "1", "acme", "seats", 7, BEGIN + 1, dimensions='{"team":"a"}', is_summed=False)
    async with books.database.writing() as connection:
        await insert_events(connection, [level])
    clock.now = chain.since + 2 * HOUR
    await books.roll_up()
    await exporter.export_hours(books.database, place)


async def copy(place: Storage, url: str) -> CopyResult:
    async with open_clickhouse(url, ENVIRON) as opened:
        return await clickhouse.insert_export(place, opened)


async def verify(place: Storage, url: str) -> CopyResult:
    async with open_clickhouse(url, ENVIRON) as opened:
        return await clickhouse.verify_copy(place, opened)


async def fetch(url: str) -> dict[str, StoredFile]:
    async with open_clickhouse(url, ENVIRON) as opened:
        return {**await opened.fetch_stored("usage"), **await opened.fetch_stored("readings")}


async def test_clickhouse_has_each_file_once_after_any_broken_connection(
    server: ClickHouseServer,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The connection is lost before or after each request is done; the next run sees the last INSERT, or not."""
    place = Storage(f"file://{tmp_path}/parquet", {})

    books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
    chain = Chain("edge-1", "eu")
    await fill(books, clock, place, chain)
    for number, is_done, is_behind in product(range(3), (False, True), (False, True)):
        server.requests.clear()
        server.loses, server.loses_done, server.is_behind = number, is_done, is_behind
        try:
            await copy(place, server.url)
            assert number >= len(server.requests), "no connection was lost"
        except StorageUnavailableError:
            pass
        server.loses = None
        chain.since = BEGIN
        await books.ship(chain.next(("acme", "tokens", "v1", 5)))
        assert (await exporter.export_hours(books.database, place)).late == 1
        await copy(place, server.url)
        server.is_behind = False
        copied = await verify(place, server.url)
        stored = await fetch(server.url)
        assert (copied.files, copied.rows) == (len(stored), sum(file.rows for file in stored.values()))
    of_ledger = Counter({"usage": sum(row[1] for row in await list_values(books)), "readings": 7})
    of_clickhouse: Counter[str] = Counter()
    for path, file in stored.items():
        of_clickhouse[path.partition("/")[0]] += file.value
    assert of_clickhouse == of_ledger
    await books.close()


async def list_values(books: Books) -> list[tuple[int, int]]:
    import sqlalchemy as sa

    from edgeproxy.collector.database.schema import hours

    return [(row[0], row[1]) for row in await books.all(sa.select(hours.c.hour, hours.c.value))]


FILE = File("usage/day=2026-11-01/05.1.parquet", 3, 100, "0" * 64)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({FILE.path: StoredFile(2, 5)}, r"05\.1\.parquet: ClickHouse has 2 of its 3 rows: ALTER TABLE usage DELETE"),
        ({FILE.path: StoredFile(6, 5)}, r"05\.1\.parquet: ClickHouse has 6 of its 3 rows"),
        ({"usage/x": StoredFile(3, 5)}, r"usage/x: is in ClickHouse's table usage, and in no manifest"),
    ],
)
def test_clickhouse_check_names_unexpected_files(stored: dict[str, StoredFile], says: str) -> None:
    with pytest.raises(DamagedExportError, match=says):
        clickhouse.list_missing("usage", [FILE], stored)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://clickhouse.example.com:8123/analytics", "is not https://"),
        ("https://user:secret@clickhouse.example.com/analytics", "set CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"),
        ("https://clickhouse.example.com/", "write https://HOST:8443/DATABASE"),
        ("https://clickhouse.example.com/a?query=DROP", "write https://HOST:8443/DATABASE"),
        ("https://clickhouse.example.com/a;b", "write https://HOST:8443/DATABASE"),
        ("https://clickhouse.example.com:port/a", "write https://HOST:8443/DATABASE"),
        ("file:///analytics", "write https://HOST:8443/DATABASE"),
    ],
)
async def test_an_address_that_cannot_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidStorageError, match=says) as refused:
        async with open_clickhouse(url, {}):
            pass
    assert "secret" not in str(refused.value)


async def test_invalid_password_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidStorageError, match="CLICKHOUSE_PASSWORD has white space") as refused:
        async with open_clickhouse("https://clickhouse.example.com/a", {"CLICKHOUSE_PASSWORD": "hush hush"}):
            pass
    assert "hush" not in str(refused.value)


def test_the_commands_copy_and_verify_and_say_why_they_cannot(
    clock: Clock,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"file://{tmp_path}/parquet"

    async def run() -> None:
        books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
        await fill(books, clock, Storage(place, {}), Chain("edge-1", "eu"))
        await books.close()

    asyncio.run(run())
    file = tmp_path / "collector.yaml"
    file.write_text(f"database: sqlite:///{tmp_path}/ledger.db\ntokens: [{{sha256: {'0' * 64}, role: edge}}]\n")

    def call(command: str, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, [command, "-c", str(file), *arguments])
        return result.exit_code, result.output

    for command in ("export", "verify"):
        code, text = call(command, "--clickhouse", "https://clickhouse.example.com/a")
        assert (code, "goes with --parquet" in text) == (2, True), text
    model = Model()
    with ClickHouseServer(model) as server:
        both = ["--parquet", place, "--clickhouse", server.url]
        code, text = call("export", *both)
        assert (code, "status 403" in text) == (2, True), text
        for name, value in ENVIRON.items():
            monkeypatch.setenv(name, value)
        code, text = call("verify", *both)
        assert (code, "ClickHouse does not have it: export again" in text) == (1, True), text
        code, text = call("export", *both)
        assert (code, "ClickHouse got 4 files with 7 rows" in text) == (0, True), text
        assert call("export", *both)[1].endswith("ClickHouse got 0 files with 0 rows\n")
        code, text = call("verify", *both)
        assert (code, "ClickHouse got 4 files with 7 rows" in text) == (0, True), text
        # A user changed a value in ClickHouse.
        changed = model.blocks["usage"][0]
        at = changed.column_names.index("value")
        model.blocks["usage"][0] = changed.set_column(
            at, "value", [[each + 1 for each in changed["value"].to_pylist()]]
        )
        code, text = call("verify", *both)
        assert (code, "in all, and" in text) == (1, True), text
    code, text = call("export", *both)
    assert code == 2, text
    assert PASSWORD not in text


def test_the_tables_of_the_page_have_a_column_for_each_of_the_files() -> None:
    from tests.support.clickhouse import SCHEMAS

    tables = read_tables()
    assert len(tables) == len(SCHEMAS)
    for statement, (name, schema) in zip(tables, SCHEMAS.items(), strict=True):
        assert statement.startswith(f"CREATE TABLE {name} (")
        assert re.findall(r"[(,]\s+(\w+) (?=[A-Z])", statement) == schema.names
