"""Delivery of webhook messages: signatures, retries, abandoned messages and redelivery. The tests set the time."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook, WebhookVerificationError

from edgeproxy.collector.accounts import keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.accounts.models import CreateKeyRequest
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import invoices as invoice_rows
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_messages
from edgeproxy.collector.database.webhook_tables import webhook_endpoints as webhook_endpoints_table
from edgeproxy.collector.jobs.webhooks import WebhookJobs
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.privacy.erasure import erase_due_customers
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.endpoints import EndpointRow
from edgeproxy.collector.webhook_endpoints.models import CreateWebhookEndpointRequest, UpdateWebhookEndpointRequest
from edgeproxy.collector.webhooks import sender as sending
from edgeproxy.collector.webhooks.messages import RETENTION_SECONDS
from edgeproxy.collector.webhooks.retries import JITTER, STANDARD_BACKOFF_SECONDS
from edgeproxy.config.collector.webhooks import Webhooks
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from tests.support.interleaved import interleave
from tests.support.receivers import Hook, Receiver

CALLER = Caller("test")
KEY, OTHER_KEY = (base64.b64encode(letter * 32).decode() for letter in (b"k", b"o"))
SETTINGS = Webhooks.model_validate({"encryption": KEY, "networks": ["127.0.0.0/8"]})
NOW = time.time()
NUMBER = generate_id()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


class Stage:
    """The customer acme on a test database, and a sender with a time set by the test."""

    def __init__(self, database: Database, receiver: Receiver, folder: str) -> None:
        self.database, self.receiver, self.folder = database, receiver, folder
        self.settings = SETTINGS
        self.metrics = Metrics()
        self.jobs = WebhookJobs(database, lambda: self.settings, self.metrics)

    async def add(self, path: str, **fields: Any) -> tuple[str, str]:
        """Create an endpoint. Return its id and its secret."""
        url = f"http://{HOST}:{self.receiver.port}{self.path(path)}"
        new = CreateWebhookEndpointRequest.model_validate({"url": url, **fields})
        async with self.database.writing() as connection:
            created = await endpoints.create_endpoint(connection, CALLER, "acme", new, self.settings)
        return created["id"], created["secret"]

    def path(self, path: str) -> str:
        return f"/{self.folder}/{path}"

    def got(self, path: str) -> list[Hook]:
        return self.receiver.on(self.path(path))

    async def row(self, endpoint: str) -> EndpointRow:
        async with self.database.reading() as connection:
            return await endpoints.get_row(connection, "acme", endpoint)

    async def test(self, endpoint: str) -> str:
        """Queue a test message and return its id."""
        row = await self.row(endpoint)
        async with self.database.writing() as connection:
            return (await endpoints.send_test(connection, CALLER, row))["id"]

    async def update(self, endpoint: str, **fields: Any) -> None:
        row, change = await self.row(endpoint), UpdateWebhookEndpointRequest.model_validate(fields)
        async with self.database.writing() as connection:
            await endpoints.update_endpoint(connection, CALLER, row, change, self.settings, None)

    async def step(self, now: float) -> None:
        """Send the messages due at `now`, and wait for the answers."""
        await self.jobs.sender.step(now)
        await self.jobs.sender.wait_idle()

    async def messages(self, endpoint: str) -> list[Any]:
        row = await self.row(endpoint)
        async with self.database.reading() as connection:
            return list(await endpoints.list_messages(connection, row, None, 100))


@asynccontextmanager
async def staged(url: str, receiver: Receiver, folder: str) -> AsyncIterator[Stage]:
    database = await Database.connect(url)
    try:
        async with database.writing() as connection:
            for name in ("acme", "bolt"):
                row = {"id": f"id-{name}", "name": name, "tier": "basic", "settings": '{"tier":"basic"}'}
                about = {"metadata": "{}", "created_at": 1, "version": 1}
                await connection.execute(sa.insert(customers), [{**row, **about}])
        yield Stage(database, receiver, f"{folder}-{time.time_ns()}")
    finally:
        await database.close()


def verify(secret: str, hook: Hook) -> Any:
    """Decode a request with the customers' library, which raises if `secret` did not sign it."""
    return Webhook(secret).verify(hook.body, hook.fields)


