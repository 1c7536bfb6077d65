"""Usage export as Parquet: each closed hour once, late usage too, even after a kill. Verification names damage."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.schema import DAY, HOUR, events, hours, series
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_rows import insert_events
from loadtest.testbed.batch_chains import NOON, Chain
from tests.support.books import Books, Clock, clock, of_days  # noqa: F401

duckdb = pytest.importorskip("duckdb", reason="there is no duckdb on this machine")
pa = pytest.importorskip("pyarrow", reason="there is no pyarrow on this machine")
pq = pytest.importorskip("pyarrow.parquet", reason="there is no pyarrow on this machine")
from edgeproxy.collector.exports import exporter, files, manifest, verification  # noqa: E402
from edgeproxy.collector.exports.storage import Storage  # noqa: E402

pytestmark = pytest.mark.both_databases

HOURS = NOON // HOUR * HOUR + 7 * DAY
"""Noon of the 28th day of a month with 30 days."""
STEPS = (0, 1, 4, 30, 24 * 3)
"""The hours that have usage in `some_days`."""


class Killed(BaseException):
    """Ends the exporter in a test, as a kill does."""


class Frail(Storage):
    """A directory that kills the exporter at its nth write, before or after the write is done."""

    def __init__(self, folder: Path, left: int | None = None, *, is_done: bool = False) -> None:
        super().__init__(f"file://{folder}", {})
        self.left = left
        self._dies_after = is_done

    def _write(self, write: Callable[[], object]) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if self._dies_after:
                    write()
                raise Killed

    def create(self, path: str, body: bytes) -> bool:
        self._write(lambda: super(Frail, self).create(path, body))
        return super().create(path, body)

    def replace(self, path: str, body: bytes, tag: str | None) -> str | None:
        self._write(lambda: super(Frail, self).replace(path, body, tag))
        return super().replace(path, body, tag)


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summed(folder: Path) -> Counter[tuple[int, files.Key]]:
    """Return the sums of all exported files, as a reader computes them."""
    counts: Counter[tuple[int, files.Key]] = Counter()
    for path in folder.glob("usage/*/*.parquet"):
        day, name = path.parent.name.removeprefix("day="), path.name
        hour = manifest.to_second(manifest.datetime.fromisoformat(f"{day}T{name[:2]}:00:00Z"))
        for key, value in files.parse_file(str(path), hour, path.read_bytes()).items():
            counts[hour, key] += value
    return counts


async def in_ledger(books: Books) -> Counter[tuple[int, files.Key]]:
    """Return the closed hours of the ledger, by a query independent of the exporter's."""
    of, at = series.c, hours.c
    names = (of.customer, of.meter, of.region, of.edge, of.route, of.dimensions)
    rows = await books.all(sa.select(at.hour, at.value, *names).join_from(hours, series, at.series == of.id))
    until = (await books.all(sa.text("SELECT hour FROM rollup")))[0][0]
    return Counter({(hour, tuple(key)): value for hour, value, *key in rows if hour < until})  # type: ignore[misc]


async def some_days(books: Books, clock: Clock) -> Chain:  # noqa: F811
    """Ship usage of three days across the end of a month, with empty hours and an empty last day of the month."""
    chain = Chain("edge-1", "eu")
    for step in STEPS:
        chain.since = HOURS + step * HOUR
        await books.ship(
            chain.next(("acme", "tokens", "v1", 3 + step, '{"model":"m1"}'), ("bolt", "requests", "v1", 1))
        )
    clock.now = chain.since + 2 * HOUR
    await books.roll_up()
    return chain


