"""Commands for a collector's database, with or without a running collector.

Each returns an exit code and a text: 0 and the answer, 1 and the reason of a failure, 2 and why something is unusable.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import date
from pathlib import Path
from typing import NamedTuple, TextIO

from pydantic_core import PydanticCustomError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import event_loop
from edgeproxy.base.plural import format_count
from edgeproxy.collector.accounts import audit, transfer
from edgeproxy.collector.accounts.customer_refs import CustomerRefError, resolve_customer
from edgeproxy.collector.billing.reports import accounting
from edgeproxy.collector.commands.command_caller import get_command_caller
from edgeproxy.collector.commands.encrypted_copy import copy_encrypted
from edgeproxy.collector.database import row_security
from edgeproxy.collector.database.database import (
    CONNECTION_ERRORS,
    Database,
    UnusableDatabaseError,
    format_reason,
    open_owner_only,
)
from edgeproxy.collector.database.ownership import fetch_ownership
from edgeproxy.collector.database.schema import REVISION
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.collector.ledger import quarantine
from edgeproxy.config.collector.database_url import read_database
from edgeproxy.config.collector.settings import CollectorSettings

CommandResult = tuple[int, str]

REFUSED_SHOWN_MAX = 20
"""Objects that failed to import and are listed with the reason."""


class CommandError(Exception):
    """A command fails. The message is a sentence why."""


class RightsReport(NamedTuple):
    """The state of row-level security, and the rights of the collector's login."""

    code: int
    """0 if it works, and on SQLite, which has none; 1 if it does not; 2 if the database is unusable."""
    text: str
    sql: str | None = None
    """SQL that an administrator of the server must run first, or None."""


def report_rights(settings: CollectorSettings) -> RightsReport:
    """Report the owner of the tables and the state of row-level security. Nothing is changed. Tables need not exist."""

    async def inspect() -> RightsReport:
        database = Database(settings.database)
        if database.is_sqlite:
            return RightsReport(0, "SQLite has no row-level security: handlers alone hold customers apart")
        try:
            async with database.reading() as connection:
                login = await row_security.fetch_login(connection)
                gap = await row_security.find_gap(connection)
                ownership = await fetch_ownership(connection)
        finally:
            await database.close()
        sql = None if login.is_complete else row_security.roles_sql(login.name)
        faults = [fault for fault in (gap, ownership.obstacle, ownership.altered) if fault is not None]
        owner = ownership.weakness or f"the user {ownership.login} reads and writes rows, and owns nothing"
        # A login that owns the tables is a choice. A login that should own nothing but could become the owner is a
        # fault.
        is_fault = bool(faults) or (ownership.weakness is not None and not ownership.has_ownership)
        lines = [*(faults or ["row-level security is in force"]), owner]
        if ownership.settings:
            lines.append(f"its sessions begin with {', '.join(ownership.settings)}")
        return RightsReport(int(is_fault), "\n".join(lines), sql)

    try:
        return event_loop.run(inspect())
    except Exception as error:  # For example a wrong password: the driver has its own class for it.
        return RightsReport(2, f"the database cannot be read: {format_reason(error)}")


def migrate(settings: CollectorSettings, owner_url: str | None) -> CommandResult:
    """Create or migrate the tables as the user of `owner_url`, and grant the collector's login its rights to them.

    Without `owner_url` the collector's login does it. On PostgreSQL, row-level security is enabled too; the code is 1
    if that fails.
    """
    login = make_url(settings.database)
    try:
        owner_url = None if owner_url is None else read_database(owner_url)
    except PydanticCustomError as error:
        return 2, f"the owner's URL {error}"
    if owner_url is not None and _locate(make_url(owner_url)) != _locate(login):
        urls = [url.render_as_string() for url in (make_url(owner_url), login)]
        return 2, f"{urls[0]} is another database than {urls[1]}, where the collector serves"

    async def migrate_tables() -> str:
        database = await Database.connect(owner_url or settings.database)
        try:
            ownership, gap = database.ownership, database.row_security_gap
            text = f"{database.name} is of revision {REVISION}"
            if ownership is not None and login.username not in (None, ownership.login):
                if not ownership.has_ownership:
                    raise CommandError(
                        f"the user {ownership.login} does not own the tables, which are {ownership.owner}'s"
                    )
                await database.grant_rights(login.username)
                await database.set_minutes_floor(settings.retention.minutes)
                text += f"; {login.username} reads and writes its rows"
            if gap is not None:
                raise CommandError(f"{text}\n{gap}")
            return text
        finally:
            await database.close()

    return _run(migrate_tables)


