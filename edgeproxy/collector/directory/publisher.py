"""The publisher: it turns account changes into signed versions of the directory, which all edges follow.

Changes are in the outbox (collector/accounts/documents.py), written in the transactions that make them. One transaction
creates a version and removes its changes from the outbox, so a kill at any moment leaves both or neither. The hub has a
copy of the same lines. It is updated after each version, and again after any interruption.
"""

import asyncio
import hashlib
import secrets
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import sqlalchemy as sa
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.documents import ERASED
from edgeproxy.collector.database import schema
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.database.schema import customers, directory_outbox, keys
from edgeproxy.collector.directory import version_log
from edgeproxy.collector.directory.followers import Followers
from edgeproxy.collector.directory.hub_copy import HubMirror, HubUnavailableError
from edgeproxy.collector.directory.hub_push import PART_BYTES, join_parts, measure_parts
from edgeproxy.collector.directory.version_log import DirectoryLog
from edgeproxy.config.collector.settings import CollectorSettings, Published
from edgeproxy.wire.directory_signatures import LineKind, Signer, TrustedKeys, UntrustedLineError
from edgeproxy.wire.directory_versions import (
    LINES_MAX,
    SIGNED,
    Line,
    UnreadableDirectoryError,
    Version,
    compute_push_time,
    format_time,
    format_version,
    parse_line,
)

GATHER_SECONDS = 0.1
"""Seconds for gathering changes, and between two checks for changes."""
TIME_SECONDS = 10.0
"""Seconds between two signed times."""
CLEAN_SECONDS = 60.0
"""Seconds between two deletions of unneeded parts."""
CHANGES_MAX = 5000
"""Most changes in one version."""
WHOLE_BYTES_MIN = 1 << 20
"""The directory is rewritten only above this total size of its versions in bytes, however small a rewrite would be."""
WHOLE_REST_SECONDS, WHOLE_SHARE_MAX = 60.0, 0.05
"""Seconds between two complete versions after erasures, and the largest share of the time that they may take."""
BACK = "back"
"""The kind of an outbox row that says that the next version is intended to be older than the edges' version."""


def _build_check(due: sa.Select[int]) -> sa.Select[bool, int | None]:
    """Select whether one of these outbox rows exists, and the number of the newest version."""
    return sa.select(sa.exists(due), sa.select(sa.func.max(schema.directory_log.c.number)).scalar_subquery())


# Built once, because a check runs ten times a second: one takes a third of the time that two new statements need.
CHECK = _build_check(sa.select(directory_outbox.c.seq))
CHECK_WITHOUT_ERASURES = _build_check(sa.select(directory_outbox.c.seq).where(directory_outbox.c.kind != ERASED))