async def test_event_is_sent_signed_to_endpoints_subscribed_to_its_type(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "types") as stage:
        _, secret = await stage.add("all")
        await stage.add("paid", types=["invoice.paid"])
        disabled, _ = await stage.add("disabled")
        await stage.update(disabled, state="disabled")
        about = {"kind": AlertKind.QUOTA_REACHED, "severity": "info", "at": NOW}
        alert = Alert(key="q", title="half", customer="acme", details={"threshold": 50}, **about)
        of_other = Alert(key="o", title="half", customer="bolt", **about)
        async with stage.database.writing() as connection:
            assert await raise_once(connection, alert)
            assert await raise_once(connection, of_other)
            assert not await raise_once(connection, alert), "an alert is one message"
            new = CreateKeyRequest.model_validate({"name": "production"})
            created = await keys.create_key(connection, CALLER, "acme", new)
            zeros = dict.fromkeys(("subtotal", "period_start", "period_end", "failures", "tries", "try_at"), 0)
            own = {"id": NUMBER, "customer": "id-acme", "period": "2027-01-01", "kind": "period", "total": 5}
            closing = {"state": "closing", "currency": "usd", "closes_at": 0, "created_at": 0, "held_why": "?"}
            await connection.execute(sa.insert(invoice_rows), [{**zeros, **own, **closing}])
            await invoices.transition(connection, NUMBER, "closing", "paid", amount_paid=5)
        async with stage.database.writing() as connection, connection.begin_nested() as change:
            await keys.revoke_key(connection, CALLER, created["id"])
            await change.rollback()  # This removes the message too.
        await stage.step(time.time() + 1)
        await stage.step(time.time() + 2)
        bodies = {(body := verify(secret, hook))["type"]: body for hook in stage.got("all")}
        assert sorted(bodies) == ["invoice.created", "invoice.paid", "key.created", "usage.threshold_reached"]
        assert bodies["usage.threshold_reached"]["data"]["details"] == {"threshold": 50}
        assert bodies["key.created"]["data"]["id"] == created["id"]
        assert created["secret"] not in str(bodies)
        invoice = bodies["invoice.paid"]["data"]
        assert (invoice["id"], invoice["customer"], invoice["amount_paid"]) == (NUMBER, "acme", 5)
        assert invoice["held_why"] is None, "the reason is for operators only"
        assert [hook.json()["type"] for hook in stage.got("paid")] == ["invoice.paid"]
        assert stage.got("disabled") == []


async def test_both_secrets_sign_for_a_day_after_a_rotation(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "secrets") as stage:
        endpoint, first = await stage.add("a")
        row = await stage.row(endpoint)
        async with stage.database.writing() as connection:
            second = (await endpoints.rotate_secret(connection, CALLER, row, SETTINGS))["secret"]
        await stage.test(endpoint)
        await stage.step(time.time() + 1)
        (hook,) = stage.got("a")
        assert verify(first, hook) == verify(second, hook)
        message, later = await stage.test(endpoint), int(time.time()) + 24 * 3600 + 1
        await stage.step(later)
        (_, hook) = stage.got("a")  # Compare signatures: the library's verification refuses a time in the future.
        signature = Webhook(second).sign(message, datetime.fromtimestamp(later, UTC), hook.body.decode())
        assert hook.fields["webhook-signature"] == signature, "the first signs no more"
        tampered = hook._replace(body=hook.body.replace(b"acme", b"bolt"))
        with pytest.raises(WebhookVerificationError):
            verify(second, tampered)
        # After a change of the encryption key the old key still decrypts. Without it no message is sent.
        stage.settings = SETTINGS.model_copy(update={"encryption": (OTHER_KEY, KEY)})
        await stage.test(endpoint)
        await stage.step(time.time() + 1)
        assert verify(first, stage.got("a")[2])
        stage.settings = SETTINGS.model_copy(update={"encryption": (OTHER_KEY,)})
        await stage.test(endpoint)
        await stage.step(time.time() + 2)
        assert len(stage.got("a")) == 3
        (last, *_) = await stage.messages(endpoint)
        assert (last["state"], last["error"]) == ("due", sending.NO_SECRET)
        assert (await stage.row(endpoint)).failing_since is None, "the failure is not the endpoint's"


