"""`edgeproxy export --parquet` against a real server: killed at will, read by others, checked by `verify`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgeproxy.collector.commands import parquet
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.config.collector.load import load_collector
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.process import Process, kill
from loadtest.testbed.tables_ready import put_tables
from loadtest.testbed.waiting import until
from tests.support.books import Books, Clock, clock  # noqa: F401
from tests.support.s3 import KEY, PROGRAM, S3, SECRET

pa_fs = pytest.importorskip("pyarrow.fs", reason="there is no pyarrow on this machine")
import pyarrow.dataset as ds  # noqa: E402

from edgeproxy.collector.exports.storage import Storage  # noqa: E402

HOURS = NOON // HOUR * HOUR
COMMAND = (sys.executable, "-m", "edgeproxy")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    if PROGRAM is None:
        pytest.skip("there is no SeaweedFS on this machine")
    with closing(S3(tmp_path_factory.mktemp("s3") / "server")) as server:
        yield server


def has_begun(process: Process, place: Storage, least: int) -> bool:
    """Return True if this number of files exists or the process has ended."""
    return len(place.sizes()) >= least or not process.running


def content(place: Storage) -> dict[str, bytes]:
    """All files."""
    return {path: place.get(path)[0] for path in place.sizes()}


async def forty_hours(url: str, clock: Clock) -> int:  # noqa: F811
    """Record forty hours of usage of three customers and two models. Return its sum."""
    books = await Books.open(url, clock)
    chain = Chain("edge-1", "eu")
    for hour in range(40):
        chain.since = HOURS + hour * HOUR
        models = ('{"model":"m1"}', '{"model":"m2"}')
        rows = [(name, "tokens", "v1", 1 + hour, model) for name in ("acme", "bolt", "cone") for model in models]
        await books.ship(chain.next(*rows))
    clock.now = chain.since + 2 * HOUR
    await books.roll_up()
    await books.close()
    return chain.total


@pytest.mark.timeout(300)
def test_an_exporter_that_is_killed_again_and_again_leaves_each_hour_once(
    s3: S3,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ = s3.environ
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    collector = Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db")
    collector.write()
    collector.close()
    total = asyncio.run(forty_hours(collector.settings["database"], clock))
    settings = load_collector(collector.file, os.environ)
    whole, torn = "s3://usage/whole/of-it", "s3://usage/torn"
    code, text = parquet.export_hours(settings, [whole])
    assert (code, text) == (
        0,
        "40 hours exported, 0 hours added to: 40 files with 240 rows; all before 2026-09-23T04:00:00Z is there",
    )
    there = Storage(torn, environ)
    for least in (1, 30):
        process = Process([*COMMAND, "export", "-c", collector.file, "--parquet", torn], tmp_path / "log")
        until(partial(has_begun, process, there, least), "some of it is there")
        kill(process.pid)
        process.wait(10.0)
    assert parquet.export_hours(settings, [torn])[0] == 0
    assert content(there) == content(Storage(whole, environ))

    # Others read it: the client of S3 in pyarrow, which is another one.
    other = pa_fs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, endpoint_override=urlsplit(s3.endpoint).netloc, scheme="http"
    )
    table = ds.dataset("usage/torn/usage", filesystem=other, format="parquet", partitioning="hive").to_table()
    assert sum(table["value"].to_pylist()) == total
    assert {dict(one)["model"] for one in table["dimensions"].to_pylist()} == {"m1", "m2"}

    process = Process([*COMMAND, "verify", "-c", collector.file, "--parquet", torn], tmp_path / "verified")
    assert (process.wait(60.0), process.output) == (
        0,
        "OK: 1 edge, 40 batches, 0 gaps, 0 quarantined; total 4920; 0 audit records; "
        "40 files with 240 rows of hours before 2026-09-23T04:00:00Z\n",
    )
    there.create("usage/day=2026-09-21/12.2.parquet", b"more")
    assert parquet.verify_hours(settings, [torn]) == (
        1,
        "usage/day=2026-09-21/12.2.parquet: no manifest names it: it is not of the export, or one was broken off: "
        "export again",
    )


def test_refused_and_concurrent_exports_state_the_reason(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    collector = Collector(tmp_path / "collector", put_tables(f"sqlite:///{tmp_path}/ledger.db"))
    collector.write()
    settings = load_collector(collector.file, os.environ)
    collector.close()
    url = "s3://usage/refused"

    async def beside() -> tuple[int, str]:
        database = await Database.connect(settings.database)
        async with try_exclusive(database, "parquet") as is_alone:
            assert is_alone
            found = await asyncio.to_thread(parquet.export_hours, settings, [url])
        await database.close()
        return found

    assert asyncio.run(beside()) == (1, "an export from this database is under way")
    assert parquet.export_hours(settings, [url]) == (0, "no hour with usage is closed yet")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    code, text = parquet.export_hours(settings, [url])
    assert code == 2
    assert "SignatureDoesNotMatch" in text
    assert "guessed" not in text
    # Another writer came first, so the content differs from the one read before.
    one, other = Storage(url, s3.environ), Storage(url, s3.environ)
    tag = one.replace("manifest/2026-01.json", b"one", None)
    other.replace("manifest/2026-01.json", b"other", tag)
    for stale in (tag, None):
        with pytest.raises(Exception, match="written by somebody else meanwhile"):
            one.replace("manifest/2026-01.json", b"one more", stale)
    assert one.get("manifest/2026-01.json")[0] == b"other"


def test_export_writes_each_hour_once_to_both_buckets_and_verifies_them(
    s3: S3,
    tmp_path: Path,
    clock: Clock,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    collector = Collector(tmp_path / "collector", put_tables(f"sqlite:///{tmp_path}/ledger.db"))
    collector.write()
    settings = load_collector(collector.file, os.environ)
    collector.close()
    asyncio.run(forty_hours(settings.database, clock))
    one, other = "s3://usage/both", f"file://{tmp_path}/other"
    (tmp_path / "other").write_text("no folder")
    code, text = parquet.export_hours(settings, [other, one])
    assert code != 0, "one storage is unreachable"
    assert f"{one}: 40 hours exported" in text
    (tmp_path / "other").unlink()
    code, text = parquet.export_hours(settings, [one, other])
    assert (code, f"{one}: 0 hours exported" in text, f"{other}: 40 hours exported" in text) == (0, True, True)
    code, text = parquet.verify_hours(settings, [one, other])
    assert code == 0
    assert content(Storage(one, s3.environ)).keys() == content(Storage(other, {})).keys()
    (file, *_) = sorted((tmp_path / "other").rglob("*.parquet"))
    file.unlink()
    code, text = parquet.verify_hours(settings, [one, other])
    assert code == 1
    assert f"{one}: " in text
    assert file.name in text.partition(other)[2]