class Publisher:
    """The directory of one collector. Raises InvalidSigningKeyError."""

    def __init__(self, database: Database, settings: Published) -> None:
        self.log = DirectoryLog(database)
        """The published versions."""
        self.time: bytes | None = None
        """The signed line about the time of the newest version."""
        self.followers = Followers()
        """The edges that fetch the directory here."""
        self.hub = settings.hub
        """The hub that gets a copy."""
        self._database = database
        self._signer = Signer.load(settings.key)
        self._trust = TrustedKeys([self._signer.public_key])
        self._mirror = None if settings.hub is None else HubMirror(settings.hub)
        self._newest: Line | None = None
        self._changed = asyncio.Event()
        """Set and replaced at each new version."""
        self._signed_at = self._cleaned_at = float("-inf")
        self._next_whole = float("-inf")
        """Before this monotonic time, erasures wait for the next complete version."""
        self._ended = False
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    @property
    def public_key(self) -> str:
        """The public half of the signing key."""
        return self._signer.public_key

    def is_alike(self, other: "Publisher") -> bool:
        """Return True if another publisher has equal settings."""
        return (self.public_key, self.hub) == (other.public_key, other.hub)

    async def wait_for_change(self, token: str, seconds: float) -> None:
        """Wait until the newest version has another token, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not self._ended and (self._newest is None or self._newest.version.token == token):
                    await self._changed.wait()
        except TimeoutError:
            pass

    def release_waiters(self) -> None:
        """Release all waiting requests."""
        self._ended = True
        self._changed.set()

    async def has_pending_changes(self) -> bool:
        """Return True if a change is not in a version yet. Erasures may wait and do not count."""
        is_due, _ = await self._check()
        return is_due

    async def run(self) -> None:
        """Publish until cancelled."""
        failed = "the directory could not be published, and is tried again"
        # If two collectors publish at once, one wins. The other sees the new version at its next check.
        job = Job("directory", GATHER_SECONDS, failed, self.step, (sa.exc.IntegrityError,), gives_way=False)
        try:
            await repeat(job, self._limited_log)
        finally:
            if self._mirror is not None:
                await self._mirror.close()

    async def step(self) -> None:
        """Publish pending changes, if any, and update the hub."""
        is_due, number = await self._check()
        if is_due:
            await self._publish()
        if (is_due or self._is_unknown(number)) and (log := await self._find_newer_log()):
            self._newest, before = log[-1], self._changed
            self._signed_at = float("-inf")
            self._changed = asyncio.Event()
            self._sign()
            before.set()
        self._sign()
        if self._mirror is not None and self._newest is not None and self.time is not None:
            try:
                await self._mirror.synchronize(self._newest, self.time, self.log)
            except (HubUnavailableError, ResponseError, UnreadableDirectoryError, OSError) as error:
                self._limited_log.error("the directory could not be copied to the hub, and is tried again", str(error))
        if monotonic() - self._cleaned_at > CLEAN_SECONDS:
            self._cleaned_at = monotonic()
            if await self.log.delete_unneeded(time.time()):
                await self._database.purge_deleted()

    def _sign(self) -> None:
        """Sign the time if it is due."""
        if self._newest is not None and monotonic() - self._signed_at >= TIME_SECONDS:
            self._signed_at = monotonic()
            self.time = format_time(self._newest, time.time(), self._signer)

    async def _check(self) -> tuple[bool, int | None]:
        """Return whether something must be published, and the number of the newest version."""
        async with self._database.reading() as connection:
            check = CHECK if self._is_erasure_ripe() else CHECK_WITHOUT_ERASURES
            is_due, number = (await connection.execute(check)).one()
            if not is_due and self._newest is None:
                log = await self.log.list_lines(connection)
                is_due = not log or not self._is_own(log[-1])
        return is_due, number

    def _is_erasure_ripe(self) -> bool:
        """Return whether erasures in the outbox are due.

        An erasure needs a complete version, because earlier versions still contain the erased data. After a complete
        version, later erasures wait for a while and share the next one.
        """
        return monotonic() >= self._next_whole

    def _is_unknown(self, number: int | None) -> bool:
        """Return whether a version with this number is not the newest that this collector knows."""
        return number is not None and (self._newest is None or self._newest.version.number != number)

    async def _find_newer_log(self) -> list[Line] | None:
        """Return the log if its newest line differs from the known one, whichever collector wrote it; else None."""
        newest = sa.select(sa.func.max(schema.directory_log.c.number))
        async with self._database.reading() as connection:
            number = (await connection.execute(newest)).scalar_one()
            return await self.log.list_lines(connection) if self._is_unknown(number) else None

    def _is_own(self, line: Line) -> bool:
        """Return True if this collector's key has signed a line. Otherwise a complete version is written and signed."""
        try:
            self._trust.verify(LineKind.VERSION, line.raw)
        except UntrustedLineError:
            return False
        return True

    async def _publish(self) -> None:
        """Append a version with the changes, or a complete version if that is less to read."""
        async with self._database.writing() as connection:
            log = await self.log.list_lines(connection)
            chosen = sa.select(directory_outbox).order_by(directory_outbox.c.seq).limit(CHANGES_MAX)
            if not self._is_erasure_ripe():
                chosen = chosen.where(directory_outbox.c.kind != ERASED)
            rows = (await connection.execute(chosen)).all()
            back = any(row.kind == BACK for row in rows)
            grown = sum(line.version.size for line in log[1:])
            whole = (
                back
                or any(row.kind == ERASED for row in rows)
                or not log
                or not self._is_own(log[-1])
                or len(log) >= LINES_MAX
                or grown > max(log[0].version.size, WHOLE_BYTES_MIN)
            )
            if not whole:
                if not rows:
                    return
                names = list(dict.fromkeys(row.name for row in rows if row.kind == "customer"))
                flags = {row.name for row in rows if row.kind == "flag"}
                if names or flags:
                    lines = await documents.fetch_lines(connection, names)
                    parts = list(join_parts([*lines, *await documents.fetch_flag_lines(connection, flags)]))
                    version = await self._build_version(connection, log, parts, whole=False)
                    await version_log.stage_parts(connection, version.token, parts)
                    await version_log.append_version(connection, parse_line(format_version(version, self._signer)), ())
                await _delete_outbox_rows(connection, [row.seq for row in rows])
                return
        await self._publish_whole()

    async def _publish_whole(self) -> None:
        """Append a complete version.

        It is read and written in parts while others write. Their changes stay in the outbox and become the next
        version.
        """
        token, place, began = secrets.token_hex(16), 0, monotonic()
        digest, bytes_all = hashlib.sha256(), 0
        async with self._database.reading(whole=True) as reading:
            # After an import there is one per customer.
            published = array("q")
            async with reading.stream(sa.select(directory_outbox.c.seq)) as rows:
                async for (seq,) in rows:
                    published.append(seq)
            rollback = sa.select(directory_outbox.c.seq).where(directory_outbox.c.kind == BACK).limit(1)
            back = (await reading.execute(rollback)).first() is not None
            async for part in _stream_parts(reading):
                digest.update(part)
                bytes_all += len(part)
                async with self._database.writing() as connection:
                    await version_log.stage_parts(connection, token, [part], place)
                place += 1
        async with self._database.writing() as connection:
            log = await self.log.list_lines(connection)
            unsized = await self._build_version(connection, log, (), whole=True, back=back)
            version = unsized._replace(token=token, parts=place, size=bytes_all, sha256=digest.hexdigest())
            await version_log.append_version(connection, parse_line(format_version(version, self._signer)), log)
            await _delete_outbox_rows(connection, published)
        self._next_whole = monotonic() + max(WHOLE_REST_SECONDS, (monotonic() - began) / WHOLE_SHARE_MAX)
        self._log.info("directory written anew", version=version.number, customers=version.customers)

    async def _build_version(
        self,
        connection: AsyncConnection,
        log: Sequence[Line],
        parts: Sequence[bytes],
        *,
        whole: bool,
        back: bool = False,
    ) -> Version:
        """Build the next version."""
        count = sa.select(sa.func.count())
        there = customers.c.deleting_since.is_(None)
        usable = keys.c.revoked_at.is_(None)
        return Version(
            log[-1].version.number + 1 if log else 1,
            secrets.token_hex(16),
            whole,
            *measure_parts(parts),
            (await connection.execute(count.select_from(customers).where(there))).scalar_one(),
            (await connection.execute(count.select_from(keys).where(usable))).scalar_one(),
            compute_push_time(log[-1].version if log and self._is_own(log[-1]) else None, time.time()),
            SIGNED,
            log[-1].hash if log else "",
            # A signed rollback stays one while the log begins with it, because some edges have not read it yet.
            back or (whole and any(line.version.back for line in log)),
        )


