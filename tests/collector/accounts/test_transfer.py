"""Import of files into the database, and export into files."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import audit, customers, flags, keys, leaked_keys, transfer
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import directory_outbox
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Flag
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import read, run, write
from tests.support.interleaved import interleave

ME = Caller("me")
TIERS = f"""\
tokens: [{{sha256: "{"a" * 64}", role: admin}}]
meters: {{requests: {{count: requests}}}}
tiers: {{basic: {{limits: [{{rate: 60/min}}]}}, pro: {{}}}}
"""
ACCOUNTS = f"""\
customers:
  acme: {{tier: pro, flags: [beta], message: "say: 'no' \\"x\\""}}
  "007": {{tier: basic, limits: [{{rate: 5/s, burst: 3, algorithm: token_bucket}}], concurrency: none, priority: 3}}
  late: {{tier: basic, paused: {{why: unpaid, status: 402}}, regions: {{allow: [eu], prefer: eu}}, burst_credits: off}}
  busy: {{tier: pro, quotas: [{{meter: requests, per: day, included: 5, timezone: Europe/Berlin}}], limits: []}}
keys:
  - {{sha256: "{"1" * 64}", customer: acme, scopes: [read, "a:b"], expires: "2031-01-01T12:00:00.125Z"}}
  - {{sha256: "{"2" * 64}", customer: acme, limits: [{{rate: 9/min}}], expires: 2001-01-01}}
  - {{sha256: "{"3" * 64}", customer: "007", scopes: []}}
flags:
  beta: {{percent: 12, tiers: [pro], customers: ["007"]}}
"""


def settings(folder: Path, accounts: str) -> CollectorSettings:
    file = folder / "collector.yaml"
    file.write_text(TIERS + accounts)
    return load_collector(file, {})


async def export(database: Database) -> str:
    async with database.reading(whole=True) as connection:
        return "".join([line + "\n" async for line in transfer.export_lines(connection)])


async def state(database: Database) -> tuple[int, int]:
    """Verify the audit chain. Return the numbers of audit entries and of changes that wait for edges."""
    async with database.reading(whole=True) as connection:
        outbox = (await connection.execute(sa.select(sa.func.count()).select_from(directory_outbox))).scalar_one()
        return await audit.verify_chain(connection), outbox


def same(one: CollectorSettings, other: CollectorSettings) -> bool:
    def by_digest(some: CollectorSettings) -> Any:
        return sorted(some.keys, key=lambda key: key.sha256)

    return (one.customers, by_digest(one), one.flags) == (other.customers, by_digest(other), other.flags)


@pytest.mark.both_databases
def test_export_returns_the_imported_settings(database: str, tmp_path: Path) -> None:
    async def work(opened: Database) -> None:
        files = settings(tmp_path, ACCOUNTS)
        dry = await transfer.import_settings(opened, files, ME, dry=True)
        assert await state(opened) == (0, 0)
        done = await transfer.import_settings(opened, files, ME, dry=False)
        assert done == dry
        assert [part.added for part in done.values()] == [4, 3, 1]
        assert await state(opened) == (8, 7)  # All keys of a customer are one change for edges.
        out = await export(opened)
        assert same(settings(tmp_path, out), files)

        again = await transfer.import_settings(opened, settings(tmp_path, out), ME, dry=False)
        assert [part[:3] for part in again.values()] == [(0, 0, 4), (0, 0, 3), (0, 0, 1)]
        assert await state(opened) == (8, 7)
        assert await export(opened) == out

        other = ACCOUNTS.replace("tier: pro, flags", "tier: basic, flags").replace("percent: 12", "percent: 13")
        changed = await transfer.import_settings(opened, settings(tmp_path, other), ME, dry=False)
        assert [part.changed for part in changed.values()] == [1, 0, 1]
        assert await state(opened) == (10, 9)

    run(database, work)


PSEUDONYM = "c-0193e4a0-7c6b-7d2e-8f3a-1b2c3d4e5f60"
WITH_PSEUDONYMS = f"""\
privacy: {{pseudonyms: true}}
customers:
  {PSEUDONYM}: {{tier: pro, flags: [beta]}}
  {PSEUDONYM[:-1]}1: {{tier: basic}}
keys:
  - {{sha256: "{"1" * 64}", customer: {PSEUDONYM}}}
flags:
  beta: {{customers: [{PSEUDONYM}]}}
accounts:
  {PSEUDONYM}: {{name: Zephyr, external_id: crm-17, metadata: {{alert_email: z@example.com}}, rotate_every: 90d}}
  {PSEUDONYM[:-1]}1: {{name: Boreas}}
