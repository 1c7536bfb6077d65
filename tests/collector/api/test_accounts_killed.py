"""The collector or PostgreSQL is killed during changes. Each change is stored with its audit entry and outbox row, or
not at all.
"""

import asyncio
import itertools
import os
import random
from collections import Counter
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.database import schema
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorSettings
from loadtest.testbed.collector import ADMIN, Collector, checked
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector

pytestmark = pytest.mark.both_databases

ROUNDS = 2
STEPS_MIN = 7
"""The minimum of statements to create a customer, with the commit."""


async def found(database: Database) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the stored customers, of those in the audit log, and of those in the outbox for edges."""
    columns = (schema.customers.c.name, schema.audit.c.target, schema.directory_outbox.c.name)
    async with database.reading() as connection:
        lists = [(await connection.execute(sa.select(column).order_by(column))).scalars().all() for column in columns]
    return list(lists[0]), list(lists[1]), list(lists[2])


async def outlived(url: str) -> tuple[list[str], list[str], list[str]]:
    """Open a database and return the names that `found` returns."""
    database = await Database.connect(url, as_it_is=True)
    try:
        return await found(database)
    finally:
        await database.close()


async def die_at_each_step(server: Postgresql, url: str, known: CollectorSettings) -> tuple[list[str], int]:
    """Create customers and kill the server one statement later each time, up to the commit and after it. Return the
    acknowledged customers and the number of steps.
    """
    database, done, passed, last = await Database.connect(url), [], 0, 0

    def step(*_: object) -> None:
        nonlocal passed
        passed += 1
        if passed == last:
            server.kill()

    for what in ("before_cursor_execute", "commit"):
        event.listen(database._writer.sync_engine, what, step)
    try:
        for last in itertools.count(1):
            passed = 0
            try:
                async with database.writing() as connection:
                    new = CreateCustomerRequest(name=f"c{last}", tier="basic")
                    await customers.create_customer(connection, Caller("test"), new, known)
                done.append(new.name)
            except CONNECTION_ERRORS:
                server.start()
                continue
            server.kill()
            server.start()
            if passed < last:
                break
    finally:
        await database.close()
    return done, last - 1


@pytest.mark.usefixtures("postgresql")
def test_change_is_atomic_if_postgresql_is_killed(tmp_path: Path) -> None:
    with closing(Postgresql(in_memory=True)) as server:
        url = server.database()
        collector = Collector(tmp_path, url)
        with closing(collector):
            collector.write()
            known = load_collector(collector.file, os.environ)
            done, steps = asyncio.run(die_at_each_step(server, url, known))
            assert steps >= STEPS_MIN
            there, told, outbox = asyncio.run(outlived(url))
            assert there == told == outbox
            assert set(done) <= set(there)
            code, output = checked(collector)
            assert (code, f"{len(there)} audit record" in output) == (0, True), output


def change(collector: Collector, stop: Event, numbers: "itertools.count[int]", done: list[str]) -> None:
    """Create customers with a key until the collector is killed. Acknowledged changes are appended to `done`."""
    try:
        while not stop.is_set():
            name = f"k{next(numbers)}"
            if collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201:
                done.append(name)
            if collector.send("POST", f"/v1/customers/{name}/keys", {}).status == 201:
                done.append(f"{name}/key")
    except (OSError, HTTPException):
        pass  # The test killed the collector.


def test_change_is_atomic_if_the_collector_is_killed(start_collector: StartCollector) -> None:
    collector, numbers, done = start_collector(), itertools.count(), []  # type: ignore[var-annotated]
    chance = random.Random(7)
    for _ in range(ROUNDS):
        stop, goal = Event(), len(done) + chance.randrange(5, 25)
        threads = [Thread(target=change, args=(collector, stop, numbers, done)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda goal=goal: len(done) >= goal, "some changes are made")  # type: ignore[misc]
        collector.kill()
        stop.set()
        for thread in threads:
            thread.join()
        collector.start()
    made, keys = [], []
    cursor: dict[str, str] = {}
    while True:
        page = collector.get("/v1/customers", limit="1000", **cursor).json()
        made += [customer["name"] for customer in page["customers"]]
        if "next" not in page:
            break
        cursor = {"cursor": page["next"]}
    for name in made:
        keys += [f"{name}/{key['id']}" for key in collector.get(f"/v1/customers/{name}/keys").json()["keys"]]
    record: Counter[tuple[str, str]] = Counter()
    after = "0"
    while True:
        page = collector.get("/v1/audit", token=ADMIN, after=after, limit="1000").json()
        record.update((entry["action"], entry["target"]) for entry in page["entries"])
        if "next" not in page:
            break
        after = str(page["next"])
    created = {
        (action, target): 1 for action, some in (("customer.create", made), ("key.create", keys)) for target in some
    }
    assert {what: count for what, count in record.items() if what[0] != "denied"} == created
    acknowledged = {name for name in done if "/" not in name}
    assert acknowledged <= set(made)
    assert {f"{key.partition('/')[0]}/key" for key in keys} >= {one for one in done if "/" in one}
    code, output = checked(collector)
    assert (code, f"{len(created)} audit records" in output) == (0, True), output
    assert set(asyncio.run(outlived(collector.settings["database"]))[2]) == set(made)
