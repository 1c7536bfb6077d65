"""Alert delivery: routing, retries, abandoned alerts, replay, escalation, and recovery of a killed collector."""

import asyncio
import base64
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector import alert_handling as handling
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.alerts import deliveries, reports
from edgeproxy.collector.alerts.alert import HOURLY_MAX, Alert, raise_once
from edgeproxy.collector.alerts.deliveries import Recipient
from edgeproxy.collector.alerts.delivery import NO_CONTACTS, AlertSender
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.alerts.message import ServiceSite
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.encryption.data_keys import SealedValueError
from edgeproxy.collector.encryption.keyring import KeysUnavailableError
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.alerts import Alerts
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, REGIONAL, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import STEP, until
from tests.support.mailbox import text_of
from tests.support.receivers import MailTaker, Receiver

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # The test server uses AUTH without TLS on this host.
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def mail() -> Iterator[MailTaker]:
    with MailTaker() as mail_taker:
        yield mail_taker


def channels(hooks: Receiver, mail: MailTaker, folder: str) -> dict[str, Any]:
    """Return webhook channels `pager` and `ops` and a mail channel. Tests share receivers and have their own paths."""
    made: dict[str, Any] = {
        name: {"webhook": f"http://{HOST}:{hooks.port}/{folder}/{name}", "secret": SECRET} for name in ("pager", "ops")
    }
    smtp = f"smtp://me:p%40ss@{HOST}:{mail.port}"
    return {**made, "mail": {"smtp": smtp, "from": "alerts@example.com", "to": f"{folder}@example.com"}}


def alert(key: str, severity: Severity = "warn", customer: str | None = None) -> Alert:
    return Alert(
        key=key,
        kind=AlertKind.USAGE_ANOMALY,
        severity=severity,
        title=f"it is {key}",
        customer=customer,
        at=time.time(),
    )


async def contacts(_: AsyncConnection, names: Iterable[str]) -> dict[str, Recipient]:
    return {name: Recipient(f"{name}@customer.test", "de") for name in names if name != "silent"}


async def fetch_names(_: AsyncConnection, name: str) -> tuple[str, str]:
    return name, f'"{name}" GmbH'


class Way:
    """An alert delivery on a test database."""

    def __init__(self, database: Database, delivery: AlertSender) -> None:
        self.database, self.delivery = database, delivery

    async def raised(self, *some: Alert) -> None:
        async with self.database.writing() as connection:
            for one in some:
                assert await raise_once(connection, one)

    async def standing(self) -> dict[tuple[str, str], str]:
        """Return the state of each delivery, by the alert's key and the channel."""
        expected = sa.select(alerts.c.key, alert_deliveries.c.channel, alert_deliveries.c.state)
        async with self.database.reading() as connection:
            rows = await connection.execute(expected.join(alert_deliveries, alert_deliveries.c.alert == alerts.c.id))
            return {(key, channel): state for key, channel, state in rows}

    async def until(self, condition: Callable[[dict[tuple[str, str], str]], bool]) -> None:
        """Run delivery steps until the states meet the condition."""
        async with asyncio.timeout(60):
            while not condition(await self.standing()):
                await self.delivery.step(time.time())
                await asyncio.sleep(STEP)

    async def all_sent(self, count: int) -> None:
        await self.until(lambda found: list(found.values()) == ["sent"] * count)

    async def set(self, table: sa.Table, **values: Any) -> None:
        async with self.database.writing() as connection:
            await connection.execute(sa.update(table).values(**values))


@asynccontextmanager
async def way(url: str, **settings: Any) -> AsyncIterator[Way]:
    database = await Database.connect(url)
    try:
        site = ServiceSite("Example")
        sender = AlertSender(database, Alerts.model_validate(settings), Metrics(), contacts, site, fetch_names)
        yield Way(database, sender)
    finally:
        await database.close()


async def test_many_keys_that_end_send_few_messages(database: str, hooks: Receiver, mail: MailTaker) -> None:
    folder = f"flood-{time.time_ns()}"

    async def fetch_readers(_: AsyncConnection, __: str, roles: Collection[str]) -> list[Recipient]:
        assert roles == {"owner", "developer"}
        return [Recipient(f"{folder}@customer.test", None)]

    async with way(
        database, channels=channels(hooks, mail, folder), routes={"info": ["ops"]}, customers="mail"
    ) as created:
        created.delivery._notices = NO_CONTACTS._replace(fetch_readers=fetch_readers)
        for number in range(HOURLY_MAX + 3):
            ends = Alert(
                key=f"{folder}:{number}",
                kind=AlertKind.KEY_ENDS_SOON,
                title="it ends",
                customer="silent",
                at=time.time(),
            )
            await created.raised(ends)
        await created.delivery._route(time.time())
        assert len(await created.standing()) == 2 * HOURLY_MAX, "operators get as many"