"""
FACTS = {"metadata": {"alert_email": "a@example.com"}, "external_id": "crm-1", "rotate_every": "12h"}


@pytest.mark.both_databases
@pytest.mark.parametrize("pseudonyms", [False, True])
def test_exported_accounts_are_restored_in_another_database(
    database: str, postgresql: Postgresql, tmp_path: Path, pseudonyms: bool
) -> None:
    """The database gets the accounts by the API. Customers with a pseudonym keep it, so their usage stays theirs."""
    privacy = f"privacy: {{pseudonyms: {str(pseudonyms).lower()}}}\n"
    exported: list[str] = []

    async def fill(opened: Database) -> None:
        site = settings(tmp_path, privacy)
        for name, facts in (("acme", FACTS), ("bolt", {})):
            async with opened.writing() as connection:
                new = CreateCustomerRequest.model_validate({"name": name, "tier": "pro", **facts})
                await customers.create_customer(connection, ME, new, site)
                await keys.create_key(connection, ME, name, CreateKeyRequest.model_validate({}))
        exported.append(await export(opened))

    async def restore(opened: Database) -> None:
        files = settings(tmp_path, privacy + exported[0])
        done = await transfer.import_settings(opened, files, ME, dry=False)
        assert [(part.added, part.refused) for part in done.values()] == [(2, ()), (2, ()), (0, ())]
        assert await export(opened) == exported[0]
        again = await transfer.import_settings(opened, files, ME, dry=False)
        assert [part[:3] for part in again.values()] == [(0, 0, 2), (0, 0, 2), (0, 0, 0)]
        async with opened.reading() as connection:
            for name, facts in (("acme", FACTS), ("bolt", {})):
                row = await customers.get_row(connection, name)
                assert (row.external_id, row.name == name) == (facts.get("external_id"), not pseudonyms)
            for_edges = "".join([line async for line in transfer.export_lines(connection, for_edges=True)])
        assert ("acme" in for_edges, "crm-1" in for_edges) == (not pseudonyms, False)

    run(database, fill)
    run(postgresql.database() if database.startswith("postgresql") else f"sqlite:///{tmp_path}/other.db", restore)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privacy: {pseudonyms: true}\n": ""}, "has a pseudonym: write privacy: {pseudonyms: true}"),
        ({"name: Zephyr, ": ""}, "the name has the form of a pseudonym, and accounts does not tell its name"),
        ({"name: Zephyr": "name: Boreas"}, "another customer of the files has this name"),
        ({"rotate_every: 90d": "rotate_every: soon"}, "'soon' is not a number with a unit"),
        ({"external_id: crm-17": f'external_id: "{"x" * 300}"'}, "cannot be used"),
        ({"metadata: {alert_email: z@example.com}": 'metadata: {"": x}'}, "'' is no name"),
        ({"{name: Boreas": "{name: Boreas, external_id: crm-17"}, "another customer of the files has this external_id"),
    ],
)
def test_refused_account_leaves_the_others(tmp_path: Path, changes: dict[str, str], why: str) -> None:
    accounts = WITH_PSEUDONYMS
    for old, new in changes.items():
        accounts = accounts.replace(old, new)

    async def work(opened: Database) -> None:
        done = await transfer.import_settings(opened, settings(tmp_path, accounts), ME, dry=False)
        refused = done["customers"].refused
        assert why in refused[0]
        assert done["customers"].added == 2 - len(refused)

    run(f"sqlite:///{tmp_path}/ledger.db", work)


def test_dry_run_refuses_the_same_rows_as_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the customers are in two batches."""
    monkeypatch.setattr(transfer, "AT_ONCE", 1)
    accounts = WITH_PSEUDONYMS.replace("{name: Boreas", "{name: Boreas, external_id: crm-17")

    async def work(opened: Database) -> None:
        dry = await transfer.import_settings(opened, settings(tmp_path, accounts), ME, dry=True)
        assert dry == await transfer.import_settings(opened, settings(tmp_path, accounts), ME, dry=False)
        assert len(dry["customers"].refused) == 1

    run(f"sqlite:///{tmp_path}/ledger.db", work)


