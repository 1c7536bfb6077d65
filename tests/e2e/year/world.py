"""Both residencies with one clock, and the hub and upstream that their edges share."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from redis import Redis as Client

from edgeproxy.collector.database.billing_tables import credit_notes, dunning, invoices, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from loadtest.testbed.collector import EDGE
from loadtest.testbed.customers import key_of
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.redis import Redis
from loadtest.testbed.waiting import until
from tests.e2e.year import erasure
from tests.e2e.year.plan import RESIDENCIES, Person, begin_of
from tests.e2e.year.side import Side
from tests.support.byte_search import search_files, search_texts
from tests.support.moved_clock import write_offset

AT_ONCE = 6
"""People who act at once."""
SETTLE_SECONDS = 900.0
"""Real seconds that due work may take."""
TRY_SECONDS = 61
"""Seconds until the retry of most failed actions."""


class World:
    """Two sides, by residency."""

    def __init__(self, folder: Path, upstream: int, server: Postgresql, ends: ExitStack) -> None:
        self.folder, self._upstream, self.server = folder, upstream, server
        self.clock = folder / "clock"
        write_offset(self.clock, begin_of(0) + 60 - time.time())
        erasure.keep_no_wal(server)
        (folder / "hub").mkdir()
        self.hub = ends.enter_context(Redis(folder / "hub", "--rdbcompression", "no"))
        self.pool = ends.enter_context(ThreadPoolExecutor(AT_ONCE))
        databases = {"eu": server.database(), "us": f"sqlite:///{folder}/us/data/ledger.db"}
        self.sides = {name: Side(folder / name, name, databases[name], self.clock, ends) for name in RESIDENCIES}
        self.set_clocks(begin_of(0) + 60)
        for side in self.sides.values():
            side.collector.start()
        self._ends = ends

    # ---- time

    def now(self) -> float:
        """Return the common time."""
        return float(self.sides["eu"].sandbox.control("clock")["now"])

    def set_clocks(self, moment: float) -> None:
        """Set the clock of our processes and the clock of each Stripe sandbox to this Unix second."""
        for side in self.sides.values():
            side.sandbox.control("clock", {"now": moment})
        write_offset(self.clock, moment - time.time())

    def settle(self) -> None:
        """Wait until all due work is done. The clock advances by minutes meanwhile, so that failures are retried."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(left := [asyncio.run(count_due(side, self.now())) for side in self.sides.values()]):
            assert time.monotonic() < deadline, left
            time.sleep(0.25)
            self.set_clocks(self.now() + TRY_SECONDS)

    # ---- people

    def run_for(self, act: Callable[[Side, Person], object], people: dict[str, list[Person]]) -> None:
        """Run an action for each of these people, several at once."""
        work = [self.pool.submit(act, self.sides[name], person) for name in RESIDENCIES for person in people[name]]
        for one in work:
            one.result()

    # ---- edges

    def start_edges(self) -> None:
        """Start the edge of each region, on its state and with the current clock."""
        residencies: dict[str, Any] = {}
        for name, side in self.sides.items():
            usage = {"collector": f"http://{HOST}:{side.collector.port}", "token": EDGE, "every": "200ms"}
            residencies[name] = {"usage": usage, "directory": {"from": "collector", "trust": side.trust}}
        for side in self.sides.values():
            edge = side.start_edge(self._upstream, residencies, self.hub.url, self.now() - time.time())
            self._ends.callback(edge.close)

    def ask(self, region: str, person: Person) -> int:
        """Return the status of a request by a person's program in a region."""
        edge = self.sides[region].edge
        assert edge is not None
        fields = {"Authorization": f"Bearer {key_of(person.name)}", "X-Forwarded-For": person.address}
        return edge.ask(f"/v1/orders?of={person.number}", fields=fields).status

    def send_traffic(self, people: dict[str, list[Person]]) -> int:
        """Send requests of these people's programs in both regions, some with a wrong key. Returns the served ones."""
        served = 0
        for person in [person for name in RESIDENCIES for person in people[name]]:
            for region in RESIDENCIES:
                until(lambda region=region, person=person: self.ask(region, person) == 200, "an edge serves them")
                served += 1
                edge = self.sides[region].edge
                assert edge is not None
                wrong = {"Authorization": f"Bearer {key_of(person.name)}-mistyped", "X-Forwarded-For": person.address}
                assert edge.ask(fields=wrong).status == 401
        return served

    def end_edges(self) -> None:
        """Stop the edges, once the collectors have their counts."""
        for side in self.sides.values():
            assert side.edge is not None
            until(lambda side=side: is_shipped(side), "all is shipped", seconds=120.0)
        for side in self.sides.values():
            assert side.edge is not None
            side.edge.end()
            side.edge = None

    # ---- the end

    def purge_deleted(self) -> None:
        """Stop the collectors, and purge deleted data from the files of their databases."""
        for side in self.sides.values():
            side.collector.end()
            erasure.purge_deleted(side, self.server)

    def search(self, side: Side, *more: Path) -> dict[str, set[str]]:
        """Return the marks in any byte of a side, of the hub, and of further folders, with their files."""
        Client.from_url(self.hub.url).save()
        objects = {f"{side.name}: {url}/{path}": body for url, path, body in side.list_objects()}
        assert objects, "something was exported"
        places_by_mark = search_files(
            side.folder, self.folder / "hub", *more, *([self.server.data] if side.name == "eu" else [])
        )
        for mark, places in search_texts(objects).items():
            places_by_mark.setdefault(mark, set()).update(places)
        return places_by_mark

    def verify(self) -> None:
        """Verify both ledgers and their exports."""
        for side in self.sides.values():
            assert side.run("verify", "-c", side.collector.file).startswith("OK")
            assert "OK: " in side.export("verify")


def is_shipped(side: Side) -> bool:
    """Return whether all batches of a side's edge are shipped."""
    assert side.edge is not None
    chains = side.edge.status()["usage"]["residencies"]
    return all(chain["batches"] == 0 for chain in chains.values())


async def count_due(side: Side, now: float) -> dict[str, int]:
    """Return the numbers of due work by kind, without zeros."""
    table, count = invoices.c, sa.select(sa.func.count())
    is_closing = table.state.in_(("closing", "voiding"))
    is_due = (table.state == "draft") & ((table.closes_at <= now) | (table.stripe_id.is_(None) & (table.try_at <= now)))
    ended = (subscriptions.c.state == "active") & (subscriptions.c.period_end <= now)
    unpaid = (table.state == "open") & (dunning.c.retry_at <= now)
    statements = {
        "invoices": count.select_from(invoices).where(is_closing | is_due),
        "subscriptions": count.select_from(subscriptions).where(ended),
        "payments": count.join_from(dunning, invoices, table.id == dunning.c.invoice).where(unpaid),
        "notes": count.select_from(credit_notes).where(credit_notes.c.state == "requested"),
        "events": count.select_from(webhook_events).where(webhook_events.c.state == "waiting"),
    }
    database = await Database.connect(side.collector.settings["database"])
    try:
        async with database.reading() as connection:
            counts = {
                what: (await connection.execute(statement)).scalar_one() for what, statement in statements.items()
            }
    finally:
        await database.close()
    return {what: number for what, number in counts.items() if number}