def test_alert_is_routed_by_severity_and_to_its_customer(database: str, hooks: Receiver, mail: MailTaker) -> None:
    folder = f"routes-{time.time_ns()}"
    routes = {"page": ["pager", "pager"], "info": ["ops"]}

    async def run() -> None:
        async with way(database, channels=channels(hooks, mail, folder), routes=routes, customers="mail") as created:
            own = [alert("own", "info", "acme"), alert("silent", "info", "silent")]
            await created.raised(alert("loud", "page"), alert("middling"), *own)
            await created.all_sent(5)
            assert (await created.standing()).keys() == {
                ("loud", "pager"),
                ("middling", "ops"),  # warn has no route, so the channels of the next lower severity are used.
                ("own", "ops"),
                ("own", "mail:customer"),
                ("silent", "ops"),
            }

    asyncio.run(run())
    assert len(hooks.on(f"/{folder}/pager")) == 1
    assert len(hooks.on(f"/{folder}/ops")) == 3
    theirs = mail.to("acme@customer.test")[-1]
    assert "it is own" in theirs["Subject"]
    assert 'Kunde: "acme" GmbH' in text_of(theirs), "the mail is in the customer's language, and has its name"
    assert mail.to("silent@customer.test") == []


async def test_without_customer_keys_operators_are_alerted_and_customers_later(
    database: str, hooks: Receiver, mail: MailTaker
) -> None:
    folder, name = f"keys-{time.time_ns()}", f"kept-{time.time_ns()}"
    errors: list[Exception] = [SealedValueError("changed"), KeysUnavailableError("away"), KeysUnavailableError("away")]

    async def locked(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Recipient]:
        if errors:
            raise errors.pop()
        return await contacts(connection, names)

    settings = {"channels": channels(hooks, mail, folder), "routes": {"info": ["ops"]}, "customers": "mail"}
    async with way(database, **settings) as created:
        created.delivery._contacts = locked
        await created.raised(alert("own", customer=name), alert("theirs"))
        await created.until(lambda found: list(found.values()).count("sent") == 2)
        assert (await created.standing())["own", "mail:customer:locked"] == "due"
        await created.until(lambda _: len(errors) == 1)
        assert mail.to(f"{name}@customer.test") == []
        await created.set(alert_deliveries, due_at=0)
        await created.until(lambda found: found["own", "mail:customer:locked"] == "dead")
        async with created.database.writing() as connection:
            (one,) = (await connection.execute(sa.select(alerts.c.id).where(alerts.c.key == "own"))).scalars()
            await deliveries.replay_deliveries(connection, one, "mail:customer:locked", 0)
        await created.until(lambda found: found.get(("own", "mail:customer")) == "sent")
    assert len(mail.to(f"{name}@customer.test")) == 1


@pytest.mark.both_databases
def test_failed_delivery_is_retried_abandoned_and_can_be_replayed(
    database: str, hooks: Receiver, mail: MailTaker
) -> None:
    folder = f"retries-{time.time_ns()}"
    hooks.statuses[f"/{folder}/ops"] = [500, 410]

    async def run() -> None:
        async with way(database, channels=channels(hooks, mail, folder), routes={"info": ["ops"]}) as created:
            await created.raised(alert("a"), alert("b"))
            columns = alert_deliveries.c
            # The first waits after a 500. The second continues and gets a 410, which is permanent.
            await created.until(lambda found: "dead" in found.values())
            async with created.database.reading() as connection:
                first, second = (
                    await connection.execute(sa.select(alert_deliveries).order_by(columns.state.desc()))
                ).all()
            assert (first.state, first.attempts, first.error) == ("due", 1, "it answers 500")
            assert first.due_at > time.time() * 1000
            assert (second.state, second.error) == ("dead", "it answers 410")
            await created.set(alert_deliveries, due_at=0)
            await created.until(lambda found: "sent" in found.values())
            # The task of this channel would deliver the next alert before its attempts are set.
            await created.until(lambda _: not created.delivery._busy)
            # Its last attempt.
            hooks.statuses[f"/{folder}/ops"] = [500]
            await created.raised(alert("c"))
            await created.delivery._route(time.time())
            async with created.database.writing() as connection:
                await connection.execute(sa.update(alert_deliveries).where(columns.state == "due").values(attempts=10))
            await created.until(lambda found: list(found.values()).count("dead") == 2)
            async with created.database.writing() as connection:
                for dead in await reports.list_alerts(connection, None, 10, state="dead"):
                    assert await deliveries.replay_deliveries(connection, dead["id"], None, 0) == ["ops"]
                    assert await deliveries.replay_deliveries(connection, dead["id"], None, 0) == [], (
                        "the delivery is under way"
                    )
            await created.all_sent(3)
            async with created.database.writing() as connection:
                assert await deliveries.replay_deliveries(connection, first.alert, "ops", 0) == ["ops"], (
                    "if asked for, also what was sent"
                )
            await created.all_sent(3)

    asyncio.run(run())
    ids = [hook.fields["webhook-id"] for hook in hooks.on(f"/{folder}/ops")]
    assert len(ids) == 7
    assert len(set(ids)) == 3, "an alert has one id in all attempts"


