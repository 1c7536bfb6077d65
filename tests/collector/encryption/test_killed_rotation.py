"""A rotation to another master key that is killed at any step: all is readable, and the next one finishes it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption import keyring as keyrings
from edgeproxy.collector.encryption import migration
from edgeproxy.collector.encryption.keyring import Keyring, open_keyring
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows
from edgeproxy.config.collector.encryption import Encryption
from tests.support.killed import die, run_and_die

pytestmark = pytest.mark.both_databases

Result = TypeVar("Result")
NOTES = {name: f'{{"note":"of {name}"}}' for name in ("acme", "bolt", "cone")}


def run(url: str, settings: Encryption, work: Callable[[Database, Keyring], Awaitable[Result]]) -> Result:
    """Do something with the database at a URL, opened as a collector opens it."""

    async def do() -> Result:
        database = await Database.connect(url)
        try:
            keyring = await open_keyring(database, settings)
            assert keyring is not None
            return await work(database, keyring)
        finally:
            await database.close()

    return asyncio.run(do())


async def fill(database: Database, _: Keyring) -> None:
    """Customers, each with a data key and an encrypted text."""
    async with database.writing() as connection:
        for name, note in NOTES.items():
            row = {"id": generate_id(), "name": name, "tier": "basic", "settings": '{"tier":"basic"}', "metadata": note}
            rows = await seal_rows(connection, "customers", [row | {"created_at": 1, "version": 1}])
            await connection.execute(sa.insert(customers), rows)


async def read(database: Database, _: Keyring) -> dict[str, str]:
    async with database.reading() as connection:
        return {
            str(row["name"]): str(row["metadata"])
            for row in await fetch_rows(connection, "customers", sa.select(customers))
        }


def before_the_new_key() -> None:
    keyrings.Keyring.insert_key = die  # type: ignore[method-assign,assignment]


def before_keys_are_wrapped_by_the_new_master_key() -> None:
    keyrings.Keyring.rewrap_key = die  # type: ignore[method-assign,assignment]


def before_the_first_data_key() -> None:
    migration._rewrap_some = die  # type: ignore[assignment]


def amidst_data_keys() -> None:
    rewrap, calls = migration._rewrap_some, []

    async def rewrap_or_die(*arguments: Any) -> int:
        calls.append(1)
        return die() if len(calls) == 2 else await rewrap(*arguments)  # type: ignore[return-value]

    migration._rewrap_some = rewrap_or_die


def before_the_old_key_goes() -> None:
    migration.sa = Dying()  # type: ignore[attr-defined]


class Dying:
    """SQLAlchemy, with whose deletion a process dies."""

    delete = staticmethod(die)

    def __getattr__(self, name: str) -> object:
        return getattr(sa, name)


@pytest.mark.parametrize(
    "step",
    [
        before_the_new_key,
        before_keys_are_wrapped_by_the_new_master_key,
        before_the_first_data_key,
        amidst_data_keys,
        before_the_old_key_goes,
    ],
)
def test_killed_rotation_leaves_rows_readable_and_the_next_finishes_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]
) -> None:
    monkeypatch.setattr(migration, "KEYS_MAX", 1)
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(os.urandom(32))
        (tmp_path / name).chmod(0o600)
    first, second = (Encryption.model_validate({"file": str(tmp_path / name)}) for name in ("first", "second"))
    both = Encryption.model_validate({"file": str(tmp_path / "second"), "old": [{"file": str(tmp_path / "first")}]})
    run(database, first, fill)
    run_and_die(step, lambda: run(database, both, migration.rotate_keys))
    assert run(database, both, read) == NOTES
    run(database, both, migration.rotate_keys)
    assert run(database, second, read) == NOTES, "the first master key is of no use any more"