async def test_export_after_a_kill_equals_an_undisturbed_export(
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
    await some_days(books, clock)
    undisturbed = Frail(tmp_path / "whole", 1000)
    done = await exporter.export_hours(books.database, undisturbed)
    assert (done.files, done.rows, done.late, done.until) == (5, 10, 0, HOURS + (24 * 3 + 1) * HOUR)
    whole = content(tmp_path / "whole")
    assert len([path for path in whole if path.startswith("manifest/")]) == 2
    assert summed(tmp_path / "whole") == await in_ledger(books)
    read = f"read_parquet('{tmp_path}/whole/usage/*/*.parquet', hive_partitioning = true)"
    expected = f"SELECT sum(value), min(dimensions['model']), count(DISTINCT day) FROM {read} WHERE meter = 'tokens'"
    assert duckdb.sql(expected).fetchall() == [(sum(3 + step for step in STEPS), "m1", 3)]
    assert undisturbed.left is not None
    for writing in range(1000 - undisturbed.left):
        for is_done in (False, True):
            folder = tmp_path / f"{writing}-{is_done}"
            with pytest.raises(Killed):
                await exporter.export_hours(books.database, Frail(folder, writing, is_done=is_done))
            await exporter.export_hours(books.database, Frail(folder))
            assert content(folder) == whole
    # A run without new usage writes nothing.
    again = await exporter.export_hours(books.database, Frail(tmp_path / "whole", 0))
    assert (again.hours, again.late, again.files) == (0, 0, 0)
    await books.close()


@pytest.mark.timeout(300)
def test_sum_of_files_equals_the_ledger_after_random_kills(
    database: str,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
    seed: int,
) -> None:
    """Usage arrives in time, late, and from before the first export; exports are killed at random points."""
    print(f"seed {seed}")
    asyncio.run(at_random(database, clock, tmp_path / "there", random.Random(seed)))


async def at_random(url: str, clock: Clock, folder: Path, chance: random.Random) -> None:  # noqa: F811
    books = await Books.open(url, clock)
    chains = [Chain(f"edge-{number}", "eu", since=NOON) for number in range(3)]
    # PostgreSQL gets fewer rounds, because other tests cover its differences too.
    for _ in range(60 if url.startswith("sqlite") else 20):
        chain, what = chance.choice(chains), chance.random()
        if what < 0.5:
            chain.since = int(clock.now) - chance.choice([0, 0, HOUR, 3 * HOUR, DAY, 40 * DAY, 70 * DAY])
            split = chance.choice(["", '{"model":"m1"}', '{"agent":"a","model":"m2"}'])
            row = (chance.choice(["acme", "bolt"]), "tokens", "v1", 1 + chance.randrange(3))
            await books.ship(chain.next((*row, split) if split else row))
        elif what < 0.7:
            clock.now += chance.choice([HOUR, HOUR, 5 * HOUR, DAY])
            await books.roll_up()
        else:
            left = chance.choice([None, *range(6)])
            try:
                await exporter.export_hours(books.database, Frail(folder, left, is_done=chance.random() < 0.5))
            except Killed:
                continue
            assert summed(folder) == await in_ledger(books)
            await verification.verify_export(books.database, Frail(folder))
    await exporter.export_hours(books.database, Frail(folder))
    assert summed(folder) == await in_ledger(books)
    await books.close()


async def test_usage_after_an_aborted_run_is_written_to_separate_files(
    database: str,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    books = await Books.open(database, clock)
    chain = await some_days(books, clock)
    with pytest.raises(Killed):
        await exporter.export_hours(books.database, Frail(tmp_path / "there", 0, is_done=True))
    there = content(tmp_path / "there")
    assert list(there) == [manifest.file_path(files.FOLDER, HOURS, 1)]
    for revision in (2, 3):
        chain.since = HOURS
        await books.ship(chain.next(("acme", "tokens", "v1", revision)))
        await exporter.export_hours(books.database, Frail(tmp_path / "there"))
        await verification.verify_export(books.database, Frail(tmp_path / "there"))
        assert summed(tmp_path / "there") == await in_ledger(books)
        files_there = {path: body for path, body in content(tmp_path / "there").items() if "manifest" not in path}
        assert there.items() <= files_there.items()
        there = files_there
        assert manifest.file_path(files.FOLDER, HOURS, revision) in there
    await books.close()


async def test_verification_names_each_damage(database: str, clock: Clock, tmp_path: Path) -> None:  # noqa: F811
    async def broken_ledger(books: Books, folder: Path) -> str:
        with pytest.raises(manifest.DamagedExportError) as raised:
            await verification.verify_export(books.database, Frail(folder))
        return str(raised.value)

    books = await Books.open(database, clock)
    chain = await some_days(books, clock)
    folder = tmp_path / "there"
    assert str(await verification.verify_export(books.database, Frail(folder))) == "nothing is exported"
    await exporter.export_hours(books.database, Frail(folder))
    chain.since = HOURS
    await books.ship(chain.next(("acme", "tokens", "v1", 5)))
    # Late usage is exported by the next run. Until then the verification does not report it.
    assert (await verification.verify_export(books.database, Frail(folder))).files == 5
    assert (await exporter.export_hours(books.database, Frail(folder))).late == 1
    assert (await verification.verify_export(books.database, Frail(folder))).files == 6
    assert (folder / manifest.file_path(files.FOLDER, HOURS, 2)).exists()
    whole = content(folder)

    async def broken() -> str:
        with pytest.raises(manifest.DamagedExportError) as raised:
            await verification.verify_export(books.database, Frail(folder))
        for path in content(folder).keys() - whole.keys():
            (folder / path).unlink()
        for path, body in whole.items():
            (folder / path).write_bytes(body)
        await verification.verify_export(books.database, Frail(folder))
        return str(raised.value)

    one = manifest.file_path(files.FOLDER, HOURS, 1)
    (folder / one).unlink()
    assert await broken() == f"{one}: is not there"
    (folder / one).write_bytes(whole[one][:-1] + b"x")
    assert await broken() == f"{one}: was changed: it is not what the manifest names"
    (folder / "usage/more.parquet").write_bytes(b"")
    assert (await broken()).startswith("usage/more.parquet: no manifest names it")
    listed = manifest.manifest_path(HOURS)
    for other in (b"{}", whole[listed].replace(b'"rows": 2', b'"rows": "2"', 1), whole[listed][:100]):
        (folder / listed).write_bytes(other)
        assert (await broken()).startswith(f"{listed}: is no manifest: ")
    # A file is removed together with its line in the manifest.
    book = manifest.Manifests({path: body for path, body in whole.items() if path.startswith(manifest.FOLDER)})
    book.hours[HOURS] = manifest.Hour(manifest.to_datetime(HOURS), 1, book.hours[HOURS].files[:1])
    (folder / listed).write_bytes(book.month(HOURS)[1])
    (folder / manifest.file_path(files.FOLDER, HOURS, 2)).unlink()
    assert (
        await broken()
        == f"the hour {manifest.to_datetime(HOURS):%Y-%m-%dT%H}:00:00Z has 1 row in the ledger that no file has"
    )
    # The ledger has less usage than the export. The exporter fails on this too.
    async with books.database.writing() as connection:
        await connection.execute(sa.update(hours).values(value=hours.c.value - 1).where(hours.c.hour == HOURS))
    assert f"{one}: has more of " in await broken_ledger(books, folder)
    await books.close()


async def test_each_reading_is_exported_once_even_if_late(database: str, clock: Clock, tmp_path: Path) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    await some_days(books, clock)
    folder = tmp_path / "there"

    async def export(*at: int) -> tuple[int, int, int]:
        """Report a reading at each of these times, and export."""
        async with books.database.writing() as connection:
            made = [
                UsageEvent("s", f"{one}", "acme", "seats", 7, one, dimensions='{"team":"a"}', is_summed=False)
                for one in at
            ]
            if made:
                await insert_events(connection, made)
        done = await exporter.export_hours(books.database, Frail(folder))
        assert (await verification.verify_export(books.database, Frail(folder))).files == len(
            content(folder)
        ) - manifests()
        return done.hours, done.late, done.files

    def manifests() -> int:
        return len([*(folder / "manifest").iterdir()])

    # Readings before an export, in an hour with and in one without usage; then late ones; then before all exports.
    assert (await export(HOURS + 1, HOURS + HOUR - 1, HOURS + 3 * HOUR))[1:] == (0, 7)
    assert await export() == (0, 0, 0)
    assert await export(HOURS + 2, HOURS - 5 * DAY) == (0, 2, 2)
    read = f"read_parquet('{folder}/readings/*/*.parquet', hive_partitioning = true)"
    expected = (
        f"SELECT count(*), count(DISTINCT id), sum(value), min(dimensions['team']), count(DISTINCT day) FROM {read}"
    )
    assert duckdb.sql(expected).fetchall() == [(5, 5, 35, "a", 2)]
    async with books.database.writing() as connection:
        await connection.execute(sa.update(events).values(value=8).where(events.c.id == f"{HOURS + 2}"))
    with pytest.raises(manifest.DamagedExportError, match="says of the event s"):
        await verification.verify_export(books.database, Frail(folder))
    await books.close()


async def test_export_reports_hours_dropped_before_their_export(
    database: str,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    books = await Books.open(database, clock, of_days(2, 4, None))
    chain = Chain("edge-1", "eu", since=HOURS)
    await books.ship(chain.next())
    clock.now = HOURS + 2 * HOUR
    await books.roll_up()
    await exporter.export_hours(books.database, Frail(tmp_path / "there"))
    clock.now = HOURS + 20 * DAY
    await books.roll_up()
    await exporter.export_hours(books.database, Frail(tmp_path / "whole"))
    await books.retain()
    # Exported usage may be dropped.
    assert (await verification.verify_export(books.database, Frail(tmp_path / "there"))).files == 1
    with pytest.raises(exporter.MissedHoursError, match="are not kept any more"):
        await exporter.export_hours(books.database, Frail(tmp_path / "there"))
    # Readings are kept. They are exported for hours with dropped usage too, with or without files of that usage.
    level = UsageEvent("s", "1", "acme", "seats", 7, HOURS + 1, is_summed=False)
    async with books.database.writing() as connection:
        await insert_events(connection, [level])
    for folder, count in (("whole", 2), ("anew", 1)):
        await exporter.export_hours(books.database, Frail(tmp_path / folder))
        assert (await verification.verify_export(books.database, Frail(tmp_path / folder))).files == count
    await books.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("meter", pa.array([b"\xb9"]).view(pa.string())), ("hour", pa.array([2**62]).cast(pa.timestamp("ms", tz="UTC")))],
    ids=["text", "time"],
)
def test_file_with_a_value_outside_pythons_range_is_named(field: str, value: Any) -> None:
    body = files.format_file(HOURS, {("acme", "tokens", "eu", "edge-1", "v1", ""): 1})
    table = pq.read_table(pa.BufferReader(body))
    number = table.schema.get_field_index(field)
    damaged = files.encode_table(table.set_column(number, table.schema.field(number), value))
    with pytest.raises(manifest.DamagedExportError, match=r"^usage/1\.parquet: cannot be read: "):
        files.parse_file("usage/1.parquet", HOURS, damaged)
