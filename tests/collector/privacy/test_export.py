"""The export of a customer: all that the map names, nothing of others, no secrets, and a manifest that proves it."""

import asyncio
import csv
import hashlib
import io
import zipfile

import orjson

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.privacy.export import MANIFEST, SECRETS, write_archive
from tests.support.planted import list_planted, marker, plant


def test_an_export_has_each_marked_column_and_nothing_of_others(database: str) -> None:
    file = io.BytesIO()

    async def do() -> dict[str, int]:
        opened = await Database.connect(database)
        try:
            async with opened.writing() as connection:
                await plant(connection)
                for target in ("acme", "acme/key-1", "acme-2", "bolt"):
                    after = {"external_id": f"of {target}"}
                    await audit.append_entry(connection, Caller("ops"), AuditEntry("key.create", target, None, after))
            async with opened.reading(whole=True) as connection:
                return await write_archive(connection, await customers.get_row(connection, "acme"), file)
        finally:
            await opened.close()

    counts = asyncio.run(do())
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    manifest = orjson.loads(content.pop(MANIFEST))
    assert {one["path"]: (one["bytes"], one["sha256"]) for one in manifest["files"]} == {
        name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in content.items()
    }
    everything = b"\n".join(content.values())
    assert b".bolt" not in everything
    for table in list_planted():
        if TABLES[table.name].owner is None:
            continue
        rows = orjson.loads(content[f"json/{table.name}.json"])
        lines = list(csv.reader(io.StringIO(content[f"csv/{table.name}.csv"].decode(), newline="")))
        assert len(rows) == len(lines) - 1 == counts[table.name] == 1, table.name
        assert list(rows[0]) == lines[0]
        ciphertexts = set(SEALED[table.name].looked_up.values()) if table.name in SEALED else set()
        hidden = SECRETS.get(table.name, frozenset()) | ciphertexts
        assert set(rows[0]) == {column.name for column in table.columns} - hidden
        for column in TABLES[table.name].personal.keys() - ciphertexts:
            planted = marker(table.name, column, "acme")
            assert "acme" in str(rows[0][column]) or bytes.fromhex(rows[0][column]) == planted.encode(), column
        for column in SECRETS.get(table.name, ()):
            assert marker(table.name, column, "acme").encode() not in everything
    assert [row["target"] for row in orjson.loads(content["json/audit.json"])] == ["acme", "acme/key-1"]
