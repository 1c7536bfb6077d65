"""`edgeproxy verify` accepts an intact ledger and names the first break of a broken one."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.ledger.chain_audit import BrokenChainError
from edgeproxy.collector.ledger.verification import verify_ledger
from edgeproxy.wire.batch import Gap, compute_digest
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import Collector, checked, verified
from loadtest.testbed.postgresql import Postgresql
from tests.support.books import Books, of_days, set_clock


def fill(collector: Collector) -> None:
    """Send two batches, a gap, a batch, an unreadable body and a batch of one edge, and a batch of another edge."""
    chain = Chain("edge-1", "eu-test")
    for _ in range(2):
        assert collector.post(chain.next()).status == 200
    assert collector.post(chain.next(gap=Gap(3, 4, "lost"))).status == 200
    assert collector.post(chain.next()).status == 200
    fields = {"Edge-Id": "edge-1", "Edge-Seq": "6", "Edge-Hash": compute_digest(b"torn")}
    assert collector.post(b"torn", fields=fields).status == 422
    assert collector.post(chain.next()._replace(seq=7, prev=compute_digest(b"torn"))).status == 200
    assert collector.post(Chain("edge-2", "eu-test").next()).status == 200


def test_verify_does_not_create_a_missing_database(tmp_path: Path) -> None:
    with closing(Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db")) as collector:
        collector.write()
        assert checked(collector) == (
            2,
            f"sqlite:///{tmp_path}/ledger.db is not there: `edgeproxy database migrate` creates it",
        )
        assert not (tmp_path / "ledger.db").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Path]]:
    """A collector that has ended, and its database file."""
    folder = tmp_path_factory.mktemp("whole")
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")) as collector:
        fill(collector.start())
        collector.end()
        yield collector, folder / "ledger.db"


AGREES = "2 edges, 5 batches, 1 gap, 1 quarantined; total 35; 0 audit records"


def test_verify_accepts_an_intact_ledger(whole: tuple[Collector, Path]) -> None:
    assert verified(whole[0]) == (0, f"OK: {AGREES}\n")


def test_verify_accepts_the_ledger_of_a_running_collector(tmp_path: Path, postgresql: Postgresql) -> None:
    with closing(Collector(tmp_path / "collector", postgresql.database())) as collector:
        fill(collector.start())
        assert checked(collector) == (0, AGREES)


def test_verify_exits_1_for_a_broken_ledger(whole: tuple[Collector, Path]) -> None:
    with changed(whole[1], "DELETE FROM edges WHERE edge = 'edge-2'"):
        assert verified(whole[0]) == (1, "edge edge-2 has usage, and never shipped\n")


@contextmanager
def changed(file: Path, change: str) -> Iterator[None]:
    """Apply a change to a database file inside the context, and restore the file afterwards."""
    kept = file.read_bytes()
    try:
        with closing(sqlite3.connect(file)) as other, other:
            assert other.execute(change).rowcount >= 1
        yield
    finally:
        for left in file.parent.glob("ledger.db*"):
            left.unlink()
        file.write_bytes(kept)


AT = "acme requests v1 of eu-test in the minute 1789992000"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE ledger SET value = value + 1 WHERE series = 1",
         f"edge edge-1: {AT} is 13 in the ledger, and 12 in its batches"),
        ("DELETE FROM ledger WHERE series = 1", f"edge edge-1: {AT} is not in the ledger, and 12 in its batches"),
        ("INSERT INTO ledger VALUES (1, 1789995600, 5)", "is 5 in the ledger, and 0 in its batches"),
        ("DELETE FROM batches WHERE seq = 2", "edge edge-1: batch 2 is missing, the next is 3"),
        ("DELETE FROM batches WHERE seq = 7", "edge edge-1: its watermark is 7, and its last batch 6"),
        ("UPDATE edges SET hash = 'x' WHERE edge = 'edge-2'",
         "edge edge-2: its watermark has another hash than batch 1"),
        ("UPDATE batches SET body = x'00' WHERE seq = 2", "edge edge-1: batch 2 cannot be read: "),
        ("UPDATE batches SET body = (SELECT body FROM batches WHERE seq = 5) WHERE seq = 2",
         "edge edge-1: batch 2 is not the body that was hashed"),
        ("UPDATE batches SET (body, hash) = (SELECT body, hash FROM batches WHERE seq = 5) WHERE seq = 2",
         "edge edge-1: batch 2 is another's: edge-1, 5"),
        ("UPDATE batches SET hash = 'x' WHERE seq = 6",
         f"edge edge-1: batch 7 does not follow the one before: its prev is {compute_digest(b'torn')}, not x"),
        ("UPDATE batches SET state = 'counted' WHERE seq = 3", "edge edge-1: batch 3 is not what is said of it"),
        ("DELETE FROM edges WHERE edge = 'edge-2'", "edge edge-2 has usage, and never shipped"),
    ],
)  # fmt: skip
def test_verify_names_the_first_break(whole: tuple[Collector, Path], change: str, said: str) -> None:
    collector, file = whole
    with changed(file, change):
        code, output = checked(collector)
    assert code == 1
    assert said in output


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database file of an edge with six days of usage, after retention.

    The oldest days have only daily rows and sums of deleted batches. Later days also have hours, then minutes and
    batches. The last day is not rolled up.
    """
    file = tmp_path_factory.mktemp("aged") / "ledger.db"

    async def run(monkeypatch: pytest.MonkeyPatch) -> None:
        clock = set_clock(monkeypatch)
        books = await Books.open(f"sqlite:///{file}", clock, of_days(3, 4, 2))
        chain = Chain("aged", "eu")
        for day in range(6):
            chain.since = clock.now = NOON + day * DAY
            await books.ship(chain.next(("acme", "requests", "v1", 1 + day)))
            await books.ship(chain.next(("acme", "requests", "v1", 10)))
            if day < 5:
                clock.now += 2 * HOUR
                await books.roll_up()
        clock.now += HOUR
        await books.retain()
        await books.check()
        await books.close()

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(run(monkeypatch))
    return file


