"""The publisher, killed at every step of a change: each change is in the outbox or in the log, and reaches edges."""

import hashlib
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers, directory_outbox
from edgeproxy.collector.directory import publisher, version_log
from edgeproxy.collector.directory.publisher import BACK, Publisher
from edgeproxy.config.collector.settings import Published
from edgeproxy.edge.directory.cache import CachedVersion
from edgeproxy.edge.directory.lineage import accept_news
from edgeproxy.edge.directory.transport import News
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import TrustedKeys

STEPS = [
    (documents, "fetch_lines"),
    (version_log, "stage_parts"),
    (version_log, "append_version"),
    (publisher, "_delete_outbox_rows"),
]
"""The steps of publishing a version, in order. The publisher dies at the start of one of them."""


class Killed(BaseException):
    """As by kill -9: nothing after it is done."""


@pytest.fixture
def settings(tmp_path: Path) -> Published:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    return Published(key=tmp_path / "directory.key")


async def adds(database: Database, name: str) -> None:
    own: dict[str, Any] = {"tier": "own", "settings": json.dumps({"tier": "own"}), "metadata": "{}"}
    async with database.writing() as connection:
        row = {"id": name, "name": name, "created_at": 1, "version": 1, **own}
        await connection.execute(sa.insert(customers), [row])
        await documents.enqueue_changes(connection, "customer", [name])


async def published(
    log: version_log.DirectoryLog, trust: TrustedKeys, held: CachedVersion | None
) -> tuple[set[str], CachedVersion]:
    """Return the customers known to an edge that reads the whole log. The edge must accept the log."""
    follows, lines = await log.list_lines_after(None if held is None else held.token)
    accepted = accept_news(held, News(tuple(lines), follows, None), trust)
    known: set[str] = set()
    for line in await log.list_lines():
        version = line.version
        parts = [await log.find_part(version.token, place) for place in range(version.parts)]
        assert hashlib.sha256(b"".join(part or b"" for part in parts)).hexdigest() == version.sha256
        if version.whole:
            known.clear()
        known |= {orjson.loads(each)["name"] for part in parts for each in (part or b"").split(b"\n") if each}
    last = (await log.list_lines())[-1]
    return known, CachedVersion(last.version.token, last.version.number, last.version.at, 0.0, 0, 0, accepted.hash)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)))
async def test_publisher_killed_at_any_step_loses_and_repeats_no_change(
    database: str, settings: Published, monkeypatch: pytest.MonkeyPatch, step: int, whole: bool
) -> None:
    module, name = STEPS[step]
    if whole and name == "fetch_lines":
        name = "stream_lines"

    def dies(*_: Any, **__: Any) -> Any:
        raise Killed

    there = await Database.connect(database)
    try:
        trust = TrustedKeys([publisher.Signer.load(settings.key).public_key])
        first = Publisher(there, settings)
        await adds(there, "a")
        await first.step()
        known, held = await published(first.log, trust, None)
        assert known == {"a"}
        await adds(there, "b")
        if whole:
            async with there.writing() as connection:
                await connection.execute(sa.insert(directory_outbox), [{"kind": BACK, "name": ""}])
        with monkeypatch.context() as broken:
            broken.setattr(module, name, dies)
            with pytest.raises(Killed):
                await first.step()
        assert (await published(first.log, trust, None))[0] == {"a"}, "no reader sees half of a version"
        again = Publisher(there, settings)
        await again.step()
        known, held = await published(again.log, trust, held)
        assert known == {"a", "b"}
        number = held.number
        await again.step()
        assert (await published(again.log, trust, held))[1].number == number, "the change is published once"
        async with there.reading() as connection:
            assert (await connection.execute(sa.select(directory_outbox))).first() is None
    finally:
        await there.close()


async def test_a_clock_that_was_set_back_dates_no_version_before_another(
    database: str, settings: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge that missed the rewrite of the log accepts the whole new log."""
    monkeypatch.setattr(publisher, "WHOLE_BYTES_MIN", 0)

    there = await Database.connect(database)
    try:
        trust = TrustedKeys([publisher.Signer.load(settings.key).public_key])
        first = Publisher(there, settings)
        await adds(there, "a")
        await first.step()
        held = (await published(first.log, trust, None))[1]
        monkeypatch.setattr(publisher, "time", SimpleNamespace(time=lambda: time.time() - 3600))
        for name in "bcd":
            await adds(there, name)
            await first.step()
        lines = await first.log.list_lines()
        assert lines[0].version.number > held.number
        accepted = accept_news(held, News(tuple(line.raw for line in lines), False, first.time), trust)
        assert accepted.versions[-1].number == held.number + 3
    finally:
        await there.close()