def test_undelivered_alert_is_escalated_once(database: str, hooks: Receiver, mail: MailTaker) -> None:
    folder = f"escalation-{time.time_ns()}"
    hooks.statuses[f"/{folder}/ops"] = [500] * 50
    routes = {"page": ["pager"], "warn": ["ops", "gone"]}

    async def run() -> None:
        async with way(database, channels=channels(hooks, mail, folder), routes=routes, escalate="60s") as created:
            await created.raised(alert("a"))
            await created.until(lambda found: len(found) == 2)
            await created.set(alerts, routed_at=0)
            created.delivery._counted_at = float("-inf")
            await created.until(lambda found: found.get(("a", "pager")) == "sent")
            assert (await created.standing())["a", "ops"] == "due"
            await created.raised(alert("b", "page"))
            await created.until(lambda found: found.get(("b", "pager")) == "sent")

    asyncio.run(run())
    assert len(hooks.on(f"/{folder}/pager")) == 2


async def test_muted_alerts_are_not_sent_and_acknowledged_ones_not_escalated(
    database: str, hooks: Receiver, mail: MailTaker
) -> None:
    """Operators and the customer mute independently. A mute covers one customer's alerts and ends."""
    folder = f"handled-{time.time_ns()}"
    hooks.statuses[f"/{folder}/ops"] = [500] * 50
    routes = {"page": ["pager"], "warn": ["ops"]}
    caller = Caller("ops@example.com")

    made_of = {"channels": channels(hooks, mail, folder), "routes": routes, "customers": "mail", "escalate": "60s"}
    async with way(database, **made_of) as created:
        await created.raised(alert("first", "warn", "acme"))
        await created.until(lambda found: found.get(("first", "mail:customer")) == "sent")
        now = round(time.time() * 1000)
        async with created.database.writing() as connection:
            first = await handling.get_subject(connection, 1)
            await handling.mute(connection, caller, first, "operator", now + 3_600_000, "a load test", now)
            await handling.acknowledge(connection, caller, first, "operator", None, now)
        await created.raised(alert("second", "warn", "acme"), alert("third", "warn", "bolt"))
        await created.until(lambda found: found.get(("third", "mail:customer")) == "sent")
        standing = await created.standing()
        assert ("second", "ops") not in standing, "operators have muted it"
        assert (standing["second", "mail:customer"], ("third", "ops") in standing) == ("sent", True)
        await created.set(alerts, routed_at=0)
        created.delivery._counted_at = float("-inf")
        await created.until(lambda found: ("third", "pager") in found)
        assert ("first", "pager") not in await created.standing(), "the delivery is acknowledged"
        async with created.database.writing() as connection:
            await handling.mute(connection, caller, first, "operator", now - 1, "over", now)
        await created.raised(alert("fourth", "warn", "acme"))
        await created.until(lambda found: ("fourth", "ops") in found)


