"""An erasure that is killed at any step (kill -9) or runs beside others is done completely and once, or not at all."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.commands import privacy as commands
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.privacy import erasure, erasure_list
from edgeproxy.collector.privacy.erasure_list import ErasureList, replay_erasures
from edgeproxy.config.collector.load import load_collector
from loadtest.testbed.collector import Collector
from tests.support.killed import die, run_and_die
from tests.support.used_database import use_database

pytestmark = pytest.mark.both_databases

NAMES = ("acme", "bolt")
EMAIL = "ada@acme.example"


def at_first_row() -> None:
    erasure.end_allocations = die  # type: ignore[assignment]


def before_the_row_of_the_customer() -> None:
    erasure._erase_customer = die  # type: ignore[assignment]


def before_the_commit() -> None:
    erasure.audit = Dying(erasure.audit)  # type: ignore[assignment]


def before_the_list() -> None:
    commands.record_erasures = die  # type: ignore[assignment]


def within_the_line() -> None:
    write = os.write

    def write_half(file: int, content: bytes) -> int:
        write(file, content[: len(content) // 2])
        die()
        return 0

    erasure_list.os = Replaced(write=write_half)  # type: ignore[attr-defined]


def after_the_line() -> None:
    erasure_list.os = Replaced(fsync=die)  # type: ignore[attr-defined]


class Dying:
    """The audit module, but the process dies after the first entry."""

    def __init__(self, module: Any) -> None:
        self._module = module

    async def append_entry(self, *arguments: Any) -> None:
        await self._module.append_entry(*arguments)
        die()


class Replaced:
    """The module `os` with some functions replaced."""

    def __init__(self, **functions: Callable[..., object]) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


async def fill(database: Database) -> None:
    """Insert two customers with one contact each."""
    async with database.writing() as connection:
        for name in NAMES:
            row = {"id": generate_id(), "name": name, "tier": "basic", "settings": '{"tier":"basic"}', "metadata": "{}"}
            row |= {"created_at": 1, "version": 1, "external_id": f"crm-{name}"}
            await connection.execute(sa.insert(customers), [row])
            contact = {"customer": row["id"], "email": f"ada@{name}.example", "role": "owner"}
            await connection.execute(sa.insert(contacts), [contact])


async def list_contacts(database: Database) -> set[str]:
    async with database.reading() as connection:
        return set((await connection.execute(sa.select(contacts.c.email))).scalars())


@pytest.mark.parametrize(
    ("step", "is_done"),
    [
        (at_first_row, False),
        (before_the_row_of_the_customer, False),
        (before_the_commit, False),
        (before_the_list, True),
        (within_the_line, True),
        (after_the_line, True),
    ],
)
def test_killed_erasure_is_atomic_and_the_next_one_finishes_it(
    database: str, tmp_path: Path, step: Callable[[], None], is_done: bool
) -> None:
    listed = ErasureList(tmp_path / "apart.jsonl")
    with closing(Collector(tmp_path / "collector", database, privacy={"erasures": str(listed.path)})) as collector:
        collector.write()
        settings = load_collector(collector.file, {})
    use_database(database, fill)
    run_and_die(step, lambda: commands.erase(settings, "acme"))
    assert (EMAIL in use_database(database, list_contacts)) == (not is_done)
    code, text = commands.erase(settings, "acme")
    assert (code, text.startswith("acme was erased before" if is_done else "acme is erased")) == (0, True)
    assert use_database(database, list_contacts) == {"ada@bolt.example"}
    assert len(listed.read()) == len(listed.path.read_text().splitlines()) == 1


def test_concurrent_erasures_all_succeed_and_each_is_recorded_once(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ErasureList(tmp_path / "apart.jsonl")
    with closing(Collector(tmp_path / "collector", database, privacy={"erasures": str(listed.path)})) as collector:
        collector.write()
        settings = load_collector(collector.file, {})
    use_database(database, fill)
    all_three, read = Barrier(3, timeout=60.0), ErasureList.read

    def read_together(own: ErasureList) -> set[str]:
        """Read the list before any thread appends to it."""
        ids = read(own)
        all_three.wait()
        return ids

    with monkeypatch.context() as patched, ThreadPoolExecutor(3) as threads:
        patched.setattr(ErasureList, "read", read_together)
        answers = [threads.submit(commands.erase, settings, name) for name in ("acme", "acme", "bolt")]
        said = [answer.result() for answer in answers]
    assert {code for code, _ in said} == {0}, said
    starts = sorted(text.partition(":")[0].partition("\n")[0] for _, text in said)
    assert starts == ["acme is erased", "acme was erased before", "bolt is erased"]
    assert use_database(database, list_contacts) == set()
    assert len(listed.read()) == len(listed.path.read_text().splitlines()) == 2

    async def list_entries(opened: Database) -> list[str]:
        async with opened.reading(whole=True) as connection:
            entries = await audit.list_entries(connection, 0, 100)
            assert await audit.verify_chain(connection) == len(entries)
            return [entry["target"] for entry in entries if entry["action"] == "customer.erase"]

    assert sorted(use_database(database, list_entries)) == ["acme", "bolt"]


def test_killed_replay_of_erasures_continues_on_the_next_start(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ErasureList(tmp_path / "apart.jsonl")
    use_database(database, fill)

    async def list_all(opened: Database) -> None:
        async with opened.reading() as connection:
            listed.append([(one, 1) for one in (await connection.execute(sa.select(customers.c.id))).scalars()])

    use_database(database, list_all)
    monkeypatch.setattr(erasure_list, "ERASE_MAX", 1)

    def die_with_the_second() -> None:
        erase, calls = erasure.erase_customers, []

        async def erase_or_die(*arguments: Any) -> object:
            calls.append(1)
            return die() if len(calls) == 2 else await erase(*arguments)

        erasure.erase_customers = erase_or_die  # type: ignore[assignment]

    run_and_die(die_with_the_second, lambda: use_database(database, lambda opened: replay_erasures(opened, listed)))
    assert len(use_database(database, list_contacts)) == 1
    assert use_database(database, lambda opened: replay_erasures(opened, listed)) == 1
    assert use_database(database, list_contacts) == set()
