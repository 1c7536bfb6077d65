"""Encrypted columns: storage, reading, search, key rotation, and data that is unreadable after an erasure."""

import asyncio
import io
import os
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector import alert_handling
from edgeproxy.collector.accounts import audit, contacts, customers, keys
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.audit_details import UNREADABLE_DETAILS, Details, open_details
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.end_users import fetch_secrets, get_or_create_secrets, seal_clear_secrets
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest, UpdateCustomerRequest
from edgeproxy.collector.accounts.states import AccountStateError
from edgeproxy.collector.accounts.tokens import CreateTokenRequest, add_secret, create_token, revoke_token
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.customer_search import search_customers
from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.database.encryption_tables import data_keys, encryption_keys
from edgeproxy.collector.database.page_tables import contacts as contacts_table
from edgeproxy.collector.database.privacy_tables import end_user_secrets
from edgeproxy.collector.database.row_security import serving
from edgeproxy.collector.database.schema import audit as audit_table
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.database.webhook_tables import webhook_endpoints, webhook_messages
from edgeproxy.collector.encryption import migration
from edgeproxy.collector.encryption.data_keys import DataKeys, SealedValueError
from edgeproxy.collector.encryption.key_services import FileKeyService
from edgeproxy.collector.encryption.keyring import (
    OPTION,
    Keyring,
    KeysUnavailableError,
    find_keyring,
    open_keyring,
    refresh_keyring,
)
from edgeproxy.collector.encryption.owners import DATABASE
from edgeproxy.collector.encryption.rows import fetch_rows, open_row, seal_rows
from edgeproxy.collector.pages import held_forms, sessions, sign_up, subscriptions
from edgeproxy.collector.privacy.erasure import ErasedCustomer, erase_customers, erase_late_rows
from edgeproxy.collector.privacy.export import write_archive
from edgeproxy.config.collector.encryption import Encryption
from edgeproxy.config.collector.settings import CollectorSettings
from loadtest.testbed.postgresql import Postgresql
from tests.support.collector_fixtures import only_sqlite
from tests.support.planted import find_value, list_planted, plant

CALLER = Caller("test")
TOKEN = {"sha256": "0" * 64, "role": "read"}
SETTINGS = CollectorSettings.model_validate({"tiers": {"basic": {}}, "tokens": [TOKEN], "sha256": ""})
EMAIL, NOTE = "ada.lovelace@acme.example", "her note"
Result = TypeVar("Result")


def make_key(path: Path) -> Encryption:
    """Return settings with a new master key in a file."""
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return Encryption.model_validate({"file": str(path)})


def run(url: str, settings: Encryption | None, work: Callable[[Database, Keyring | None], Awaitable[Result]]) -> Result:
    """Run `work` with the database at `url`, opened as a collector opens it."""

    async def do() -> Result:
        database = await Database.connect(url)
        try:
            return await work(database, await open_keyring(database, settings))
        finally:
            await database.close()

    return asyncio.run(do())


async def create(connection: AsyncConnection, name: str, email: str = EMAIL) -> None:
    """Create a customer with a value in each encrypted column."""
    fields = {"name": name, "tier": "basic", "external_id": f"crm-{name}", "metadata": {"note": f"{NOTE} {name}"}}
    await customers.create_customer(connection, CALLER, CreateCustomerRequest.model_validate(fields), SETTINGS)
    body = contacts.Contacts.model_validate({"emails": [email, f"other@{name}.example"]})
    await contacts.put_contacts(connection, CALLER, name, body)


async def read(connection: AsyncConnection, name: str) -> tuple[str | None, str, list[str]]:
    """Return the customer's decrypted values: external id, metadata and contacts."""
    row = await customers.get_row(connection, name)
    return row.external_id, row.metadata, await contacts.list_contacts(connection, name)


def expected(name: str, email: str = EMAIL) -> tuple[str, str, list[str]]:
    return f"crm-{name}", f'{{"note":"{NOTE} {name}"}}', sorted([email, f"other@{name}.example"])


async def fetch_stored(connection: AsyncConnection) -> str:
    """Return the stored rows as a thief of the database sees them."""
    tables = (customers_table, contacts_table, data_keys, encryption_keys)
    return "\n".join([str(tuple(row)) for table in tables for row in await connection.execute(sa.select(table))])