def found(file: Path) -> str:
    """Return the result of verifying a database file."""

    async def look() -> str:
        database = await Database.connect(f"sqlite:///{file}", as_it_is=True)
        try:
            return str(await verify_ledger(database))
        except BrokenChainError as no:
            return str(no)
        finally:
            await database.close()

    return asyncio.run(look())


def test_verify_accepts_a_ledger_after_retention(aged: Path) -> None:
    assert found(aged) == "1 edge, 12 batches (8 of them dropped), 0 gaps, 0 quarantined; total 81"


def of(unit: str, day: int, at: int = 0) -> str:
    return f"edge aged: acme requests v1 of eu in the {unit} {NOON // DAY * DAY + day * DAY + at}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE days SET value = value - 1 WHERE day = (SELECT min(day) FROM days)",
         f"{of('day', 0)} is 10 in the ledger, and 11 in its batches"),
        ("UPDATE dropped SET value = value + 1 WHERE day = (SELECT min(day) FROM days)",
         f"{of('day', 0)} is 11 in the ledger, and 12 in its batches"),
        ("UPDATE hours SET value = value + 1 WHERE hour = (SELECT min(hour) FROM hours)",
         f"{of('day', 1)} is 12 in the ledger, and 13 in its hours"),
        ("UPDATE hours SET value = value + 1 WHERE hour = (SELECT max(hour) FROM hours)",
         f"{of('hour', 4, 43200)} is 16 in the ledger, and 15 in its minutes"),
        ("DELETE FROM hours WHERE hour = (SELECT max(hour) FROM hours)",
         f"{of('hour', 4, 43200)} is 0 in the ledger, and 15 in its minutes"),
        ("UPDATE ledger SET value = value - 1 WHERE minute = (SELECT min(minute) FROM ledger)",
         f"{of('hour', 2, 43200)} is 13 in the ledger, and 12 in its minutes"),
        ("UPDATE ledger SET value = value - 1 WHERE minute = (SELECT max(minute) FROM ledger)",
         f"{of('minute', 5, 43200)} is 15 in the ledger, and 16 in its batches"),
        ("DELETE FROM days WHERE day = (SELECT min(day) FROM days)",
         f"{of('day', 0)} is 0 in the ledger, and 11 in its batches"),
        ("UPDATE rollup SET hour = hour + 86400", f"{of('hour', 5, 43200)} is 0 in the ledger, and 16 in its minutes"),
        ("UPDATE rollup SET hour = hour - 86400 * 2", " in its minutes"),
        ("UPDATE checkpoints SET hash = 'x'", "edge aged: batch 9 does not follow the one before"),
        ("UPDATE checkpoints SET seq = seq - 1", "edge aged: batch 8 is missing, the next is 9"),
        ("DELETE FROM checkpoints", "edge aged: batch 1 is missing, the next is 9"),
        ("DELETE FROM batches", "edge aged: its watermark is 12, and its last batch 8"),
        ("UPDATE batches SET since = since + 1 WHERE seq = 9", "edge aged: batch 9 is not what is said of it"),
    ],
)  # fmt: skip
def test_verify_names_a_break_after_retention(aged: Path, change: str, said: str) -> None:
    with changed(aged, change):
        assert said in found(aged)
