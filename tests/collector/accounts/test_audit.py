"""The audit log records every change and denial in a hash chain that reveals changed and removed entries."""

import asyncio
import base64
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, AuditTamperedError, Caller, Denials, EntryTimes
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import audit as audit_table
from edgeproxy.collector.database.schema import audit_head
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, REGIONAL, Collector, checked, sha256
from tests.support.collector_fixtures import StartCollector
from tests.support.credited import write

ALICE = Caller("alice", "192.0.2.1", "request-1")


def entries(collector: Collector, **only: str) -> list[dict[str, Any]]:
    """Fetch all entries, page by page."""
    found: list[dict[str, Any]] = []
    after = "0"
    while True:
        answer = collector.get("/v1/audit", token=ADMIN, after=after, limit="2", **only)
        assert answer.status == 200, answer
        page = answer.json()
        found += page["entries"]
        if "next" not in page:
            return found
        after = str(page["next"])


def test_changes_of_an_edge_are_recorded_with_actor_and_previous_values(collector: Collector) -> None:
    chain = Chain()
    assert collector.post(chain.next()).status == 200
    path = f"/v1/edges/{chain.edge}"
    changes = [{"retired": True}, {"token": "regional", "region": "eu-bound"}]
    for change in changes:
        assert collector.patch(path, orjson.dumps(change)).status == 200
    assert collector.patch(path, b'{"retired": true}', READ).status == 403
    found = entries(collector, target=chain.edge)
    assert [(entry["action"], entry["actor"], entry["origin"], entry["after"]) for entry in found] == [
        ("edge.change", "admin", "127.0.0.1", change) for change in changes
    ]
    assert found[0]["before"] == {"retired": False}
    assert found[1]["before"] == {"token": f"token-{sha256(EDGE)[:8]}", "region": chain.region}
    assert len({entry["request_id"] for entry in found}) == 2
    assert "admin" in collector.get("/v1/audit/actors", token=ADMIN).json()["actors"]
    assert entries(collector, target=chain.edge, **{"from": "2026-01-01", "to": "2026-01-02"}) == []
    for token in (READ, EDGE, OWN):
        for path in ("/v1/audit", "/v1/audit/actors"):
            assert collector.get(path, token=token).status == 403
    for wrong in (
        *({"from": "yesterday"}, {"after": "-1"}, {"limit": "0"}, {"limit": "1001"}, {"by": "actor"}),
        {"actor": "\0"},
    ):
        assert collector.get("/v1/audit", token=ADMIN, **wrong).status == 400


def test_denials_are_recorded_with_counts_even_for_forged_tokens(
    start_collector: StartCollector,
) -> None:
    issuer = {"issuer": "http://127.0.0.1:1", "audience": "us", "roles": {"admin": ["ops"]}}
    collector, chain = start_collector(operators=issuer), Chain(region="eu-bound")
    assert collector.post(chain.next()).status == 200
    for _ in range(3):
        assert collector.get("/v1/edges", token="x").status == 401
    assert collector.post(chain.next(), token=REGIONAL).status == 403
    head = base64.urlsafe_b64encode(rb'{"alg":"RS256","crit":["\u0000\ud800"]}').decode().rstrip("=")
    assert collector.get("/v1/usage", token=f"{head}.e30.AAAA").status == 401
    collector.end()
    collector.start()
    found = entries(collector, action="denied")
    assert [
        (entry["actor"], entry["target"], entry["after"]["status"], entry["after"]["count"]) for entry in found
    ] == [
        ("unknown", "GET /v1/edges", 401, 3),
        ("regional", "POST /v1/batches", 403, 1),
        ("unknown", "GET /v1/usage", 401, 1),
    ]
    assert "another token" in found[1]["after"]["why"]
    assert found[2]["after"]["why"].endswith("Unsupported critical extension: ??")
    code, output = checked(collector)
    assert (code, "3 audit records" in output) == (0, True)


