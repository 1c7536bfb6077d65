"""Concurrent requests take exactly the available places, and expired places become free."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.ledger import allocation_levels
from edgeproxy.collector.privacy import erasure
from edgeproxy.collector.quotas import allocations
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector, sha256
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector

pytestmark = pytest.mark.both_databases

SETTINGS: dict[str, Any] = {
    "meters": {"seats": {"count": "holdings"}, "flows": {"count": "holdings"}, "requests": {"count": "requests"}},
    "tiers": {
        "basic": {"quotas": [{"meter": "seats", "included": 2, "cap": "hard"}, {"meter": "flows", "included": 1}]},
        "large": {},
    },
    "customers": {"acme": {"tier": "basic"}, "bound": {"tier": "large"}},
}
PLACES = 50


def send(collector: Collector, method: str, path: str, body: object = None, token: str = SERVICE) -> tuple[int, Any]:
    answer = collector.send(method, f"/v1/customers/{path}", body, token=token)
    return answer.status, answer.json() if answer.body else None


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_service_allocates_and_releases_seats_by_api(start_collector: StartCollector) -> None:
    collector = start_collector(**SETTINGS)
    status, document = send(collector, "PUT", "acme/holdings/seats/ada")
    assert (status, document["item"], document["used"], document["allowed"], document["expires_at"]) == (
        201,
        "ada",
        1,
        2,
        None,
    )
    again = send(collector, "PUT", "acme/holdings/seats/ada")
    assert again == (200, document), "the same place"
    status, ends = send(collector, "PUT", "acme/holdings/seats/bob", {"ttl": "2s"})
    assert (status, ends["used"]) == (201, 2)
    status, full = send(collector, "PUT", "acme/holdings/seats/cleo")
    assert (status, full["used"], full["allowed"]) == (409, 2, 2)
    assert send(collector, "PUT", "acme/holdings/seats/ada")[0] == 200, "the holder keeps its place"
    listed = send(collector, "GET", "acme/holdings/seats?limit=1", token=READ)[1]
    assert ([holding["item"] for holding in listed["holdings"]], listed["used"], listed["next"]) == (["ada"], 2, "ada")
    until(lambda: send(collector, "PUT", "acme/holdings/seats/cleo")[0] == 201, "bob's place is free by itself")
    listed = send(collector, "GET", "acme/holdings/seats?cursor=ada")[1]
    assert [holding["item"] for holding in listed["holdings"]] == ["cleo"]
    for _ in range(2):
        assert send(collector, "DELETE", "acme/holdings/seats/cleo") == (204, None)
    seats, _ = send(collector, "GET", "acme/quotas", token=READ)[1]["quotas"]
    assert (seats["used"], seats["limit"], seats["percent"], seats["resets"]) == (1, 2, 50.0, None)
    # A soft quota allows more places and reports the excess. Without a quota any number is allowed.
    assert [send(collector, "PUT", f"acme/holdings/flows/f{n}")[1]["used"] for n in range(3)] == [1, 2, 3]
    assert send(collector, "GET", "acme/quotas", token=READ)[1]["quotas"][1]["percent"] == 300.0
    assert {send(collector, "PUT", f"bound/holdings/seats/s{n}")[1]["allowed"] for n in range(3)} == {None}
    # Other tokens and invalid requests are refused.
    for token in (READ, EDGE, OWN, ADMIN):
        assert send(collector, "PUT", "bound/holdings/seats/x", token=token)[0] == 403
        assert send(collector, "DELETE", "bound/holdings/seats/s1", token=token)[0] == 403
    assert send(collector, "GET", "bound/holdings/seats", token=OWN)[1]["used"] == 3
    assert send(collector, "GET", "acme/holdings/seats", token=OWN)[0] == 403
    assert send(collector, "GET", "acme/quotas", token=OWN)[0] == 403
    for path, body, expected in (
        ("nobody/holdings/seats/x", None, 404),
        ("acme/holdings/requests/x", None, 404),
        ("acme/holdings/seats/a%20b", None, 422),
        ("acme/holdings/seats/a%2Fb", None, 422),
        (f"acme/holdings/seats/{'x' * 201}", None, 422),
        ("acme/holdings/seats/x", {"ttl": "soon"}, 422),
        ("acme/holdings/seats/x", {"tll": "1h"}, 422),
        ("acme/holdings/seats/x", b"{", 400),
    ):
        assert send(collector, "PUT", path, body)[0] == expected, path
    # The audit log sums up the changes of each meter.
    collector.end()
    with closing(sqlite3.connect(collector.settings["database"].removeprefix("sqlite:///"))) as opened:
        rows = opened.execute("SELECT actor, target, after FROM audit WHERE action = 'holdings.change'").fetchall()
    assert {target: after for _, target, after in rows} == {
        "acme/seats": '{"expired":1,"given_back":1,"taken":3}',
        "acme/flows": '{"taken":3}',
        "bound/seats": '{"taken":3}',
    }
    assert {actor for actor, *_ in rows} == {f"token-{sha256(SERVICE)[:8]}"}


def test_concurrent_requests_take_exactly_the_available_places(database: str) -> None:
    """Two collectors on one database take places concurrently, each as many as it can."""
    asyncio.run(take_at_once(database, 120, 20))


async def take_at_once(url: str, takers: int, places: int) -> None:
    both = [await Database.connect(url) for _ in range(2)]

    async def take(database: Database, item: str, places: int, seconds: int | None = None) -> bool:
        async with database.writing() as connection:
            about: Any = {"allowed": places, "seconds": seconds, "token": "worker"}
            taken = await allocations.allocate(database, connection, "acme", "seats", item, **about)
        return taken.holding is not None

    try:
        # Two requests for one item share a place. The place that was taken before has expired.
        assert await take(both[0], "gone", places, 0)
        got = await asyncio.gather(*(take(both[n % 2], f"item-{n // 2}", places) for n in range(takers)))
        async with both[0].reading() as connection:
            kept = [
                allocation.item
                for allocation in await allocations.list_allocations(connection, "acme", "seats", None, takers)
            ]
            assert await allocations.count_allocations(connection, "acme", "seats") == places == len(kept)
        assert "gone" not in kept
        assert sum(got) == 2 * places, "each place was confirmed to both who asked for it"
        assert not await take(both[1], "one more", places)
    finally:
        for database in both:
            await database.close()


async def test_erased_customer_has_no_places_and_no_mailed_alerts(database: str) -> None:
    """Item ids may identify people, and so do the recipients of mailed alerts."""

    opened = await Database.connect(database)
    row = {"id": "id-acme", "name": "acme", "tier": "basic", "settings": '{"tier": "basic"}', "metadata": "{}"}
    try:
        async with opened.writing() as connection:
            created = sa.insert(customers.customers).values(**row, created_at=1, version=1, deleting_since=5)
            await connection.execute(created)
            for name in ("acme", "bolt"):
                about: Any = {"allowed": None, "seconds": None, "token": "worker"}
                await allocations.allocate(opened, connection, name, "seats", "ada@example.com", **about)
            for name in ("acme", "bolt"):
                due = Alert(key=name, kind=AlertKind.KEY_ROTATION_DUE, title=name, at=1, customer=name)
                await raise_once(connection, due)
            selected = await connection.execute(sa.select(alerts.c.customer, alerts.c.id))
            ids = {row.customer: row.id for row in selected}
            mailed = {"state": "sent", "attempts": 1, "due_at": 0}
            rows = [
                {**mailed, "alert": ids["acme"], "channel": "mail:customer", "recipient": "ada@example.com"},
                {**mailed, "alert": ids["acme"], "channel": "ops", "recipient": None},
                {**mailed, "alert": ids["bolt"], "channel": "mail:customer", "recipient": "bob@example.com"},
            ]
            await connection.execute(sa.insert(alert_deliveries), rows)
        assert [customer.name for customer in await erasure.erase_due_customers(opened, 6)] == ["acme"]
        async with opened.writing() as connection:
            left = set((await connection.execute(sa.select(alert_deliveries.c.recipient))).scalars())
            assert left == {"bob@example.com"}
            assert [await allocations.count_allocations(connection, name, "seats") for name in ("acme", "bolt")] == [
                0,
                1,
            ]
            assert await allocation_levels.fetch_customers(connection, "seats", 1 << 40) == {"acme", "bolt"}, (
                "the place is still billed"
            )
    finally:
        await opened.close()


@pytest.mark.soak
def test_ten_thousand_takes_over_http(database: str, tmp_path: Path) -> None:
    """Two collectors get 10,000 requests for 50 places, 400 at a time each."""
    settings = {**SETTINGS, "tiers": {"basic": {"quotas": [{"meter": "seats", "included": PLACES, "cap": "hard"}]}}}
    settings["customers"] = {"acme": {"tier": "basic"}}
    with (
        closing(Collector(tmp_path / "one", database, **settings)) as one,
        closing(Collector(tmp_path / "two", database, **settings)) as two,
    ):
        one.start()
        two.start()
        began = time.monotonic()
        statuses = asyncio.run(storm([one.port, two.port], 10_000))
        print(f"{10_000 / (time.monotonic() - began):.0f} takes a second")
        assert statuses.count(201) == PLACES
        assert statuses.count(409) == 10_000 - PLACES
        assert send(two, "GET", "acme/holdings/seats", token=READ)[1]["used"] == PLACES


async def storm(ports: list[int], number: int) -> list[int]:
    fields = {"Authorization": f"Bearer {SERVICE}"}
    async with aiohttp.ClientSession(headers=fields, connector=aiohttp.TCPConnector(limit_per_host=400, limit=0)) as at:

        async def take(n: int) -> int:
            url = f"http://127.0.0.1:{ports[n % len(ports)]}/v1/customers/acme/holdings/seats/item-{n}"
            async with at.put(url) as answer:
                return answer.status

        return await asyncio.gather(*(take(n) for n in range(number)))
