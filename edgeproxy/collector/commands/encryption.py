"""Commands about encryption at rest in the database, with or without a running collector."""

from edgeproxy.base.plural import format_count
from edgeproxy.collector.accounts.audit import AuditEntry, append_entry
from edgeproxy.collector.accounts.end_users import seal_clear_secrets
from edgeproxy.collector.commands.command_caller import get_command_caller
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.encryption import migration
from edgeproxy.collector.encryption.key_services import KeyServiceError
from edgeproxy.collector.encryption.keyring import Keyring, find_keyring
from edgeproxy.config.collector.settings import CollectorSettings

IN_CLEAR = "encryption is not set: all columns are in the clear"


def report_status(settings: CollectorSettings) -> CommandResult:
    """Report the keys, and the share of each encrypted column that is still plain text."""

    async def look(database: Database) -> str:
        years = (await _get_keyring(database)).books.years
        async with database.reading(whole=True) as connection:
            counts = await migration.fetch_data_key_counts(connection)
            columns = await migration.fetch_status(connection)
        lines = [f"key {id_}: wraps {format_count(count, 'data key')}" for id_, count in sorted(counts.items())]
        lines += [f"keys of the books: {', '.join(map(str, years))}"]
        lines += [f"{column.name}: {column.sealed} encrypted, {column.clear} in the clear" for column in columns]
        return "\n".join(lines)

    return (1, IN_CLEAR) if settings.encryption is None else run_on_database(settings, look)


def seal_rows(settings: CollectorSettings) -> CommandResult:
    """Encrypt all rows that are still plain text."""

    async def seal(database: Database) -> str:
        count = await migration.seal_clear_rows(database) + await seal_clear_secrets(database)
        return f"{format_count(count, 'row')} encrypted"

    return (1, IN_CLEAR) if settings.encryption is None else run_on_database(settings, seal)


def rotate_keys(settings: CollectorSettings) -> CommandResult:
    """Create a new key, wrapped by the current master key, and wrap all data keys with it."""

    async def rotate(database: Database) -> str:
        try:
            id_, count = await migration.rotate_keys(database, await _get_keyring(database))
        except KeyServiceError as error:
            raise CommandError(f"{error}: run it again, it goes on from here") from None
        async with database.writing() as connection:
            entry = AuditEntry("encryption.rotate", f"key {id_}", None, {"data_keys": count})
            await append_entry(connection, get_command_caller(), entry)
        return f"key {id_} wraps {format_count(count, 'data key')} more; those before it are gone"

    return (1, IN_CLEAR) if settings.encryption is None else run_on_database(settings, rotate)


async def _get_keyring(database: Database) -> Keyring:
    async with database.reading() as connection:
        keyring = find_keyring(connection)
    assert keyring is not None  # `encryption` is set.
    return keyring
