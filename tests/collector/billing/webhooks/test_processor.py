"""Webhook events in any order: at the end the collector has Stripe's state."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import sqlalchemy as sa
import stripe as package
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.purchases import PURCHASE
from edgeproxy.collector.billing.invoices.unexpected_objects import UnbookedPaymentError
from edgeproxy.collector.billing.stripe.billing_details import StaleCustomerError
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.billing.stripe.webhook_event import REPORT, parse_event_object
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.processor import (
    UNREAD_SECONDS_MAX,
    Processor,
    StripeDeniedError,
    StripeUnavailableError,
)
from edgeproxy.collector.billing.webhooks.receiver import EventState, ReceivedEvent
from edgeproxy.collector.billing.webhooks.retry import DELIVERED, PAUSES
from edgeproxy.collector.billing.webhooks.stripe_objects import StripeObjects
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.stripe_sandbox import KEY, Sandbox

NOW = 1_800_000_000
OBJECTS = 30
DAY = 86400
STATES = ("draft", "open", "paid")


class Upstream:
    """A Stripe that changes its invoices and remembers the events of that."""

    def __init__(self) -> None:
        self.now = float(NOW)
        self.invoices: dict[str, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.fetched: Counter[str] = Counter()
        self.away = False
        self.broken: set[str] = set()
        self.unfetched: set[str] = set()
        self.failure: StripeUnavailableError | None = None
        """The result of a call for a list of snapshot events."""
        self.meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Runs once, while the next answer is on its way."""

    def change(self, id: str, status: str) -> dict[str, Any]:
        self.invoices[id] = {"id": id, "object": "invoice", "status": status}
        self.now += 1
        event = {
            "id": f"evt_{len(self.log)}",
            "object": "event",
            "type": f"invoice.{status}",
            "created": int(self.now),
            "livemode": False,
            "data": {"object": dict(self.invoices[id])},
        }
        self.log.append(event)
        return event

    async def fetch(self, object_type: str, id: str) -> Mapping[str, Any]:
        if self.away or id in self.unfetched:
            raise self.failure or StripeUnavailableError("no answer")
        self.fetched[id] += 1
        answer = dict(self.invoices[id])
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return answer

    async def list_events(self, since: int) -> list[Mapping[str, Any]]:
        assert since >= self.now - 30 * DAY - 1, "Stripe lists no older ones"
        if self.failure is not None:
            raise self.failure
        return [event for event in self.log if event["created"] >= since]

    async def list_thin_events(self, since: int) -> list[Mapping[str, Any]]:
        return []

    async def fetch_event(self, id: str) -> Mapping[str, Any] | None:
        return next((event for event in self.log if event["id"] == id), None)


class Books:
    """The collector's rows of invoices. Each test has its own collector on a database."""

    def __init__(self, database: Database, upstream: Upstream) -> None:
        self.database = database
        self.upstream = upstream
        self.payloads = ColumnCipher(["whsec_1"])
        self.known: dict[str, str] = {}
        self.applied: list[float] = []
        self.seen: list[str] = []
        self.processor = self.build()

    def build(self) -> Processor:
        return Processor(
            self.database,
            self.upstream,
            {"invoice": self.write},
            self.payloads,
            live=False,
            clock=lambda: self.upstream.now,
            on_applied=self.applied.append,
            on_seen=lambda types, stripe_object: self.seen.extend(types),
        )

    async def write(self, _: AsyncConnection, object: Mapping[str, Any]) -> None:
        if object["id"] in self.upstream.broken:
            raise ValueError("a fault of ours")
        self.known[object["id"]] = object["status"]

    async def receive(self, *events: Mapping[str, Any]) -> int:
        some = [ReceivedEvent(parse_event_object(event), orjson.dumps(event)) for event in events]
        now = int(self.upstream.now * 1000)
        rows = receiver.build_rows(some, self.payloads, live=False, now=now)
        async with self.database.writing() as connection:
            return len(await receiver.insert_events(connection, rows, now))

    async def count_by_state(self) -> dict[str, int]:
        async with self.database.reading() as connection:
            return {state: count for state, count in (await receiver.count_by_state(connection)).items() if count}

    async def list_alerts(self) -> list[str]:
        async with self.database.reading() as connection:
            return list((await connection.execute(sa.select(alerts.c.title).order_by(alerts.c.title))).scalars())

    async def truth(self) -> dict[str, str]:
        return {id: invoice["status"] for id, invoice in self.upstream.invoices.items()}