def test_a_flood_of_different_denials_is_bounded(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "DENIALS_MAX", 50)

    async def flood() -> list[dict[str, Any]]:
        opened = await Database.connect(database)
        try:
            denials = Denials(opened)
            for number in range(3 * audit.DENIALS_MAX):
                denials.record(Caller(f"t{number}"), "GET /", 403, f"why {number}")
            await denials.write()
            async with opened.reading() as connection:
                rows: list[dict[str, Any]] = []
                while page := await audit.list_entries(connection, len(rows), 1000):
                    rows += page
                return rows
        finally:
            await opened.close()

    rows = asyncio.run(flood())
    assert len(rows) <= 2 * audit.DENIALS_MAX + 1
    assert sum(row["after"]["count"] for row in rows) == 3 * audit.DENIALS_MAX


async def filled(database: str, count: int = 5) -> Database:
    """Open a database, and append `count` entries to its audit log."""
    opened = await Database.connect(database)
    for number in range(count):
        async with opened.writing() as connection:
            await audit.append_entry(
                connection, ALICE, AuditEntry("customer.change", "acme", {"n": number}, {"n": number + 1})
            )
    return opened


def test_entry_is_rolled_back_with_its_change(database: str) -> None:
    async def change() -> int:
        opened = await filled(database, 1)
        try:
            try:
                async with opened.writing() as connection:
                    await audit.append_entry(connection, ALICE, AuditEntry("customer.change", "acme"))
                    raise LookupError
            except LookupError:
                pass
            async with opened.reading(whole=True) as connection:
                return await audit.verify_chain(connection)
        finally:
            await opened.close()

    assert asyncio.run(change()) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 7])
async def test_time_filter_includes_its_start_and_excludes_its_end(database: str, count: int) -> None:
    opened = await filled(database, count)
    try:
        async with opened.writing() as connection:
            await connection.execute(sa.update(audit_table).values(at=10 * (audit_table.c.seq // 2)))
        ats = [10 * (seq // 2) for seq in range(1, count + 1)]
        async with opened.reading(whole=True) as connection:
            for since in range(-5, 50, 5):
                for until in (*range(since, 50, 5), None):
                    times = EntryTimes(since, until)
                    rows = await audit.list_entries(connection, 0, 100, times=times, action="customer.change")
                    inside = [at for at in ats if since <= at and (until is None or at < until)]
                    assert len(rows) == len(inside), times
    finally:
        await opened.close()


def test_entries_of_two_collectors_are_one_chain(database: str) -> None:
    async def both() -> int:
        first, second = await Database.connect(database), await Database.connect(database)

        async def write(opened: Database, who: str) -> None:
            for number in range(20):
                async with opened.writing() as connection:
                    await audit.append_entry(connection, Caller(who), AuditEntry("customer.change", str(number)))

        try:
            await asyncio.gather(write(first, "one"), write(second, "two"))
            async with first.reading(whole=True) as connection:
                return await audit.verify_chain(connection)
        finally:
            await first.close()
            await second.close()

    assert asyncio.run(both()) == 40


THIRD = audit_table.c.seq == 3
TAMPERING: list[tuple[Any, str]] = [
    (sa.update(audit_table).where(THIRD).values(actor="mallory"), "audit entry 3 was changed"),
    (sa.update(audit_table).where(THIRD).values(after=None), "audit entry 3 was changed"),
    (sa.update(audit_table).where(THIRD).values(hash="0" * 64), "audit entry 3 was changed"),
    (sa.delete(audit_table).where(audit_table.c.seq == 2), "audit entry 2 was taken out"),
    (sa.delete(audit_table).where(audit_table.c.seq >= 4), "audit entries 4 to 5 were taken out"),
    (sa.delete(audit_table), "audit entries 1 to 5 were taken out"),
    (sa.update(audit_head).values(seq=4), "the head of the audit log was changed"),
]


async def after(connection: Any, statement: Any) -> None:
    """Change the log and verify it. The error rolls the change back."""
    await connection.execute(statement)
    await audit.verify_chain(connection)


@pytest.mark.both_databases
async def test_verification_names_changed_and_removed_entries(database: str) -> None:
    opened = await filled(database)
    try:
        for statement, said in TAMPERING:
            with pytest.raises(AuditTamperedError, match=said):
                await write(opened, after, statement)
        async with opened.reading(whole=True) as connection:
            assert await audit.verify_chain(connection) == 5
    finally:
        await opened.close()
