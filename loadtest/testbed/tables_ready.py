"""Databases with the collector's tables in them, as copies of one: making the tables takes a second of CPU."""

import asyncio
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from edgeproxy.collector.database.database import Database

SQLITE = "sqlite:///"
PREPARED = "EDGEPROXY_TEST_PREPARED"
"""The variable with the folder of databases that all processes of a test run copy, see `prepared`."""
LEDGER = "ledger.db"


def make_tables(url: str, login: str | None = None) -> None:
    """Make the tables in a database; also where an event loop runs, as it has a thread and a loop of its own.

    With `login`, this user gets the rights of a collector to them.
    """

    async def make() -> None:
        database = await Database.connect(url)
        if login is not None:
            await database.grant_rights(login)
        await database.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()


@cache
def _original() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    folder = tempfile.TemporaryDirectory(prefix="edgeproxy-tables-")
    file = Path(folder.name) / LEDGER
    make_tables(f"{SQLITE}{file}")
    return folder, file


def put_tables(url: str) -> str:
    """Put the tables into a database of SQLite whose file is not there yet; the URL."""
    file = Path(url.removeprefix(SQLITE))
    if url.startswith(SQLITE) and file.is_absolute() and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        prepared = os.environ.get(PREPARED)
        shutil.copy(_original()[1] if prepared is None else Path(prepared) / LEDGER, file)
    return url