def test_encrypted_values_are_readable_and_searchable_but_not_stored(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            for name in ("acme", "bolt"):
                await create(connection, name)
            assert await read(connection, "acme") == expected("acme")
            stored = await fetch_stored(connection)
            assert not [one for one in (EMAIL, NOTE, "crm-", "other@") if one in stored]
            # Search uses the stored hashes:
            assert await contacts.list_customers(connection, EMAIL.upper()) == ["acme", "bolt"]
            found = await search_customers(connection, opened, "crm-bolt", 10)
            assert [one["name"] for one in found] == ["bolt"]
            listed = await customers.list_customers(connection, None, 10, external_id="crm-acme")
            assert [customer["name"] for customer in listed] == ["acme"]
            taken = UpdateCustomerRequest.model_validate({"external_id": "crm-acme"})
            with pytest.raises(ChangeRejectedError, match="external_id"):
                await customers.update_customer(connection, CALLER, "bolt", taken, SETTINGS)
            # A stored hash is not accepted as a search value, so a thief of the database finds nothing with it.
            hashed = (await connection.execute(sa.select(contacts_table.c.email).limit(1))).scalar_one()
            assert await contacts.list_customers(connection, hashed) == []
            left = contacts.Contacts.model_validate({"emails": [EMAIL]})
            await contacts.put_contacts(connection, CALLER, "acme", left)
            assert await contacts.list_contacts(connection, "acme") == [EMAIL]

    run(database, make_key(tmp_path / "key"), do)


@pytest.mark.both_databases
def test_search_finds_the_domain_of_an_address_by_its_hash(database: str, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")

    async def find(opened: Database, text: str) -> list[str]:
        async with opened.reading() as connection:
            return [customer["name"] for customer in await search_customers(connection, opened, text, 9)]

    async def domains(opened: Database) -> set[str | None]:
        async with opened.reading() as connection:
            return set((await connection.execute(sa.select(contacts_table.c.domain))).scalars())

    async def clear(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "north")
            await create(connection, "south", "bob@mail.acme.example")
        assert await find(opened, "ACME.example") == await find(opened, "@acme.example") == ["north"]
        assert await find(opened, "cme.example") == []
        assert await domains(opened) == {"acme.example", "mail.acme.example", "north.example", "south.example"}

    async def sealed(opened: Database, _: Keyring | None) -> None:
        assert await find(opened, "acme.example") == ["north"], "before it is sealed"
        await migration.seal_clear_rows(opened)
        assert await find(opened, "acme.example") == ["north"]
        async with opened.writing() as connection:
            await create(connection, "west", "eve@acme.example")
            assert [sorted(row) for row in await fetch_rows(connection, "contacts", sa.select(contacts_table))] == [
                ["customer", "email", "language", "role", "sensitive_from", "signed_in_at"]
            ] * 6, "no query reads the hash column"
        assert await find(opened, "acme.example") == ["north", "west"]
        hashes = await domains(opened)
        assert len(hashes) == 5
        assert not any("example" in str(value) for value in hashes)
        async with opened.writing() as connection:  # An earlier version sealed addresses without the domain's hash.
            await connection.execute(sa.update(contacts_table).values(domain=None))
        assert await find(opened, "acme.example") == []
        assert await migration.seal_clear_rows(opened) == 6
        assert await migration.seal_clear_rows(opened) == 0
        assert (await domains(opened), await find(opened, "acme.example")) == (hashes, ["north", "west"])

    run(database, None, clear)
    run(database, key, sealed)


def test_sealed_value_is_bound_to_its_row_and_column(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            column, own = customers_table.c, customers_table.c.name == "acme"
            sealed = (await connection.execute(sa.select(column.external_id_sealed).where(own))).scalar_one()
            await connection.execute(sa.update(customers_table).where(own).values(metadata=sealed))
            with pytest.raises(SealedValueError, match=r"customers\.metadata of a row was changed"):
                await customers.get_row(connection, "acme")
            # Exchange the sealed addresses of two contacts of one customer.
            rows = (await connection.execute(sa.select(contacts_table))).all()
            for row, other in zip(rows, reversed(rows), strict=True):
                one = contacts_table.c.email == row.email
                await connection.execute(sa.update(contacts_table).where(one).values(email_sealed=other.email_sealed))
            with pytest.raises(SealedValueError, match=r"contacts\.email"):
                await fetch_rows(connection, "contacts", sa.select(contacts_table), strict=True)
            assert await fetch_rows(connection, "contacts", sa.select(contacts_table)) == [], "both are set aside"

    run(database, make_key(tmp_path / "key"), do)


@pytest.mark.both_databases
def test_each_sealed_column_is_encrypted_readable_and_bound_to_its_row(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await plant(connection)
        tables = [table for table in list_planted() if table.name in SEALED]
        assert len(tables) >= len(SEALED) - 2, "all but those of the public"
        for table in tables:
            sealed = SEALED[table.name]
            names = (*sealed.plain, *sealed.looked_up)
            async with opened.writing() as connection:
                stored = str([tuple(row) for row in await connection.execute(sa.select(table))])
                rows = await fetch_rows(connection, table.name, sa.select(table))
                for name in names:
                    assert f"planted.{table.name}.{name}." not in stored, (table.name, name)
                values = {str(row[name]) for row in rows for name in names}
                planted = {str(find_value(table.name, name, one)) for name in names for one in ("acme", "bolt")}
                assert values == planted, table.name
            for name in (*sealed.plain, *sealed.looked_up.values()):
                with pytest.raises(SealedValueError):  # noqa: PT012 - of its last statement; the transaction is rolled back
                    async with opened.writing() as connection:
                        one, other = (await connection.execute(sa.select(*table.primary_key, table.c[name]))).all()
                        is_other = [table.c[key.name] == other._mapping[key] for key in table.primary_key]
                        update = sa.update(table).where(*is_other).values({name: one._mapping[table.c[name]]})
                        await connection.execute(update)
                        await fetch_rows(connection, table.name, sa.select(table), strict=True)
        if file := opened.file:
            content = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
            sealed_columns = [(name, column) for name, one in SEALED.items() for column in (*one.plain, *one.looked_up)]
            assert [
                sealed_column
                for sealed_column in sealed_columns
                if ".".join(("planted", *sealed_column, "")).encode() in content
            ] == []
            assert b"planted.customers.tier." in content, "the search finds plain text"

    run(database, make_key(tmp_path / "key"), do)


def test_opening_a_list_takes_one_python_call_per_row(database: str, tmp_path: Path) -> None:
    """Beside AES-GCM and Base64, Python calls are the cost of a list: one per row, and none per value."""
    calls = Counter[str]()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).parent.name == "encryption":
            calls[frame.f_code.co_name] += 1

    async def do(opened: Database, _: Keyring | None) -> None:
        names = [f"of-{number}" for number in range(30)]
        async with opened.writing() as connection:
            for name in names:
                await create(connection, name)
        async with opened.reading() as connection:
            await customers.list_customers(connection, None, len(names))  # This loads the data keys into memory.
            sys.setprofile(count)
            try:
                rows = await customers.list_customers(connection, None, len(names))
            finally:
                sys.setprofile(None)
        assert [row["external_id"] for row in rows] == [f"crm-{name}" for name in names]
        assert [row["metadata"] for row in rows] == [{"note": f"{NOTE} {name}"} for name in names]
        assert calls.pop("bind_row") == len(names), "the values were decrypted and the calls counted"
        assert sum(calls.values()) < len(names), calls

    run(database, make_key(tmp_path / "key"), do)


@pytest.mark.both_databases
def test_addresses_of_sessions_and_subscribers_are_found_but_not_stored(database: str, tmp_path: Path) -> None:
    label, now = f"contact:{EMAIL}", 1_800_000_000

    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            link = await sessions.create_link(connection, sessions.Link(label, "acme"), now)
            secret = await sessions.begin_session(connection, sessions.SignedIn(label, frozenset(), "acme"), now)
            form = held_forms.HeldForm(f"/p?q={EMAIL}", "/a", {"note": EMAIL})
            held = await held_forms.hold_form(connection, sessions.SignedIn(label, frozenset(), "acme"), form, now)
            token = await subscriptions.insert_request(connection, EMAIL, now, "en")
            sign_up_secret = await sign_up.insert_request(connection, EMAIL, now, 10)
            assert None not in (link, sign_up_secret, token)
            assert await subscriptions.insert_request(connection, EMAIL, now, "en") is None, "the subscription exists"
        async with opened.writing() as connection:
            for table in ("held_forms", "sessions", "sign_in_links", "sign_ups", "status_subscribers"):
                stored = (await connection.execute(sa.select(metadata.tables[table]))).all()
                assert (len(stored), EMAIL in str(stored)) == (1, False), table
            found = await sessions.find_session(connection, secret, now)
            assert found is not None
            assert found.who.label == label
            assert await held_forms.find_form(connection, held, found.who, now) == form
            assert not await subscriptions.can_receive_question(connection, EMAIL, now)
            assert await sign_up.use_up_link(connection, str(sign_up_secret), now) == EMAIL
            used_up = await sessions.use_up_link(connection, str(link), now)
            assert used_up == sessions.Link(label, "acme")
            await contacts.put_contacts(connection, CALLER, "acme", contacts.Contacts.model_validate({"emails": []}))
            assert await sessions.find_session(connection, secret, now) is None, "a removed contact is signed out"
            assert await held_forms.find_form(connection, held, found.who, now) is None

    run(database, make_key(tmp_path / "key"), do)


def test_cached_data_key_is_unused_after_rollback_or_erasure(database: str, tmp_path: Path) -> None:
    """Of two collectors on a database one erases. The other is not notified and still has the key in memory."""
    settings = make_key(tmp_path / "key")

    async def do(opened: Database, keyring: Keyring | None) -> None:
        assert keyring is not None
        second = await Database.connect(database)
        try:
            other = await open_keyring(second, settings)
            assert other is not None
            with suppress(RuntimeError):
                async with opened.writing() as connection:
                    await create(connection, "acme")
                    await read(connection, "acme")
                    raise RuntimeError
            assert keyring.data_keys == {}, "the key was never committed"
            async with second.writing() as connection:
                await create(connection, "acme")
            for one in (opened, second):
                async with one.reading() as connection:
                    assert await read(connection, "acme") == expected("acme")
            assert len(keyring.data_keys) == len(other.data_keys) == 1
            async with second.writing() as connection:
                row = await customers.get_row(connection, "acme", lock=True)
                await erase_customers(connection, CALLER, [row])
            assert other.data_keys == {}
            async with opened.reading() as connection:
                assert len(keyring.data_keys) == 1, "the keyring cache is filled"
                assert await read(connection, "acme") == (None, "{}", [])
                details = [entry["after"] for entry in await audit.list_entries(connection, 0, 100)]
                assert details == [{"erased": True}] * 2 + [{"state": "deleted"}]
            async with opened.writing() as connection:
                body = {"email": EMAIL, "customer": row.id, "role": "owner"}
                (stored,) = await seal_rows(connection, contacts_table.name, [body])
                await connection.execute(sa.insert(contacts_table), [stored])
            destroyed = DataKeys(keyring, dict(keyring.data_keys))  # type: ignore[arg-type]
            with pytest.raises(SealedValueError):
                open_row(destroyed, contacts_table.name, stored, row.id)
            for one in (opened, second):
                async with one.reading() as connection:
                    (late,) = await fetch_rows(connection, contacts_table.name, sa.select(contacts_table))
                    assert late["email"] == EMAIL, "the one in memory opens it no more, and is fetched anew"
        finally:
            await second.close()

    run(database, settings, do)


def test_copy_from_before_an_erasure_is_unreadable_without_the_data_key(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            before = (await connection.execute(sa.select(contacts_table))).all()
            keyring = find_keyring(connection)
            opened.set_option(OPTION, Keyring([], 0.0))  # An erasure works without the key service.
        async with opened.writing() as connection:
            row = await customers.find_stored_row(connection, "acme")
            assert row is not None
            await erase_customers(connection, CALLER, [row])
            opened.set_option(OPTION, keyring)
        async with opened.writing() as connection:
            assert (await connection.execute(sa.select(data_keys))).all() == []
            assert (await customers.get_row(connection, "acme")).metadata == "{}"
            await connection.execute(sa.insert(contacts_table), [dict(one._mapping) for one in before])
            assert await contacts.list_contacts(connection, "acme") == []
            with pytest.raises(SealedValueError, match="the data key of its customer is gone"):
                await fetch_rows(connection, contacts_table.name, sa.select(contacts_table), strict=True)

    run(database, make_key(tmp_path / "key"), do)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_destroyed_keys_are_purged_from_the_files_of_postgresql(
    database: str, tmp_path: Path, postgresql: Postgresql
) -> None:
    def is_left(wrapped: bytes) -> bool:
        postgresql.ask("CHECKPOINT")
        return any(wrapped in path.read_bytes() for path in (postgresql.data / "base").glob("*/*") if path.is_file())

    async def do(opened: Database, keyring: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            own = data_keys.c.customer != DATABASE
            wrapped = (await connection.execute(sa.select(data_keys.c.wrapped).where(own))).scalar_one()
        async with opened.writing() as connection:
            await erase_customers(connection, CALLER, [await customers.get_row(connection, "acme", lock=True)])
        assert is_left(wrapped), "PostgreSQL leaves deleted rows where they were"
        async with opened.reading(whole=True) as reader:
            await reader.execute(sa.select(data_keys))
            assert not await opened.purge_deleted(has_erased=True)
        assert await opened.purge_deleted(has_erased=True)
        assert not is_left(wrapped)
        async with opened.reading() as connection:
            replaced = (await connection.execute(sa.select(encryption_keys.c.wrapped))).scalars().all()
        assert keyring is not None
        await migration.rotate_keys(opened, keyring)
        deadline = time.monotonic() + 30  # PostgreSQL's statistics of dead rows lag a moment behind.
        while not await opened.purge_deleted() or any(map(is_left, replaced)):
            assert time.monotonic() < deadline, "a replaced row is still there"
            await asyncio.sleep(0.2)

    run(database, make_key(tmp_path / "key"), do)


@pytest.mark.both_databases
def test_transaction_for_a_customer_reads_and_writes_its_sealed_values(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            for name in ("acme", "bolt"):
                await create(connection, name)
            await connection.execute(sa.delete(contacts_table))
            await connection.execute(sa.update(customers_table).values(external_id_sealed=None, external_id=None))
            await connection.execute(sa.update(customers_table).values(metadata="{}"))
            await connection.execute(sa.delete(data_keys))
        with serving("acme"):
            async with opened.writing() as connection:  # This creates the customer's data key.
                change = UpdateCustomerRequest.model_validate({"metadata": {"note": NOTE}})
                await customers.update_customer(connection, CALLER, "acme", change, SETTINGS)
            async with opened.reading() as connection:
                assert NOTE in (await customers.get_row(connection, "acme")).metadata
                owners = set((await connection.execute(sa.select(data_keys.c.customer))).scalars())
                assert len(owners) == 1

    run(database, make_key(tmp_path / "key"), do)


# ---- keys


def test_wrong_or_missing_master_key_fails_the_start(database: str, tmp_path: Path) -> None:
    async def nothing(opened: Database, keyring: Keyring | None) -> None: ...

    settings = make_key(tmp_path / "key")
    run(database, settings, nothing)
    for wrong, message in (
        (None, "has encrypted columns: set `encryption`"),
        (make_key(tmp_path / "other"), "another master key"),
        (Encryption.model_validate({"file": str(tmp_path / "none")}), "cannot be read: No such file"),
        (Encryption.model_validate({"command": ["false"]}), "command false unwrap exited with 1"),
        (Encryption.model_validate({"command": ["sh", "-c", "echo QUJD"]}), "command sh unwraps another key"),
    ):
        with pytest.raises(UnusableDatabaseError, match=message):
            run(database, wrong, nothing)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(UnusableDatabaseError, match="chmod 600"):
        run(database, settings, nothing)


def test_key_service_that_cannot_unwrap_is_refused_before_use(database: str, tmp_path: Path) -> None:
    async def nothing(opened: Database, keyring: Keyring | None) -> None: ...

    lost = "read key; echo QUJD"  # The same output for wrap and unwrap: the wrapped key is lost.
    with pytest.raises(UnusableDatabaseError, match="command sh unwraps another key than it has wrapped"):
        run(database, Encryption.model_validate({"command": ["sh", "-c", lost]}), nothing)
    run(database, make_key(tmp_path / "key"), nothing)  # The database has no keys yet, so another service works.


def test_keys_work_without_their_service_until_they_expire(database: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    settings = make_key(file)

    async def do(opened: Database, _: Keyring | None) -> None:
        now = 1000.0
        keyring = Keyring([FileKeyService(file)], 60.0, lambda: now)
        async with opened.reading() as connection:
            await keyring.load(connection)
        opened.set_option(OPTION, keyring)
        async with opened.writing() as connection:
            await create(connection, "acme")
        file.rename(tmp_path / "away")
        now += 59.0
        with pytest.raises(KeysUnavailableError, match="cannot be read"):
            await refresh_keyring(opened, keyring)
        async with opened.reading() as connection:
            assert await read(connection, "acme") == expected("acme")
        now += 1.0
        assert keyring.find_gap() is not None
        with pytest.raises(KeysUnavailableError):
            async with opened.reading() as connection:
                await read(connection, "acme")
        with pytest.raises(KeysUnavailableError):
            async with opened.writing() as connection:
                await create(connection, "bolt")
        (tmp_path / "away").rename(file)
        await refresh_keyring(opened, keyring)
        async with opened.reading() as connection:
            assert await read(connection, "acme") == expected("acme")
            assert await customers.find_row(connection, "bolt") is None, "nothing was written in the clear"

    run(database, settings, do)


def test_alert_without_keys_is_raised_but_stores_no_webhook_in_the_clear(database: str, tmp_path: Path) -> None:
    """Batches of edges are accepted without the key service, and their alerts must be raised."""
    file = tmp_path / "key"
    settings = make_key(file)

    def build_alert(key: str) -> Alert:
        return Alert(key=key, kind=AlertKind.REQUEST_CAP_EXCEEDED, title="too dear", at=1.0, customer="acme")

    async def do(opened: Database, _: Keyring | None) -> None:
        now = 1000.0
        keyring = Keyring([FileKeyService(file)], 60.0, lambda: now)
        await refresh_keyring(opened, keyring)
        opened.set_option(OPTION, keyring)
        async with opened.writing() as connection:
            await create(connection, "acme")
            owner = await customers.get_row(connection, "acme")
            names = ("old_secret", "old_secret_until", "types", "description", "disabled_why", "failing_since")
            row = {
                "id": "we_1",
                "customer": owner.id,
                "url": "https://a.example",
                "secret": b"",
                **dict.fromkeys(names),
            }
            row |= {"state": "enabled", "created_at": 1, "version": 1}
            await connection.execute(
                sa.insert(webhook_endpoints), await seal_rows(connection, "webhook_endpoints", [row])
            )
            assert await raise_once(connection, build_alert("one"))
        now += 60.0
        async with opened.writing() as connection:
            assert await raise_once(connection, build_alert("two"))
        async with opened.reading() as connection:
            bodies = (await connection.execute(sa.select(webhook_messages.c.body))).scalars().all()
        assert [body.startswith("enc1:") for body in bodies] == [True]

    run(database, settings, do)


@pytest.mark.both_databases
def test_end_user_secrets_are_sealed_without_changing_their_values(database: str, tmp_path: Path) -> None:
    settings = make_key(tmp_path / "key")

    async def fetch_stored(connection: AsyncConnection) -> dict[str, bytes]:
        rows = await connection.execute(sa.select(end_user_secrets.c.customer, end_user_secrets.c.secret))
        return {row.customer: row.secret for row in rows}

    async def fill(opened: Database, _: Keyring | None) -> dict[str, bytes]:
        async with opened.writing() as connection:
            await create(connection, "acme")
            return await get_or_create_secrets(connection, ["acme", "of-a-file"])

    async def seal(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            assert await get_or_create_secrets(connection, before) == before, "in the clear it is used all the same"
        assert await seal_clear_secrets(opened) == 2
        assert await seal_clear_secrets(opened) == 0
        async with opened.writing() as connection:
            after = await get_or_create_secrets(connection, [*before, "later"])
            await create(connection, "of-a-file")  # A customer from the configuration file now has an id.
            assert {one: after[one] for one in before} == before
            assert await fetch_secrets(connection, [*after]) == after
            stored = await fetch_stored(connection)
            assert stored.keys() == after.keys()
            for one, value in stored.items():
                assert value.startswith(b"enc1:")
                assert after[one] not in value
                assert after[one].hex().encode() not in value
            moved = sa.update(end_user_secrets).where(end_user_secrets.c.customer == "later")
            await connection.execute(moved.values(secret=stored["acme"]))
            with pytest.raises(SealedValueError):
                await fetch_secrets(connection, ["later"])
            opened.set_option(OPTION, Keyring([], 0.0))
        async with opened.writing() as connection:
            with pytest.raises(KeysUnavailableError):
                await get_or_create_secrets(connection, ["acme"])
            with pytest.raises(KeysUnavailableError):
                await get_or_create_secrets(connection, ["new"])

    before = run(database, None, fill)
    run(database, settings, seal)


# ---- rows from before the encryption, and rotation


def test_clear_rows_are_readable_searchable_and_then_sealed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "ROWS_MAX", 10)
    names = [f"c{number}" for number in range(contacts.CUSTOMERS_MAX + 3)]

    async def fill(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            for name in names:
                await create(connection, name)

    async def seal(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            assert await read(connection, "c7") == expected("c7")
            assert len(await contacts.list_customers(connection, EMAIL)) == contacts.CUSTOMERS_MAX
            change = UpdateCustomerRequest.model_validate({"metadata": {"note": f"{NOTE} c7"}, "external_id": "new"})
            await customers.update_customer(connection, CALLER, "c7", change, SETTINGS)
            taken = UpdateCustomerRequest.model_validate({"external_id": "crm-c8"})
            with pytest.raises(ChangeRejectedError, match="external_id"):
                await customers.update_customer(connection, CALLER, "c7", taken, SETTINGS)
            half = UpdateCustomerRequest.model_validate({"metadata": {"note": f"{NOTE} c6", "more": "text"}})
            await customers.update_customer(connection, CALLER, "c6", half, SETTINGS)
        assert await migration.seal_clear_rows(opened) == 3 * len(names) - 1, "all but the row of c7"
        assert await migration.seal_clear_rows(opened) == 0
        async with opened.writing() as connection:
            assert {one.clear for one in await migration.fetch_status(connection)} == {0}
            stored = await fetch_stored(connection)
            assert not [one for one in (EMAIL, NOTE, "crm-", "other@") if one in stored]
            assert await read(connection, "c7") == ("new", *expected("c7")[1:])
            assert (await customers.get_row(connection, "c6")).external_id == "crm-c6"
            for name in names[8:]:
                assert await read(connection, name) == expected(name)

    run(database, None, fill)
    run(database, make_key(tmp_path / "key"), seal)


def test_rotation_to_another_master_key_makes_the_first_useless(database: str, tmp_path: Path) -> None:
    first = make_key(tmp_path / "first")
    make_key(tmp_path / "second")
    both = Encryption.model_validate({"file": str(tmp_path / "second"), "old": [{"file": str(tmp_path / "first")}]})
    second = Encryption.model_validate({"file": str(tmp_path / "second")})

    async def fill(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")

    async def rotate(opened: Database, keyring: Keyring | None) -> None:
        assert keyring is not None
        other = await Database.connect(database)  # A second collector, which has unwrapped the first key.
        await open_keyring(other, both)
        assert await migration.rotate_keys(opened, keyring) == (2, 1)
        async with other.writing() as connection:
            assert await read(connection, "acme") == expected("acme")
            await create(connection, "bolt")
        await other.close()
        async with opened.reading() as connection:
            assert await read(connection, "bolt") == expected("bolt")
            assert await migration.fetch_data_key_counts(connection) == {2: 2}

    async def look(opened: Database, _: Keyring | None) -> None:
        async with opened.reading() as connection:
            assert await read(connection, "acme") == expected("acme")
            assert await contacts.list_customers(connection, EMAIL) == ["acme", "bolt"], "hashes are as they were"

    run(database, first, fill)
    run(database, both, rotate)
    run(database, second, look)
    with pytest.raises(UnusableDatabaseError, match="another master key"):
        run(database, first, look)


@only_sqlite("database")
def test_unreadable_data_key_does_not_block_sealing_or_rotation(database: str, tmp_path: Path) -> None:
    settings = make_key(tmp_path / "master.key")

    async def write_clear(connection: AsyncConnection) -> None:
        for name in ("acme", "bolt"):
            clear = {"metadata": "{}", "external_id": f"new-{name}", "external_id_sealed": None}
            of_name = sa.update(customers_table).where(customers_table.c.name == name)
            await connection.execute(of_name.values(**clear))

    async def damage(opened: Database, _: Keyring | None) -> bytes:
        async with opened.writing() as connection:
            for name in ("acme", "bolt"):
                await create(connection, name)
            id_ = (await customers.get_row(connection, "acme")).id
            row = (await connection.execute(sa.select(data_keys).where(data_keys.c.customer == id_))).one()
            await connection.execute(sa.update(data_keys).where(data_keys.c.customer == id_).values(wrapped=b"poison"))
            await connection.execute(sa.update(contacts_table).values(domain=None))
            await write_clear(connection)
            return bytes(row.wrapped)

    wrapped = run(database, settings, damage)

    async def do(opened: Database, keyring: Keyring | None) -> None:
        assert keyring is not None
        sealed = await migration.seal_clear_rows(opened)
        assert sealed >= 2, "the domains and the customer of bolt"
        first, count = await migration.rotate_keys(opened, keyring)
        second, _ = await migration.rotate_keys(opened, keyring)
        assert second == first + 1, "an unreadable row is not an interrupted rotation"
        async with opened.writing() as connection:
            assert (await read(connection, "bolt"))[0] == "new-bolt"
            counts = await migration.fetch_data_key_counts(connection)
            assert sorted(counts.values()) == [1, count], "the key of the unreadable one stays"
            assert counts[second] == count
            await connection.execute(
                sa.update(data_keys).where(data_keys.c.encryption_key < second).values(wrapped=wrapped)
            )
        third, rewrapped = await migration.rotate_keys(opened, keyring)
        assert (third, rewrapped) == (second, 1)
        async with opened.reading() as connection:
            assert await migration.fetch_data_key_counts(connection) == {second: count + 1}
            assert len(await contacts.list_contacts(connection, "acme")) == 2

    run(database, settings, do)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_rotation_rewraps_a_data_key_created_during_it(database: str, tmp_path: Path) -> None:
    settings = make_key(tmp_path / "key")

    async def rotate(opened: Database, keyring: Keyring | None) -> None:
        assert keyring is not None
        other = await Database.connect(database)
        await open_keyring(other, settings)
        async with opened.writing() as connection:
            await create(connection, "acme")
        async with asyncio.TaskGroup() as group, other.writing() as unseen:
            await create(unseen, "bolt")
            rotation = group.create_task(migration.rotate_keys(opened, keyring))
            async with asyncio.timeout(20), other.reading() as connection:
                waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                while not (await connection.execute(waits)).scalar_one():
                    assert not rotation.done()
                    await asyncio.sleep(0.01)
        assert rotation.result() == (2, 2)
        await other.close()
        async with opened.reading() as connection:
            assert await migration.fetch_data_key_counts(connection) == {2: 2}
            assert await read(connection, "bolt") == expected("bolt")

    run(database, settings, rotate)


# ---- the audit log


@pytest.mark.both_databases
def test_audit_details_of_a_customer_are_unreadable_after_its_erasure(database: str, tmp_path: Path) -> None:
    person = Caller(f"contact:{EMAIL}")

    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            change = UpdateCustomerRequest.model_validate({"metadata": {"note": "another note"}})
            await customers.update_customer(connection, person, "acme", change, SETTINGS)
            await audit.append_entry(connection, person, audit.AuditEntry("session.begin", person.actor))
        with serving("acme"):
            async with opened.writing() as connection:
                change = UpdateCustomerRequest.model_validate({"metadata": {"note": "a third note"}})
                await customers.update_customer(connection, person, "acme", change, SETTINGS)
        async with opened.writing() as connection:
            stored = str((await connection.execute(sa.select(audit_table))).all())
            assert not [one for one in (EMAIL, NOTE, "crm-", "other@", "another note", "third note") if one in stored]
            entries = await audit.list_entries(connection, 0, 100)
            assert [entry["after"] for entry in entries if entry["action"] == "customer.contacts"] == [
                {"emails": expected("acme")[2]}
            ]
            assert "third note" in str(entries), "an authorized reader decrypts the entry"
            theirs = await audit.list_entries(connection, 0, 100, actor=person.actor)
            assert [entry["action"] for entry in theirs] == ["customer.change", "session.begin", "customer.change"]
            # Details that were moved to another entry are unreadable.
            row = (await connection.execute(sa.select(audit_table).where(audit_table.c.seq == 1))).one()
            wrong = Details("customer.change", row.target, None, row.after)
            (unreadable,) = await open_details(connection, [wrong])
            assert unreadable.after == UNREADABLE_DETAILS
        async with opened.writing() as connection:
            await erase_customers(connection, CALLER, [await customers.get_row(connection, "acme", lock=True)])
        async with opened.writing() as connection:
            entries = await audit.list_entries(connection, 0, 100)
            assert NOTE not in str(entries)
            assert EMAIL not in str(entries)
            assert entries[0]["after"] == {"erased": True}
            assert entries[-1]["after"] == {"state": "deleted"}
            assert await audit.verify_chain(connection) == len(entries) == 6
            assert (await connection.execute(sa.select(data_keys))).all() == []

    run(database, make_key(tmp_path / "key"), do)


def test_audit_text_about_a_customer_is_sealed_and_erased_with_it(database: str, tmp_path: Path) -> None:
    said = "said by ada@acme.example"

    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            id_ = (await customers.get_row(connection, "acme")).id
            await keys.create_key(connection, CALLER, "acme", CreateKeyRequest(name=said))
            alert = alert_handling.AlertSubject(7, AlertKind.QUOTA_REACHED, "acme")
            await alert_handling.acknowledge(connection, CALLER, alert, "operator", said, 1000)
            await alert_handling.assign(connection, CALLER, alert, "operator", said, 1000)
            await alert_handling.assign(connection, CALLER, alert, "operator", None, 1000)
            await audit.append_entry(connection, CALLER, AuditEntry("invoice.hold", "in_1", None, {"why": said}, id_))
            await audit.append_entry(connection, CALLER, AuditEntry("flag.put", "acme", None, {"percent": 5}))
        async with opened.writing() as connection:
            stored = str((await connection.execute(sa.select(audit_table))).all())
            assert said not in stored
            assert '{"percent":5}' in stored, "a flag that is called like a customer is none"
            entries = await audit.list_entries(connection, 0, 100)
            assert [said in str(entry) for entry in entries if entry["action"] != "customer.create"].count(True) == 5
            assert entries[-3]["before"] == {"to": said}
            archive = io.BytesIO()
            await write_archive(connection, await customers.get_row(connection, "acme"), archive)
            with zipfile.ZipFile(archive) as read:
                exported = orjson.loads(read.read("json/audit.json"))
            assert sum(said in f"{load['before']}{load['after']}" for load in exported) == 5
        async with opened.writing() as connection:
            await erase_customers(connection, CALLER, [await customers.get_row(connection, "acme", lock=True)])
        async with opened.writing() as connection:
            entry = AuditEntry("alert.mute", "7", None, {"why": said}, "acme")
            await audit.append_entry(connection, CALLER, entry)
        async with opened.reading(whole=True) as connection:
            entries = await audit.list_entries(connection, 0, 100)
            assert said not in str(entries)
            assert entries[-1]["after"] == {"erased": True}, "said after the erasure"
            assert await audit.verify_chain(connection) == len(entries)

    run(database, make_key(tmp_path / "key"), do)


def test_audit_details_are_sealed_for_customers_and_clear_for_operators(database: str, tmp_path: Path) -> None:
    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            plan = AuditEntry("subscription.create", "acme", None, {"plan": "theirs-as-agreed"})
            await audit.append_entry(connection, CALLER, plan)
            for name, whose in (("theirs", {"customer": "acme"}), ("ours", {"role": "read"})):
                new = CreateTokenRequest.model_validate({"name": f"{name}-token", **whose})
                await create_token(connection, CALLER, new, ())
                await add_secret(connection, CALLER, new.name, 0)
                await revoke_token(connection, CALLER, new.name)
        async with opened.writing() as connection:
            rows = (await connection.execute(sa.select(audit_table))).all()
            details = [f"{row.before}{row.after}" for row in rows if row.action != "customer.create"]
            assert not [detail for detail in details if "theirs" in detail]
            assert len([detail for detail in details if "ours-token" in detail]) == 2, "made and revoked"
            read = str(await audit.list_entries(connection, 0, 100))
            assert read.count("theirs-as-agreed") == 1
            assert read.count("'customer': 'acme'") == 2
            await erase_customers(connection, CALLER, [await customers.get_row(connection, "acme", lock=True)])
        async with opened.writing() as connection:
            left = str(await audit.list_entries(connection, 0, 100))
            assert "theirs-as-agreed" not in left
            assert "'customer': 'acme'" not in left
            assert "'role': 'read'" in left

    run(database, make_key(tmp_path / "key"), do)


def test_late_contact_of_an_erased_customer_stays_out_of_the_audit_log(database: str, tmp_path: Path) -> None:
    late = "late@acme.example"

    async def do(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")
            await erase_customers(connection, CALLER, [await customers.get_row(connection, "acme", lock=True)])
        async with opened.writing() as connection:
            body = contacts.Contacts.model_validate({"emails": [late]})
            with pytest.raises(AccountStateError, match="was deleted"):
                await contacts.put_contacts(connection, CALLER, "acme", body)
            # A concurrent transaction, invisible to the erasure, may insert this:
            row = {"email": late, "customer": (await customers.get_row(connection, "acme")).id, "role": "owner"}
            sealed = await seal_rows(connection, contacts_table.name, [row])
            await connection.execute(sa.insert(contacts_table), sealed)
            entry = AuditEntry("customer.contacts", "acme", {"emails": []}, {"emails": [late]})
            await audit.append_entry(connection, CALLER, entry)
        async with opened.writing() as connection:
            stored = str((await connection.execute(sa.select(audit_table))).all())
            assert late not in stored
            keys = (await connection.execute(sa.select(data_keys))).all()
            assert len(keys) == 1, "the customer has a new data key that decrypts no earlier entry"
            entries = await audit.list_entries(connection, 0, 100)
            assert [entry["after"] for entry in entries if entry["action"] == "customer.contacts"] == [
                {"erased": True}
            ] * 2
            assert await audit.verify_chain(connection) == len(entries)
            await write_archive(connection, await customers.get_row(connection, "acme"), io.BytesIO())
        async with opened.writing() as connection:
            erased = await customers.get_row(connection, "acme")
            await erase_late_rows(connection, [ErasedCustomer(erased.id, erased.name)])
            assert (await connection.execute(sa.select(data_keys))).all() == [], "nor is the new one kept"
            assert late not in str(await audit.list_entries(connection, 0, 100))

    run(database, make_key(tmp_path / "key"), do)
