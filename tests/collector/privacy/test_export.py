"""The export of a customer has its data by the map, no other customer's data, no secrets, and a manifest."""

import asyncio
import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.billing.credits.credits import book_gift
from edgeproxy.collector.database.alert_tables import alert_mutes
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.marks import Subject
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.collector.privacy import export as export_module
from edgeproxy.collector.privacy.export import (
    MANIFEST,
    NOT_EXPORTED,
    SECRETS,
    SELECTED,
    ArchiveTooLargeError,
    write_archive,
)
from edgeproxy.config.collector.encryption import Encryption
from tests.support.planted import find_value, list_planted, marker, plant

CALLER = Caller("ops")
Content = dict[str, bytes]


@pytest.fixture(autouse=True)
def _many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each table in several parts."""
    monkeypatch.setattr(export_module, "ROWS_AT_ONCE", 2)


@pytest.fixture(params=[False, True], ids=["in the clear", "encrypted"])
def encryption(request: pytest.FixtureRequest, tmp_path: Path) -> Encryption | None:
    """Return the encryption settings of a database, or None for one without encryption."""
    key = tmp_path / "master.key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    return Encryption.model_validate({"file": str(key)}) if request.param else None


def export(
    url: str, encryption: Encryption | None, fill: Callable[[AsyncConnection], Awaitable[None]], *, is_own: bool = False
) -> Content:
    """Fill a database with customers, and return the files of the archive of one."""
    file = io.BytesIO()

    async def do() -> None:
        opened = await Database.connect(url)
        try:
            await open_keyring(opened, encryption)
            async with opened.writing() as connection:
                await plant(connection)
                await fill(connection)
            async with opened.writing() as connection:
                acme = await customers.get_row(connection, "acme")
                with pytest.raises(ArchiveTooLargeError):
                    await write_archive(connection, acme, io.BytesIO(), bytes_max=1000)
                assert await write_archive(connection, acme, file, is_own=is_own)
                stored = str((await connection.execute(sa.select(customers_table))).all())
                assert (marker("customers", "metadata", "acme") in stored) == (encryption is None)
        finally:
            await opened.close()

    asyncio.run(do())
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def write_about_two(connection: AsyncConnection) -> None:
    """Write audit entries about two customers. They name the customers in every possible way."""
    for name in ("acme", "bolt"):
        text = f"of {name}, by hand"
        event = orjson.loads(orjson.dumps({"customer": name, "dimensions": {"customer": "acme"}, "id": text}))
        ids = {one: str(find_value(one, "id", name)) for one in ("customers", "invoices", "alerts")}
        for entry in (
            AuditEntry("customer.change", name, None, {"metadata": {"customer": "acme", "note": text}}),
            AuditEntry("key.create", f"{name}/key-1", None, {"name": text}),
            AuditEntry("key.create", f"{name}-2/key-1", None, {"name": "another with half of the name"}),
            AuditEntry("billing.portal", ids["customers"], None, {"session": text}, name),
            AuditEntry("invoice.hold", ids["invoices"], None, {"why": text}, name),
            AuditEntry("alert.mute", ids["alerts"], None, {"why": text}, name),
            AuditEntry("token.create", str(find_value("tokens", "name", name)), None, {"name": text}, name),
            AuditEntry("token.revoke", "gone", {"customer": name, "name": text}, None, name),
            AuditEntry("session.begin", f"contact:ada@{name}", None, {"customer": name, "role": text}, name),
            AuditEntry("dead_letter.discard", "1", {"event": event, "error": "late"}, {"why": text}, name),
        ):
            await audit.append_entry(connection, CALLER, entry)


def test_export_has_each_marked_column_and_no_data_of_others(database: str, encryption: Encryption | None) -> None:
    content = export(database, encryption, write_about_two)
    manifest = orjson.loads(content.pop(MANIFEST))
    assert {file["path"]: (file["bytes"], file["sha256"]) for file in manifest["files"]} == {
        name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in content.items()
    }
    everything = b"\n".join(content.values())
    assert b".bolt" not in everything
    for table in list_planted():
        if TABLES[table.name].owner is None:
            continue
        rows = orjson.loads(content[f"json/{table.name}.json"])
        lines = list(csv.reader(io.StringIO(content[f"csv/{table.name}.csv"].decode(), newline="")))
        assert len(rows) == len(lines) - 1 == 1, table.name
        assert list(rows[0]) == lines[0]
        ciphertexts = set(SEALED[table.name].unread) if table.name in SEALED else set()
        hidden = SECRETS.get(table.name, frozenset()) | ciphertexts
        assert set(rows[0]) == {column.name for column in table.columns} - hidden
        for column in TABLES[table.name].personal.keys() - ciphertexts:
            value = find_value(table.name, column, "acme")
            text = value.decode() if isinstance(value, bytes) else str(value)
            assert "acme" in text
            assert rows[0][column] in (text, text.encode().hex()), (table.name, column)
        for column in SECRETS.get(table.name, ()):
            assert marker(table.name, column, "acme").encode() not in everything
    letters = orjson.loads(content["json/dead_letters.json"])
    assert sorted(orjson.loads(letter["event"])["id"].split(".")[2] for letter in letters) == ["cloud", "own"]


def test_export_has_each_audit_entry_about_the_customer(database: str, encryption: Encryption | None) -> None:
    entries = orjson.loads(export(database, encryption, write_about_two)["json/audit.json"])
    assert [(entry["action"], "of acme, by hand" in f"{entry['before']}{entry['after']}") for entry in entries] == [
        (action, True)
        for action in (
            *("customer.change", "key.create", "billing.portal", "invoice.hold", "alert.mute"),
            *("token.create", "token.revoke", "session.begin", "dead_letter.discard"),
        )
    ]


async def act_on_both_sides(connection: AsyncConnection) -> None:
    """Let an operator, a contact and a token change a customer, and let both sides mute its alerts.

    Another operator gives it credits with a reason.
    """
    acme, noted = str(find_value("customers", "id", "acme")), Caller("operator:linus")
    await connection.execute(sa.delete(credit_entries))
    await connection.execute(sa.delete(credit_transactions))
    await book_gift(connection, noted, acme, "gift-1", 1000, "grace wants them quiet", None, "usd")
    token = str(find_value("tokens", "name", "acme"))
    for actor in ("operator:grace", "contact:ada@acme.example", token):
        entry = AuditEntry("limits.raise", "acme", None, {"why": f"said by {actor}"}, "acme")
        await audit.append_entry(connection, Caller(actor), entry)
    for side, by in (("operator", "operator:linus"), ("customer", "contact:bob@acme.example")):
        mute = {"customer": "acme", "side": side, "kind": "payment_failed", "until": 1, "by": by, "muted_at": 1}
        await connection.execute(sa.insert(alert_mutes), mute)


def test_customers_own_export_omits_operators(database: str, encryption: Encryption | None) -> None:
    content = export(database, encryption, act_on_both_sides, is_own=True)
    said = [load["after"] for load in orjson.loads(content["json/audit.json"])]
    assert [text and orjson.loads(text)["why"] for text in said] == [
        None,
        None,
        "said by contact:ada@acme.example",
        f"said by {find_value('tokens', 'name', 'acme')}",
    ]
    assert [load["by"] for load in orjson.loads(content["json/alert_mutes.json"])] == ["contact:bob@acme.example"]
    (given,) = orjson.loads(content["json/credit_transactions.json"])
    assert (given["kind"], given["amount"], given["details"]) == ("gift", 1000, "{}")
    assert not [name for name, body in content.items() if b"grace" in body or b"linus" in body]


def test_each_table_without_export_has_a_reason() -> None:
    about_customers = {Subject.CUSTOMER, Subject.END_USER}
    without_owner = {
        name
        for name, entry in TABLES.items()
        if entry.owner is None and about_customers & {data.subject for data in entry.personal.values()}
    }
    assert without_owner == {*SELECTED, *NOT_EXPORTED}
