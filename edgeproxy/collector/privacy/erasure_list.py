"""The list of erasures, stored outside the database: customers in a restored backup are erased again.

A line is the JSON of an id and a time; it contains no name. An erasure is committed first and listed afterwards, so
that the list contains only erased customers. If the process dies in between, the next start or the next maintenance
round adds the customer.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

import orjson
import sqlalchemy as sa

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.ids import is_id
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.privacy.erasure import ERASE_MAX, clear_events, erase_selected
from edgeproxy.config.collector.privacy import Privacy

RESTORED = Caller("collector: list of erasures")
"""The actor of a repeated erasure."""


class InvalidErasureListError(Exception):
    """The list is unusable. The message is for the person who starts the collector."""


class ErasureList:
    """A file with the erased customers. Writing the first line creates it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> set[str]:
        """Return the ids on the list. A line truncated by a crash does not count. Raises InvalidErasureListError."""
        try:
            return self._parse(self.path.read_bytes())
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise InvalidErasureListError(f"the list of erasures cannot be read: {error}") from None

    def _parse(self, content: bytes) -> set[str]:
        whole, _, _ = content.rpartition(b"\n")
        return {self._parse_line(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line}

    def _parse_line(self, number: int, line: bytes) -> str:
        try:
            customer = orjson.loads(line)["customer"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            customer = None
        if not isinstance(customer, str) or not is_id(customer):
            raise InvalidErasureListError(f"{self.path}:{number}: is no erasure: repair the list, or take its copy")
        return customer

    def append(self, erasures: Iterable[tuple[str, int]]) -> None:
        """Append ids with their Unix milliseconds; they are on disk on return. Raises InvalidErasureListError.

        Ids that another process has appended since the list was read are left out.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # A command may append at the same time.
                content = os.pread(file, os.fstat(file).st_size, 0)
                if not content.endswith(b"\n"):
                    content = content[: content.rfind(b"\n") + 1]
                    os.ftruncate(file, len(content))
                listed = self._parse(content)
                lines = [
                    orjson.dumps({"customer": one, "erased_at": format_timestamp(at)}) + b"\n"
                    for one, at in erasures
                    if one not in listed
                ]
                os.write(file, b"".join(lines))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise InvalidErasureListError(f"the list of erasures cannot be written: {error}") from None


def open_list(settings: Privacy | None) -> ErasureList | None:
    """Return the list that the settings name, or None."""
    return None if settings is None or settings.erasures is None else ErasureList(settings.erasures)


async def record_erasures(database: Database, erasures: ErasureList) -> None:
    """Append the erased customers that are not on the list. Raises InvalidErasureListError."""
    listed = await asyncio.to_thread(erasures.read)
    statement = sa.select(customers.c.id, customers.c.erased_at).where(customers.c.erased_at.is_not(None))
    async with database.reading() as connection:
        rows = await connection.execute(statement.order_by(customers.c.erased_at))
        missing = [(row.id, row.erased_at) for row in rows if row.id not in listed]
    if missing:
        await asyncio.to_thread(erasures.append, missing)


async def replay_erasures(database: Database, erasures: ErasureList) -> int:
    """Erase listed customers that exist in the database, for example after a restore, and update the list.

    Returns the number of erased customers. Raises InvalidErasureListError.
    """
    ids = sorted(await asyncio.to_thread(erasures.read))
    count = 0
    for at in range(0, len(ids), ERASE_MAX):
        there = customers.c.id.in_(ids[at : at + ERASE_MAX]) & customers.c.erased_at.is_(None)
        async with database.reading() as connection:
            names = (await connection.scalars(sa.select(customers.c.name).where(there))).all()
        if not names:
            continue
        await clear_events(database, names)
        selected = sa.select(customers).where(there).order_by(customers.c.name)
        count += len(await erase_selected(database, RESTORED, selected))
    if count:
        log.get_logger().warning("customers of a restored database were erased again", customers=count)
    await record_erasures(database, erasures)
    return count