def test_import_changes_the_facts_of_a_customer_but_no_name(tmp_path: Path) -> None:
    async def work(opened: Database) -> None:
        await transfer.import_settings(opened, settings(tmp_path, WITH_PSEUDONYMS), ME, dry=False)
        changed = WITH_PSEUDONYMS.replace("crm-17", "crm-18").replace("z@example", "y@example")
        done = await transfer.import_settings(opened, settings(tmp_path, changed), ME, dry=False)
        assert done["customers"] == transfer.ImportResult(0, 1, 1)
        async with opened.reading() as connection:
            row = await customers.get_row(connection, "Zephyr")
        assert (row.name, row.external_id, "y@example" in row.metadata) == (PSEUDONYM, "crm-18", True)
        entry = next(one for one in await read(opened, audit.list_entries, 0, 9) if one["action"] == "customer.change")
        assert (entry["before"]["external_id"], entry["after"]["external_id"]) == ("crm-17", "crm-18")
        without = WITH_PSEUDONYMS[: WITH_PSEUDONYMS.index("accounts:")]
        done = await transfer.import_settings(opened, settings(tmp_path, without), ME, dry=False)
        assert done["customers"] == transfer.ImportResult(0, 0, 2)
        renamed = WITH_PSEUDONYMS.replace("Zephyr", "Notus").replace("Boreas, ", "")
        done = await transfer.import_settings(opened, settings(tmp_path, renamed), ME, dry=False)
        why = "has another name in the database, and names cannot be changed"
        assert done["customers"].refused == (f"customer {PSEUDONYM}: {why}",)
        less = f"{without}accounts:\n  {PSEUDONYM}: {{name: Zephyr, rotate_every: 30d}}\n"
        done = await transfer.import_settings(opened, settings(tmp_path, less), ME, dry=False)
        assert done["customers"] == transfer.ImportResult(0, 1, 1)
        async with opened.reading() as connection:
            row = await customers.get_row(connection, "Zephyr")
        assert (row.external_id, "y@example" in row.metadata, row.rotate_every) == ("crm-18", True, 30 * 86_400)
        taken = f"{less}  {PSEUDONYM[:-1]}1: {{name: Boreas, external_id: crm-18}}\n"
        done = await transfer.import_settings(opened, settings(tmp_path, taken), ME, dry=False)
        assert "there is a customer with this external_id already" in str(done["customers"].refused)

    run(f"sqlite:///{tmp_path}/ledger.db", work)


def test_import_restores_no_revoked_key_and_no_deleted_customer(database: str, tmp_path: Path) -> None:
    async def work(opened: Database) -> None:
        files = settings(tmp_path, ACCOUNTS)
        await transfer.import_settings(opened, files, ME, dry=False)
        async with opened.writing() as connection:
            await leaked_keys.revoke_leaked_key(connection, ME, "1" * 64)
            await customers.start_deletion(connection, ME, "late")
        files = settings(
            tmp_path, ACCOUNTS.replace("flags:\n", f'  - {{sha256: "{"4" * 64}", customer: late}}\nflags:\n')
        )
        done = await transfer.import_settings(opened, files, ME, dry=False)
        assert done["customers"].refused == ("customer late: is being deleted",)
        assert done["keys"].refused == (
            "key sha256:11111111: was revoked, and stays so",
            "key sha256:44444444: the customer late is being deleted",
        )
        out = await export(opened)
        assert ("late" in out, "1" * 64 in out) == (False, False)

    run(database, work)


@pytest.mark.parametrize("stop", ["FROM customers", "FROM keys", "FROM flags"])
def test_two_concurrent_imports_create_each_object_once(postgresql: Postgresql, tmp_path: Path, stop: str) -> None:
    url, accounts = postgresql.database(), settings(tmp_path, ACCOUNTS)
    results: list[dict[str, transfer.ImportResult]] = []

    async def start(database: Database) -> None:
        results.append(await transfer.import_settings(database, accounts, ME, dry=False))

    async def work(opened: Database) -> None:
        await interleave(opened, url, start, stop, start)
        created = [entry["action"] for entry in await read(opened, audit.list_entries, 0, 99)]
        assert sorted(created) == ["customer.create"] * 4 + ["flag.put"] + ["key.create"] * 3

    run(url, work)
    totals = {
        kind: [sum(column) for column in zip(*(result[kind][:3] for result in results), strict=True)]
        for kind in results[0]
    }
    assert totals == {"customers": [4, 0, 4], "keys": [3, 0, 3], "flags": [1, 0, 1]}


def test_import_undoes_no_concurrent_change(postgresql: Postgresql, tmp_path: Path) -> None:
    """A customer gets no key after its deletion has begun, and each version of a flag has one content."""
    url, accounts = postgresql.database(), settings(tmp_path, ACCOUNTS)
    more = ACCOUNTS.replace("flags:\n", f'  - {{sha256: "{"4" * 64}", customer: late}}\nflags:\n')
    changed = settings(tmp_path, more.replace("percent: 12", "percent: 13"))

    async def start(database: Database) -> None:
        await transfer.import_settings(database, changed, ME, dry=False)

    async def delete(database: Database) -> None:
        await write(database, customers.start_deletion, ME, "late")

    async def put(database: Database) -> None:
        await write(database, flags.put_flag, ME, "beta", Flag(percent=14))

    async def work(opened: Database) -> None:
        await transfer.import_settings(opened, accounts, ME, dry=False)
        await interleave(opened, url, start, "FROM keys", delete)
        entries = [entry["action"] for entry in await read(opened, audit.list_entries, 0, 99)]
        assert entries.index("customer.delete") > max(at for at, entry in enumerate(entries) if entry == "key.create")
        await write(opened, flags.put_flag, ME, "beta", Flag(percent=12))
        await interleave(opened, url, start, "FROM flags", put)
        async with opened.reading() as connection:
            row = await flags.get_row(connection, "beta")
        assert (flags.to_response(row)["percent"], row.version) == (14, 5)

    run(url, work)