async def _stream_parts(connection: AsyncConnection) -> AsyncIterator[bytes]:
    """Yield the lines of all flags and customers, joined into parts."""
    part = await documents.fetch_flag_lines(connection)
    size = sum(len(line) + 1 for line in part)
    async for _, line in documents.stream_lines(connection):
        part.append(line)
        size += len(line) + 1
        if size >= PART_BYTES:
            yield b"\n".join(part)
            part, size = [], 0
    if part:
        yield b"\n".join(part)


async def _delete_outbox_rows(connection: AsyncConnection, numbers: Sequence[int]) -> None:
    """Delete published rows from the outbox, by their numbers, because others may have been written meanwhile."""
    for at in range(0, len(numbers), 500):
        gone = directory_outbox.c.seq.in_(numbers[at : at + 500])
        await connection.execute(sa.delete(directory_outbox).where(gone))


async def enqueue_rollback(settings: CollectorSettings) -> None:
    """Order a rollback: the next version is valid although edges know a later one. Also writes an audit entry.

    Raises UnusableDatabaseError.
    """
    database = await Database.connect(settings.database, as_it_is=True)
    try:
        async with database.writing() as connection:
            await connection.execute(sa.insert(directory_outbox), [{"kind": BACK, "name": ""}])
            await audit.append_entry(connection, Caller("command line"), AuditEntry("directory.back", "directory"))
    finally:
        await database.close()