def downgrade(settings: CollectorSettings, revision: str, owner_url: str | None) -> CommandResult:
    """Bring the tables to an earlier revision, as the user of `owner_url` or else as the collector's login."""
    from edgeproxy.collector.database import migrate as migrate_tables  # Loads Alembic, which nothing else here needs.

    async def downgrade_tables() -> str:
        database = Database(owner_url or settings.database)
        try:
            async with database.writing() as connection:
                try:
                    await connection.run_sync(migrate_tables.downgrade, revision)
                except migrate_tables.IrreversibleRevisionError as error:
                    raise CommandError(str(error)) from error
            return f"{database.name} is of revision {revision}"
        finally:
            await database.close()

    return _run(downgrade_tables)


def _locate(url: URL) -> tuple[str, str | None, int | None, str | None]:
    """Return the parts of a URL that identify a database, without its user."""
    return url.get_backend_name(), url.host, url.port or 5432, url.database


def list_quarantine(settings: CollectorSettings) -> CommandResult:
    """List the batches in quarantine, one per line."""

    async def list_batches(database: Database) -> str:
        async with database.reading(whole=True) as connection:
            report = await quarantine.list_batches(connection)
        rows = report["batches"]
        lines = [f"{row['edge']} {row['seq']}  {row['received']}, {row['size']} bytes: {row['why']}" for row in rows]
        if report["count"] > len(rows):
            lines.append(f"and {report['count'] - len(rows)} more")
        return "\n".join(lines) or "nothing is in quarantine"

    return run_on_database(settings, list_batches)


def show_batch(settings: CollectorSettings, edge: str, seq: int, file: Path | None) -> CommandResult:
    """Show a batch in quarantine, and write its body to `file`."""

    def write(body: bytes) -> None:
        if file is not None:
            with open(file, "wb", opener=open_owner_only) as opened:
                opened.write(body)

    async def show(database: Database) -> str:
        async with database.reading(whole=True) as connection:
            report = await quarantine.find_batch(connection, edge, seq)
            body = await quarantine.find_body(connection, edge, seq)
        if report is None or body is None:
            raise CommandError(f"there is no batch {seq} of {edge} in quarantine")
        write(body)
        width = max(map(len, report))
        return "\n".join(f"{name:{width}}  {'-' if value is None else value}" for name, value in report.items())

    return run_on_database(settings, show)


def replay_batch(
    settings: CollectorSettings, edge: str, seq: int, file: Path | None, *, nothing: bool
) -> CommandResult:
    """Count a quarantined batch with its own body, with the body in `file`, or with an empty one (`nothing`)."""

    try:
        file_body = file.read_bytes() if file is not None else None
    except OSError as error:
        return 2, str(error)

    async def count(database: Database) -> str:
        body = file_body
        if nothing:
            async with database.reading() as connection:
                body = await quarantine.build_empty_body(connection, edge, seq)

        async def record(connection: AsyncConnection, result: quarantine.ReplayResult) -> None:
            after = {**result.to_response(), "own_body": body is None}
            caller = get_command_caller()
            await audit.append_entry(
                connection, caller, audit.AuditEntry("quarantine.replay", f"{edge}/{seq}", None, after)
            )

        result = await quarantine.replay_batch(database, edge, seq, body, record=record, meters=settings.meters)
        response = result.to_response()
        summary = (
            f"{format_count(result.rows, 'row')} with a total of {result.total} in the minute {response['minute']}"
        )
        return f"batch {seq} of {edge} {'was counted before' if result.again else 'is counted'}: {summary}"

    return run_on_database(settings, count)


def back_up(settings: CollectorSettings, to: Path, recipient: str | None = None) -> CommandResult:
    """Copy a snapshot of a SQLite database, optionally encrypted for `recipient`, a public key of age."""

    async def copy(database: Database) -> str:
        if not database.is_sqlite:
            raise CommandError(
                f"{database.name} is backed up by pg_dump or pg_basebackup: see docs/operations/backup.md"
            )
        try:
            size = database.copy(to) if recipient is None else copy_encrypted(database, to, recipient)
            return f"{to} has {size} bytes"
        except (sqlite3.Error, OSError) as error:
            raise CommandError(f"{to} cannot be written: {error}") from None

    return (1, f"{to} is there already") if to.exists() else run_on_database(settings, copy)