async def test_failed_message_is_retried_abandoned_and_can_be_redelivered(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "retries") as stage:
        endpoint, _ = await stage.add("a")
        stage.receiver.statuses[stage.path("a")] = [500] * len(STANDARD_BACKOFF_SECONDS) + [307]
        message, now = await stage.test(endpoint), time.time() + 1
        for wait in STANDARD_BACKOFF_SECONDS:
            await stage.step(now)
            (tried,) = await stage.messages(endpoint)
            assert (tried["state"], tried["status"], tried["error"]) == ("due", 500, "it answers 500")
            created = len(stage.got("a"))
            await stage.step(now + wait - 1)
            assert len(stage.got("a")) == created, "not before its time"
            now += wait * (1 + JITTER) + 1
        await stage.step(now)
        (dead,) = await stage.messages(endpoint)
        assert (dead["state"], dead["attempts"], dead["status"], dead["next_at"]) == ("dead", 10, 307, None)
        await stage.step(now + 10 * 86400)
        assert len(stage.got("a")) == 10
        row = await stage.row(endpoint)
        assert row.failing_since is not None
        assert row.state == "enabled", "three days are no five"
        async with stage.database.writing() as connection:
            again = await endpoints.redeliver_message(connection, CALLER, row, message)
            assert (again["state"], again["attempts"]) == ("due", 0)
            with pytest.raises(ChangeRejectedError, match="on its way"):
                await endpoints.redeliver_message(connection, CALLER, row, message)
            with pytest.raises(ChangeRejectedError, match="no such message"):
                await endpoints.redeliver_message(connection, CALLER, row, message[:-1])
        await stage.step(now + 10 * 86400)
        assert {hook.fields["webhook-id"] for hook in stage.got("a")} == {message}
        assert {hook.body for hook in stage.got("a")} == {stage.got("a")[0].body}
        assert (await stage.messages(endpoint))[0]["state"] == "sent"
        assert (await stage.row(endpoint)).failing_since is None
        attempts = stage.metrics.webhook_attempts
        counts = [attempts.labels(result)._value.get() for result in ("sent", "failed", "dead")]
        assert counts == [1, 9, 1]


async def test_failure_and_deletion_of_an_endpoint_do_not_deadlock(postgresql: Postgresql, receiver: Receiver) -> None:
    url = postgresql.database()

    async with staged(url, receiver, "locks") as stage:
        endpoint, _ = await stage.add("a")
        await stage.test(endpoint)

        async def delete(database: Database) -> None:
            async with database.writing() as connection:
                row = await endpoints.get_row(connection, "acme", endpoint, lock=True)
                await endpoints.delete_endpoint(connection, CALLER, row)

        stage.receiver.statuses[stage.path("a")], now = [500], time.time() + 1
        stop = "UPDATE webhook_deliveries SET state"
        await interleave(stage.database, url, lambda _: stage.step(now), stop, delete)


@pytest.mark.parametrize(("field", "seconds"), [("120", 120), ("999999", 3600), ("-1", 5), ("soon", 5)])
async def test_retry_after_is_honored_within_bounds(
    tmp_path: Any, receiver: Receiver, postgresql: object, field: str, seconds: int
) -> None:
    async with staged(f"sqlite:///{tmp_path}/ledger.db", receiver, "later") as stage:
        endpoint, _ = await stage.add("a")
        stage.receiver.statuses[stage.path("a")], stage.receiver.fields = [503], {"Retry-After": field}
        await stage.test(endpoint)
        now = time.time() + 1
        try:
            await stage.step(now)
        finally:
            stage.receiver.fields = {}
        async with stage.database.reading() as connection:
            due_at = (await connection.execute(sa.select(webhook_deliveries.c.due_at))).scalar_one()
        assert seconds <= due_at / 1000 - now <= seconds * 1.2 + 1