def test_two_collectors_send_each_alert_once_even_after_a_kill(
    tmp_path: Path, postgresql: Postgresql, hooks: Receiver, mail: MailTaker
) -> None:
    """The first is killed while the receiver has its message and has not answered yet."""
    folder = "collectors"
    where = f"/{folder}/ops"
    said = {"channels": channels(hooks, mail, folder), "routes": {"info": ["ops"]}, "customers": "mail"}
    meters = {"tokens": {"count": "events"}}
    url = postgresql.database()
    more = {"pages": {"url": "https://console.example.com"}, "rotation": {"deliver": "portal"}}
    one, other = (Collector(tmp_path / name, url, alerts=said, meters=meters, **more) for name in ("one", "other"))
    hooks.held.add(where)
    with closing(one), closing(other):
        one.start()
        address = {"metadata": {"alert_email": "own@bound.test"}, "tier": "basic", "rotate_every": "0s"}
        assert one.send("POST", "/v1/customers", {"name": "bound", **address}).status == 201
        key = one.send("POST", "/v1/customers/bound/keys", {}).json()
        # An unreadable batch and a missing one.
        chain = Chain()
        broken = chain.next()
        assert one.post(broken, fields={"Edge-Hash": "0" * 64}).status == 422
        until(lambda: hooks.on(where), "the receiver has the first message")
        other.start()
        assert other.send("POST", "/v1/events", {"meter": "?"}, token="service-token").status == 202
        one.kill()
        hooks.held.discard(where)
        until(lambda: len({hook.json()["data"]["key"] for hook in hooks.on(where)}) == 3, "all three are there")
        until(lambda: mail.to("own@bound.test"), "the customer is told of the key")
        (told,) = {text_of(one) for one in mail.to("own@bound.test")}
        assert "Rotate the key:\nhttps://console.example.com/account/keys\n" in told.replace("\r\n", "\n")
        assert key["secret"] not in told
        until(lambda: other.get("/v1/alerts", state="due").json()["alerts"] == [], "nothing is due")
        told = other.get("/v1/alerts").json()["alerts"]
        assert sorted(row["kind"] for row in told) == ["batches_quarantined", "events_rejected", "key_rotation_due"]
        by_key = {}
        for hook in hooks.on(where):
            by_key.setdefault(hook.json()["data"]["key"], set()).add(hook.fields["webhook-id"])
        assert [len(ids) for ids in by_key.values()] == [1, 1, 1], "a repeated message keeps its id"
        assert len(hooks.on(where)) <= 4, "the one that was under way may have come twice"

        # Permissions to read alerts and to replay them.
        (own,) = other.get("/v1/alerts", token=OWN).json()["alerts"]
        assert (own["customer"], own["kind"], "deliveries" in own) == ("bound", "key_rotation_due", False)
        assert other.get("/v1/alerts", token=OWN, customer="acme").status == 403
        assert other.get("/v1/alerts", token=OWN, state="dead").status == 403
        assert other.get("/v1/alerts", token=EDGE).status == 403
        page = other.get("/v1/alerts", limit="2").json()
        rest = other.get("/v1/alerts", limit="2", cursor=str(page["next"])).json()
        assert [row["id"] for row in page["alerts"] + rest["alerts"]] == [row["id"] for row in told]
        assert "next" not in rest
        replay = f"/v1/alerts/{own['id']}/replay"
        assert other.send("POST", replay, token=READ).status == 403
        assert other.send("POST", replay).status == 409, "no channel has given it up"
        assert other.send("POST", "/v1/alerts/999999/replay").status == 404
        assert other.send("POST", "/v1/alerts/x/replay").status == 404
        before = len(hooks.on(where))
        assert other.send("POST", f"{replay}?channel=ops").status == 200
        until(lambda: len(hooks.on(where)) > before, "the delivery is sent again")
        environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{other.port}", "EDGEPROXY_TOKEN": ADMIN}
        listed = CliRunner().invoke(cli.app, ["alerts", "ls", "--kind", "key_rotation_due"], env=environ)
        assert listed.exit_code == 0, listed.output
        assert "mail:customer sent, ops sent" in listed.output
        again = CliRunner().invoke(cli.app, ["alerts", "replay", str(own["id"]), "--channel", "mail"], env=environ)
        assert (again.exit_code, "it has not gone by the channel mail" in again.output) == (1, True), again.output
        entries = other.get("/v1/audit", token=ADMIN, action="alert.replay").json()["entries"]
        assert [(row["target"], row["after"]) for row in entries] == [(str(own["id"]), {"channels": ["ops"]})]

        # A reload changes the routes.
        other.settings["alerts"] = {**said, "routes": {"info": ["pager"]}}
        other.write()
        assert other.process is not None
        other.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in other.output, "the collector has reloaded")
        of_another = Chain(region="eu-bound").next()
        assert other.post(of_another, fields={"Edge-Hash": "0" * 64}, token=REGIONAL).status == 422
        until(lambda: hooks.on(f"/{folder}/pager"), "the alert goes to the escalation channel")
        secrets = (SECRET, SECRET.removeprefix("whsec_"), "p%40ss", "p@ss", f"{hooks.port}{where}")
        texts = (one.output, other.output, str(told), str(entries))
        assert not any(secret in text for secret in secrets for text in texts)