def import_configuration(settings: CollectorSettings, *, dry: bool) -> CommandResult:
    """Import customers, keys and flags from the configuration into the database."""

    async def import_all(database: Database) -> str:
        caller = get_command_caller()
        results = await transfer.import_settings(database, settings, caller, dry=dry)
        lines = [
            f"{kind}: {result.added} new, {result.changed} changed, {result.same} as they were"
            for kind, result in results.items()
        ]
        refused = [why for result in results.values() for why in result.refused]
        if refused:
            rest = [f"and {len(refused) - REFUSED_SHOWN_MAX} more"] if len(refused) > REFUSED_SHOWN_MAX else []
            raise CommandError(
                "\n".join([*lines, *(f"not brought: {why}" for why in refused[:REFUSED_SHOWN_MAX]), *rest])
            )
        return "\n".join([*lines, *(["nothing was changed: it was a dry run"] if dry else [])])

    return run_on_database(settings, import_all)


def export_configuration(settings: CollectorSettings, to: TextIO, *, for_edges: bool) -> CommandResult:
    """Write customers, keys and flags of the database to `to` as a configuration file, with `for_edges` for edges."""

    async def export(database: Database) -> str:
        async with database.reading(whole=True) as connection:
            async for line in transfer.export_lines(connection, for_edges=for_edges):
                to.write(line + "\n")
        return ""

    return run_on_database(settings, export)


def export_journal(settings: CollectorSettings, day: date, form: accounting.Format, currency: str) -> CommandResult:
    """Write a day's journal in a currency as a file for bookkeeping software."""

    names = (
        {} if settings.billing is None else {str(account): name for account, name in settings.billing.accounts.items()}
    )

    async def write(database: Database) -> str:
        try:
            async with database.writing() as connection:
                journal = await accounting.fetch_day_journal(connection, day, time.time(), currency)
        except accounting.DayNotOverError as error:
            raise CommandError(str(error)) from None
        return accounting.render_journal(journal, form, names).decode()

    return run_on_database(settings, write)


def sign_in_link(settings: CollectorSettings, customer: str | None) -> CommandResult:
    """Create a link that signs in an operator, or a person for a customer, once."""
    from edgeproxy.collector.pages import sessions
    from edgeproxy.collector.pages.sign_in import FIRST_LINK_SECONDS, LINK_LABEL, format_link
    from edgeproxy.collector.pages.urls import build_url, select_listener

    async def make(database: Database) -> str:
        async with database.writing() as connection:
            name = None if customer is None else (await resolve_customer(connection, customer)).name
            label = LINK_LABEL if name is None else get_command_caller().actor
            link = sessions.Link(label, name)
            secret = await sessions.create_link(connection, link, time.time(), FIRST_LINK_SECONDS, most=None)
            caller = get_command_caller()
            await audit.append_entry(connection, caller, audit.AuditEntry("session.link", name or label))
        assert secret is not None
        return format_link(build_url(settings, listener), secret)

    if settings.pages is None:
        return 1, "the collector has no pages: write pages: {}"
    group = "console" if customer is None else "portal"
    listener = select_listener(settings, group)
    if group not in listener.groups:
        return 1, f"no listener serves the {group}: write it in the serve of one"
    return run_on_database(settings, make)


def run_on_database(settings: CollectorSettings, work: Callable[[Database], Awaitable[str]]) -> CommandResult:
    """Run work with the database, and return its result."""

    async def connect_and_work() -> str:
        database = await Database.connect(settings.database, as_it_is=True)
        try:
            await open_keyring(database, settings.encryption)
            return await work(database)
        finally:
            await database.close()

    return _run(connect_and_work)


def _run(work: Callable[[], Coroutine[object, object, str]]) -> CommandResult:
    """Run a command's coroutine in a new event loop and return its result."""
    try:
        return 0, event_loop.run(work())
    except (quarantine.ReplayRejectedError, CommandError, CustomerRefError, UnreadableRowError) as error:
        return 1, str(error)
    except UnusableDatabaseError as error:
        return 2, str(error)
    except CONNECTION_ERRORS as error:
        return 2, str(error) if isinstance(error, OSError) else f"the database cannot be used: {format_reason(error)}"
    except DatabaseError as error:
        if type(error) is not DatabaseError:
            raise
        # SQLite's errors about a damaged file have no class of their own.
        return 2, f"the database cannot be used: {format_reason(error)}"