async def test_gone_or_long_failing_endpoint_is_disabled_with_an_alert(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "disabled") as stage:
        gone, _ = await stage.add("gone")
        failing, _ = await stage.add("failing")
        other, _ = await stage.add("other")
        now = time.time() + 1
        stage.receiver.statuses[stage.path("gone")] = [410]
        stage.receiver.statuses[stage.path("failing")] = [500] * 9
        for endpoint in (gone, failing):
            await stage.test(endpoint)
        await stage.step(now)
        assert (await stage.row(gone)).disabled_why == "it answers 410: it wants no more messages"
        assert (await stage.messages(gone))[0]["state"] == "dead"
        await stage.step(now + 4 * 86400)
        assert (await stage.row(failing)).state == "enabled"
        await stage.test(failing)
        await stage.step(now + 6 * 86400)
        row = await stage.row(failing)
        assert row.state == "disabled"
        assert row.disabled_why is not None
        assert "5 days" in row.disabled_why
        # Queued messages of the disabled endpoint are abandoned without an attempt.
        tried = len(stage.got("failing"))
        await stage.step(now + 12 * 86400)
        await stage.step(now + 13 * 86400)
        assert {message["state"] for message in await stage.messages(failing)} == {"dead"}
        assert len(stage.got("failing")) == tried
        async with stage.database.reading() as connection:
            raised = (await connection.execute(sa.select(alerts).order_by(alerts.c.id))).all()
        assert [(one.kind, one.customer) for one in raised] == [("webhook_disabled", "acme")] * 2
        assert stage.folder not in str(raised), "the path of a URL may be a secret"
        told = [hook.json() for hook in stage.got("other")]
        assert [one["type"] for one in told] == ["webhook.disabled"] * 2
        assert {one["data"]["details"]["endpoint"] for one in told} == {gone, failing}
        assert (await stage.row(other)).state == "enabled"
        with pytest.raises(ChangeRejectedError, match="enable it first"):
            await stage.test(gone)
        await stage.update(gone, state="enabled")
        await stage.test(gone)
        await stage.step(now + 14 * 86400)
        assert len(stage.got("gone")) == 2


async def test_hanging_endpoint_delays_no_other_and_endless_answers_are_not_read(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SECONDS_MAX", 0.5)

    async with staged(database, receiver, "hanging") as stage:
        held, _ = await stage.add("held")
        endless, _ = await stage.add("endless")
        stage.receiver.held.add(stage.path("held"))
        stage.receiver.statuses[stage.path("endless")] = [200]  # The body of this answer never ends.
        for _ in range(7):
            await stage.test(held)
        await stage.test(endless)
        await stage.step(time.time() + 1)
        assert (await stage.messages(endless))[0]["state"] == "sent"
        errors = [message["error"] for message in await stage.messages(held)]
        assert errors.count("there was no answer within 0.5 s") == 5, "five at once, the others later"
        stage.receiver.held.discard(stage.path("held"))


async def test_leased_message_is_sent_by_another_collector_after_the_lease(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "leases") as stage:
        endpoint, _ = await stage.add("a")
        await stage.test(endpoint)
        now = time.time() + 1
        stage.receiver.held.add(stage.path("a"))
        await stage.jobs.sender.step(now)  # The request is sent and not answered yet.
        other = WebhookJobs(stage.database, lambda: SETTINGS, Metrics()).sender
        assert not await other.step(now + 59)
        assert await other.step(now + 61), "the first is taken for dead"
        stage.receiver.held.discard(stage.path("a"))
        await asyncio.gather(stage.jobs.sender.wait_idle(), other.wait_idle())
        (sent,) = await stage.messages(endpoint)
        assert (sent["state"], sent["attempts"]) == ("sent", 1), "the first may record nothing any more"


async def test_messages_are_deleted_after_their_retention(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "old") as stage:
        endpoint, _ = await stage.add("a")
        await stage.test(endpoint)
        assert await stage.jobs.drop_old(time.time() + RETENTION_SECONDS - 60) == 0
        assert await stage.jobs.drop_old(time.time() + RETENTION_SECONDS + 60) == 1
        async with stage.database.reading() as connection:
            for table in (webhook_messages, webhook_deliveries):
                assert (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one() == 0


async def test_erasing_a_customer_deletes_its_webhooks(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver, "erased") as stage:
        endpoint, _ = await stage.add("a")
        await stage.test(endpoint)
        async with stage.database.writing() as connection:
            gone = sa.update(customers).where(customers.c.name == "acme").values(deleting_since=1)
            await connection.execute(gone)
        assert [customer.name for customer in await erase_due_customers(stage.database, 2)] == ["acme"]
        async with stage.database.reading() as connection:
            for table in (webhook_endpoints_table, webhook_messages, webhook_deliveries):
                assert (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one() == 0
        await stage.step(time.time() + 1)
        assert stage.got("a") == []
