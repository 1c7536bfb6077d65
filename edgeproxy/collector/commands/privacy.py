"""Commands about personal data in the database, with or without a running collector."""

import time
from collections import Counter
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.plural import format_count
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit import AuditEntry, append_entry
from edgeproxy.collector.accounts.customer_refs import match_customers, resolve_customer
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import CustomerState, compute_customer_state
from edgeproxy.collector.billing.jobs.ended_books import EndedBooks, count_due, find_end
from edgeproxy.collector.billing.stripe_sync.customer_deletion import list_waiting
from edgeproxy.collector.commands.command_caller import get_command_caller
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database, open_owner_only
from edgeproxy.collector.encryption.keyring import find_keyring
from edgeproxy.collector.privacy.end_users import erase_end_user
from edgeproxy.collector.privacy.erasure import clear_events, erase_customers, is_unsettled
from edgeproxy.collector.privacy.erasure_list import InvalidErasureListError, open_list, record_erasures
from edgeproxy.collector.privacy.export import write_archive
from edgeproxy.config.collector.settings import CollectorSettings


def erase(settings: CollectorSettings, customer: str) -> CommandResult:
    """Erase a customer, given by name or id, and add the erasure to the list of erasures."""

    async def do(database: Database) -> str:
        async with database.writing() as connection:
            row = await _lock_erasable(connection, customer)
        cleared = await clear_events(database, [row.name])
        async with database.writing() as connection:
            row = await _lock_erasable(connection, row.id)
            is_erased = compute_customer_state(row) is CustomerState.DELETED
            counts = Counter() if is_erased else await erase_customers(connection, get_command_caller(), [row])
        counts += Counter(events=cleared)
        text = f"{row.name} was erased before" if is_erased else f"{row.name} is erased"
        if counts:
            text += f": {', '.join(f'{count} {table}' for table, count in sorted(counts.items()))}"
        text += await _purge(database)
        if (erasures := open_list(settings.privacy)) is None:
            return f"{text}\nprivacy.erasures is not set: a restored backup has it back"
        try:
            await record_erasures(database, erasures)
        except InvalidErasureListError as error:
            raise CommandError(f"{text}\n{error}: the collector tries again") from None
        return text

    return run_on_database(settings, do)


async def _lock_erasable(connection: AsyncConnection, ref: str) -> CustomerRow:
    """Return the locked row of a customer who may be or is erased. Raises CommandError and CustomerRefError."""
    row = await resolve_customer(connection, ref, lock=True)
    is_erased = compute_customer_state(row) is CustomerState.DELETED
    if not is_erased and await is_unsettled(connection, row.id):
        raise CommandError(f"{row.name} is on its way to another residency: end that with residency move")
    return row


async def _purge(database: Database) -> str:
    """Remove deleted data from the files of a database. Return a text about the result."""
    if await database.purge_deleted(has_erased=True):
        return ""
    return "\nothers use the database: its files have it still, and the collector tries again every ten minutes"


def erase_one_end_user(settings: CollectorSettings, customer: str, end_user: str) -> CommandResult:
    """Erase an end user of a customer, given by name or id."""

    async def do(database: Database) -> str:
        async with database.writing() as connection:
            if customer in settings.customers and not await match_customers(connection, customer):
                name = customer
            else:
                name = (await resolve_customer(connection, customer, lock=True)).name
            counts = await erase_end_user(connection, get_command_caller(), name, end_user)
        if not counts:
            return f"nothing of {customer} names this end user"
        text = f"erased: {', '.join(f'{count} {table}' for table, count in sorted(counts.items()))}"
        return text + await _purge(database)

    return run_on_database(settings, do)


def list_waiting_at_stripe(settings: CollectorSettings) -> CommandResult:
    """List erased customers who still exist at Stripe, each with the reason."""

    async def do(database: Database) -> str:
        async with database.reading() as connection:
            waiting = await list_waiting(connection)
        lines = [f"{one.customer} ({one.stripe_id}): {one.waits_for or 'nobody has looked yet'}" for one in waiting]
        return "\n".join(lines) or "Stripe has no customer who is erased here"

    return run_on_database(settings, do)


def export(settings: CollectorSettings, customer: str, to: Path) -> CommandResult:
    """Write all data of a customer, given by name or id, to a new file."""

    async def do(database: Database) -> str:
        async with database.reading(whole=True) as connection:
            row = await resolve_customer(connection, customer)
            counts = await write_archive(connection, row, file)
        async with database.writing() as connection:
            await append_entry(connection, get_command_caller(), AuditEntry("customer.export", row.name))
        return f"{to} has {format_count(sum(counts.values()), 'row')} of {format_count(len(counts), 'table')}"

    try:
        with open(to, "xb", opener=open_owner_only) as file:
            result = run_on_database(settings, do)
    except OSError as error:
        return 1, f"{to} cannot be written: {error.strerror}"
    if result[0]:
        to.unlink()
    return result


def show_books(settings: CollectorSettings) -> CommandResult:
    """Show which books have ended, and the personal data that they still have."""
    return run_on_database(settings, lambda database: _describe_books(settings, database))


def clear_books(settings: CollectorSettings) -> CommandResult:
    """Clear all personal data in books that have ended."""

    async def do(database: Database) -> str:
        books = EndedBooks(database, settings.retention.invoices, get_command_caller())
        if not books.may_clear:
            raise CommandError("this user may not change books: run this as the owner of the tables")
        while await books.clear_next(time.time()):
            pass
        return await _describe_books(settings, database)

    return run_on_database(settings, do)


async def _describe_books(settings: CollectorSettings, database: Database) -> str:
    seconds = settings.retention.invoices
    if seconds is None:
        return "retention.invoices is forever: invoices and the journal are kept as they are"
    end = find_end(seconds, time.time())
    async with database.reading() as connection:
        due, keyring = await count_due(connection, end), find_keyring(connection)
    keys = "" if keyring is None else f"\nkeys of the books: {', '.join(map(str, keyring.books.years))}"
    return (
        f"books from before {format_timestamp(end * 1000)} are over\n"
        f"{format_count(due.invoices, 'invoice')} of erased customers to be cleared\n"
        f"{format_count(due.transactions, 'transaction')} of the journal to be cleared, {due.cleared} are{keys}"
    )