@asynccontextmanager
async def books(url: str) -> AsyncIterator[Books]:
    database = await Database.connect(url)
    try:
        yield Books(database, Upstream())
    finally:
        await database.close()


def play(url: str, work: Callable[[Books], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with books(url) as created:
            await work(created)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(1))
def test_disordered_and_lost_events_end_in_the_state_of_ordered_events(database: str, seed: int) -> None:
    async def work(own: Books) -> None:
        chance = random.Random(seed)
        upstream = own.upstream
        for status in STATES:
            for number in chance.sample(range(OBJECTS), OBJECTS - 5):
                upstream.change(f"in_{number}", status)
        lost = set(chance.sample(range(len(upstream.log)), 20))
        sent = [event for number, event in enumerate(upstream.log) if number not in lost]
        sent += chance.sample(sent, 20)
        chance.shuffle(sent)
        while sent:
            some, sent = sent[:7], sent[7:]
            await own.receive(*some)
            if chance.random() < 0.5:
                await own.processor.step()
        assert await own.processor.poll() == len(lost)
        while await own.processor.step():
            pass
        assert own.known == await own.truth()
        assert await own.count_by_state() == {"applied": len(upstream.log)}
        assert len(own.applied) == len(upstream.log)
        assert await own.processor.poll() == 0

    play(database, work)


def test_poll_recovers_events_lost_before_later_events(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        upstream = own.upstream
        await own.receive(upstream.change("in_0", "open"))
        assert await own.processor.poll() == 0
        for number in range(1, 4):
            upstream.now += 7 * DAY
            upstream.change(f"in_{number}", "open")
        await own.receive(upstream.change("in_4", "open"))
        assert await own.processor.poll() == 3
        upstream.now += 40 * DAY
        lost = upstream.change("in_5", "open")
        upstream.now += 31 * DAY
        upstream.change("in_6", "open")
        assert await own.processor.poll() == 1, f"Stripe lists {lost['id']} no more"
        async with own.database.reading() as connection:
            read = await receiver.find_read_until(connection, "thin")
        assert read == int(upstream.now) - DAY, "that nothing was in a list is no gap"

    play(sqlite_database, work)


def test_several_events_of_an_object_are_one_fetch(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        await own.receive(*(own.upstream.change("in_1", status) for status in STATES * 3))
        await own.processor.step()
        assert own.upstream.fetched == {"in_1": 1}
        assert own.known == {"in_1": "paid"}

    play(sqlite_database, work)


def test_an_event_is_stored_once_encrypted_and_listed_without_its_payload(database: str) -> None:
    async def work(own: Books) -> None:
        event = own.upstream.change("in_1", "open")
        assert [await own.receive(event), await own.receive(event)] == [1, 0]
        async with own.database.reading() as connection:
            (payload,) = (await connection.execute(sa.select(webhook_events.c.payload))).scalars()
            (listed,) = await receiver.list_events(connection, None, None, 10)
        assert b"in_1" not in payload
        assert own.payloads.decrypt(payload, event["id"]) == orjson.dumps(event)
        assert own.payloads.decrypt(payload, "evt_other") is None
        assert ColumnCipher(["whsec_2", "whsec_1"]).decrypt(payload, event["id"]) == orjson.dumps(event)
        assert "payload" not in listed
        assert (listed["id"], listed["state"], listed["object"]) == (event["id"], "waiting", "in_1")

    play(database, work)


def test_other_modes_and_other_types_are_stored_and_not_applied(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        live = own.upstream.change("in_1", "open") | {"livemode": True}
        other = own.upstream.change("in_2", "open") | {"type": "payout.paid"}
        await own.receive(live, other)
        assert await own.processor.step() == 0
        assert await own.count_by_state() == {"other_mode": 1, "ignored": 1}
        async with own.database.reading() as connection:
            assert list((await connection.execute(sa.select(alerts.c.kind))).scalars()) == ["webhook_mode_mismatch"]
        assert not await own.processor.replay(live["id"])

    play(sqlite_database, work)


@pytest.mark.both_databases
def test_failing_event_becomes_a_dead_letter_after_five_tries_until_replayed(database: str) -> None:
    async def work(own: Books) -> None:
        upstream = own.upstream
        event = upstream.change("in_1", "open")
        upstream.broken.add("in_1")
        await own.receive(event)
        for pause in PAUSES:
            assert await own.processor.step() == 1
            assert await own.processor.step() == 0
            upstream.now += pause
        assert await own.count_by_state() == {"waiting": 1}
        await own.processor.step()
        assert await own.count_by_state() == {"dead": 1}
        async with own.database.reading() as connection:
            (listed,) = await receiver.list_events(connection, EventState.DEAD, None, 10)
            (kind,) = (await connection.execute(sa.select(alerts.c.kind))).scalars()
        assert (listed["attempts"], listed["error"], kind) == (6, "ValueError: a fault of ours", "webhook_event_failed")
        upstream.broken.clear()
        for status in ("open", "paid"):
            upstream.invoices["in_1"]["status"] = status
            assert await own.processor.replay(event["id"])
            await own.processor.step()
            assert own.known == {"in_1": status}
        assert (own.seen, len(own.applied)) == (["invoice.open"], 1), "metrics count an event once"

    play(database, work)


def test_stale_object_is_fetched_again_in_the_next_round(database: str) -> None:
    async def work(own: Books) -> None:
        async def write_meanwhile(_: AsyncConnection, object: Mapping[str, Any]) -> None:
            own.upstream.change(object["id"], "paid")
            raise StaleCustomerError

        table, clock = {"invoice": write_meanwhile}, lambda: own.upstream.now
        stale = Processor(own.database, own.upstream, table, own.payloads, live=False, clock=clock)
        await own.receive(own.upstream.change("in_1", "open"))
        assert await stale.step() == 1
        assert await own.count_by_state() == {"waiting": 1}
        assert await own.processor.step() == 1, "the event is due at once"
        assert own.known == {"in_1": "paid"}
        async with own.database.reading() as connection:
            (listed,) = await receiver.list_events(connection, EventState.APPLIED, None, 10)
        assert listed["attempts"] == 0

    play(database, work)


@pytest.mark.both_databases
def test_step_does_not_apply_an_older_state_over_that_of_a_faster_step(database: str) -> None:
    async def work(own: Books) -> None:
        async def pay() -> None:
            await own.receive(own.upstream.change("in_1", "paid"))
            assert await own.processor.step() == 1

        await own.receive(own.upstream.change("in_1", "open"))
        own.upstream.meanwhile = pay
        assert await own.processor.step() == 1
        assert own.known == {"in_1": "paid"}
        assert await own.count_by_state() == {"applied": 2}
        assert len(own.applied) == 2, "each event counts once"

    play(database, work)


@pytest.mark.both_databases
def test_failed_step_leaves_events_that_a_faster_step_has_applied(database: str) -> None:
    async def work(own: Books) -> None:
        async def apply_and_fail() -> None:
            assert await own.processor.step() == 1
            raise StripeUnavailableError("no answer")

        await own.receive(own.upstream.change("in_1", "open"))
        own.upstream.meanwhile = apply_and_fail
        assert await own.processor.step() == 1
        assert await own.count_by_state() == {"applied": 1}

    play(database, work)


def test_events_of_an_unknown_purchase_wait_for_the_poll_that_finds_it(database: str) -> None:
    async def work(own: Books) -> None:
        upstream, disputes = own.upstream, {"in_1": "cs_1", "in_2": "cs_never"}

        async def apply_purchase(_: AsyncConnection, session: Mapping[str, Any]) -> None:
            own.known[session["id"]] = session["status"]

        async def apply_dispute(connection: AsyncConnection, dispute: Mapping[str, Any]) -> None:
            if (purchase := disputes[dispute["id"]]) not in own.known:
                raise UnbookedPaymentError(f"{dispute['id']} is about {purchase}, a purchase that is not booked yet")
            await own.write(connection, dispute)

        def build() -> Processor:
            table = {PURCHASE: apply_purchase, "invoice": apply_dispute}
            return Processor(own.database, upstream, table, own.payloads, live=False, clock=lambda: upstream.now)

        processor = build()
        assert await processor.poll() == 0, "a poll before the event says nothing of it"
        purchase = upstream.change("cs_1", "complete")
        purchase["type"] = "checkout.session.completed"
        purchase["data"]["object"]["object"] = PURCHASE
        await own.receive(*(upstream.change(id, "open") for id in disputes))
        for pause in (*PAUSES, 21 * DAY):
            assert await processor.step() == len(disputes)
            upstream.now += pause
        assert await own.count_by_state() == {"waiting": 2}, "the events failed six times without a poll in between"
        processor = build()  # Another collector goes on.
        assert await processor.poll() == 1
        upstream.unfetched.add("cs_1")
        assert await processor.step() == 3
        assert await own.count_by_state() == {"waiting": 3}, "the polled events are not applied yet"
        upstream.unfetched.clear()
        upstream.now += PAUSES[0]
        assert await processor.step() == 1
        upstream.now += 600
        assert await processor.step() == 2
        assert own.known == {"cs_1": "complete", "in_1": "open"}
        async with own.database.reading() as connection:
            (dead,) = await receiver.list_events(connection, EventState.DEAD, None, 10)
        assert dead["object"] == "in_2"
        assert dead["error"] == f"in_2 is about cs_never, a purchase that is not booked yet{DELIVERED}"

    play(database, work)


def test_many_events_of_one_failing_object_make_no_dead_letter(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        own.upstream.broken.add("in_1")
        for status in STATES * 4:
            await own.receive(own.upstream.change("in_1", status))
            await own.processor.step()
        assert await own.count_by_state() == {"waiting": 12}
        own.upstream.broken.clear()
        own.upstream.now += PAUSES[1]
        await own.processor.step()
        assert await own.count_by_state() == {"applied": 12}

    play(sqlite_database, work)


def test_stripe_outage_of_a_day_makes_no_dead_letter(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        own.upstream.away = True
        await own.receive(own.upstream.change("in_1", "open"))
        for _ in range(24):
            await own.processor.step()
            own.upstream.now += 3600
        assert await own.count_by_state() == {"waiting": 1}
        own.upstream.away = False
        await own.processor.step()
        assert own.known == {"in_1": "open"}

    play(sqlite_database, work)


def test_alert_says_that_a_list_of_events_was_not_read_for_hours(sqlite_database: str) -> None:
    async def fail(own: Books) -> list[str]:
        with pytest.raises(StripeUnavailableError):
            await own.processor.complete()
        return await own.list_alerts()

    async def work(own: Books) -> None:
        await own.processor.poll()
        own.upstream.now += DAY
        own.processor = own.build()  # A collector that was stopped for a day.
        own.upstream.failure = StripeUnavailableError("no answer")
        assert await fail(own) == []
        own.upstream.now += UNREAD_SECONDS_MAX - 1
        assert await fail(own) == []
        own.upstream.now += 1
        expected = ["Stripe has not returned its list of events (snapshots) for 6 hours"]
        assert [await fail(own) for _ in range(2)] == [expected, expected], "once a day"

    play(sqlite_database, work)


def test_alert_says_at_once_that_the_key_lacks_a_permission(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        own.upstream.failure = StripeDeniedError("403")
        with pytest.raises(StripeUnavailableError):
            await own.processor.complete()
        assert await own.list_alerts() == [
            "Stripe denies us its list of events (snapshots): check the permissions of the API key"
        ]
        own.upstream.away = True
        await own.receive(own.upstream.change("in_1", "open"))
        await own.processor.step()
        assert (
            "Stripe denies us objects of type invoice: check the permissions of the API key" in await own.list_alerts()
        )
        assert await own.count_by_state() == {"waiting": 1}, "the event is applied after the key gets the permission"

    play(sqlite_database, work)


@pytest.mark.parametrize(
    ("outcome", "expected"), [(CallOutcome.DENIED, StripeDeniedError), (CallOutcome.BUSY, StripeUnavailableError)]
)
async def test_denied_calls_raise_their_own_error(outcome: CallOutcome, expected: type[StripeUnavailableError]) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StripeCallError(outcome, "no")

    objects = StripeObjects(cast("Stripe", SimpleNamespace(call=fail, list_all=fail)))
    for call in (
        objects.fetch("invoice", "in_1"),
        objects.list_events(NOW),
        objects.list_thin_events(NOW),
        objects._find_paid_invoice({"payment_intent": "pi_1"}),
    ):
        with pytest.raises(StripeUnavailableError) as caught:
            await call
        assert type(caught.value) is expected


def test_an_event_that_is_not_stored_is_fetched_to_be_replayed(sqlite_database: str) -> None:
    async def work(own: Books) -> None:
        event = own.upstream.change("in_1", "open")
        assert await own.processor.replay(event["id"])
        await own.processor.step()
        assert own.known == {"in_1": "open"}
        assert not await own.processor.replay("evt_999")

    play(sqlite_database, work)


def test_old_events_are_deleted_unless_pending(database: str) -> None:
    async def work(own: Books) -> None:
        upstream = own.upstream
        upstream.broken.add("in_dead")
        old = [upstream.change(id, "open") for id in ("in_applied", "in_dead")]
        ignored = upstream.change("in_other", "open") | {"type": "payout.paid"}
        await own.receive(*old, ignored)
        for pause in (*PAUSES, 0):
            await own.processor.step()
            upstream.now += pause
        before = int(upstream.now * 1000) + 1
        upstream.now += 60
        await own.receive(upstream.change("in_waiting", "open"))
        assert await own.count_by_state() == {"applied": 1, "ignored": 1, "dead": 1, "waiting": 1}
        async with own.database.writing() as connection:
            assert await receiver.drop_events(connection, before - 10**8) == 0
            assert await receiver.drop_events(connection, before) == 2
            assert await receiver.drop_events(connection, before) == 0
        assert await own.count_by_state() == {"dead": 1, "waiting": 1}

    play(database, work)


def test_thin_events_that_were_lost_are_recovered_once(database: str, stripe_sandbox: Sandbox) -> None:
    kind, name = "v1.billing.meter.error_report_triggered", f"lost_{database.partition(':')[0]}"

    async def listen(client: package.StripeClient) -> tuple[str, str]:
        meter = await client.v1.billing.meters.create_async(
            {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
        )
        destination = await client.v2.core.event_destinations.create_async(
            {
                "name": name,
                "type": "webhook_endpoint",
                "event_payload": "thin",
                "enabled_events": [kind],
                "webhook_endpoint": {"url": "http://127.0.0.1:9/"},
            }
        )
        return meter.id, destination.id

    meter, destination = stripe_sandbox.run(listen)
    stripe_sandbox.faults({"kind": "webhook_lost", "path": "v1.billing.meter."})
    try:
        for number in range(3):
            stripe_sandbox.uncounted(name, f"{name} {number}")
        (lost,) = stripe_sandbox.control("faults")["faults"]
        assert lost["met"] >= 3, "destinations of others lose theirs too"
    finally:
        stripe_sandbox.faults()
        stripe_sandbox.call("DELETE", f"/v2/core/event_destinations/{destination}")
    ids = [one["id"] for one in stripe_sandbox.call("GET", f"/v2/core/events?object_id={meter}").json()["data"]]
    assert len(ids) == 3
    reports: list[Mapping[str, Any]] = []

    async def write(_: AsyncConnection, report: Mapping[str, Any]) -> None:
        reports.append(report)

    async def work(own: Books) -> None:
        stripe = Stripe(Settings(base=stripe_sandbox.url), {"STRIPE_SECRET_KEY": KEY})
        try:
            there = StripeObjects(stripe)
            poller = Processor(own.database, there, {REPORT: write}, own.payloads, live=False)
            assert await poller.replay(ids[0]), "a missing payload is fetched"
            assert await poller.poll() >= 2
            assert await poller.poll() == 0
            while await poller.step():
                pass
            assert Counter(report["id"] for report in reports if report["id"] in ids) == dict.fromkeys(ids, 1)
            notice = {name: value for name, value in reports[0].items() if name != "data"}
            assert await own.receive(notice) == 0, "a webhook that comes after all is known"
        finally:
            await stripe.close()

    play(database, work)
