"""Notices at a real collector: each change is mailed once to contacts with the right role, also after a kill -9."""

import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from edgeproxy.collector.alerts.alert import HOURLY_MAX
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import OWN, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until
from tests.support.mailbox import text_of
from tests.support.receivers import MailTaker, Receiver

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # In the clear, on this host.


@pytest.fixture
def mail() -> Iterator[MailTaker]:
    with MailTaker() as mail_taker:
        yield mail_taker


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_owners_hear_of_keys_once_each_and_operators_where_they_ask(
    tmp_path: Path, postgresql: Postgresql, mail: MailTaker, hooks: Receiver
) -> None:
    smtp = f"smtp://me:p%40ss@{HOST}:{mail.port}"
    secret = "whsec_" + "a" * 40 + "=="
    channels = {
        "mail": {"smtp": smtp, "from": "alerts@example.com", "to": "ops@example.com"},
        "ops": {"webhook": f"http://{HOST}:{hooks.port}/ops", "secret": secret},
    }
    alerts = {"channels": channels, "routes": {"info": ["ops"]}, "customers": "mail"}
    pages = {"url": "https://console.example.com", "mail": {"server": f"{HOST}:{mail.port}", "sender": "a@example.com"}}
    collector = Collector(tmp_path / "one", postgresql.database(), alerts=alerts, pages=pages)

    def mails(address: str) -> list[str]:
        return [" ".join(text_of(one).split()) for one in mail.to(address)]

    with closing(collector):
        collector.start()
        assert collector.send("POST", "/v1/customers", {"name": "bound", "tier": "basic"}).status == 201
        keys = "/v1/customers/bound/keys"
        assert collector.send("POST", keys, {}).status == 201, "nobody would read of it"
        assert (
            collector.send(
                "PUT", "/v1/customers/bound/contacts", {"emails": ["ann@bound.test", "bob@bound.test"]}
            ).status
            == 200
        )
        key = collector.send("POST", keys, {"name": "server"}).json()
        collector.kill()
        collector.start()
        until(lambda: mails("ann@bound.test") and mails("bob@bound.test"), "both owners hear of the key")
        (text,) = set(mails("ann@bound.test"))
        assert f"Your key {key['start']}… was created" in text
        assert "By: the operator" in text
        assert "https://console.example.com/account/keys" in text
        assert key["secret"] not in text

        rotated = collector.send("POST", f"/v1/keys/{key['id']}/rotate", {}, token=OWN)
        assert rotated.status == 201, rotated
        assert collector.send("DELETE", f"/v1/keys/{rotated.json()['id']}").status == 200
        until(lambda: len(set(mails("ann@bound.test"))) == 3, "the owner hears of both")
        assert len([mail for mail in mails("ann@bound.test") if "By: one of your tokens" in mail]) == 1
        assert len([mail for mail in mails("ann@bound.test") if "was revoked" in mail]) == 1

        for _ in range(HOURLY_MAX + 3):
            assert collector.send("POST", keys, {}).status == 201
        listed = collector.get("/v1/alerts", kind="key_created", limit="100").json()["alerts"]
        assert len(listed) == HOURLY_MAX
        assert collector.get("/v1/alerts").json()["alerts"] == [], "operators are not bothered"
        assert len(collector.get("/v1/alerts", token=OWN, limit="100").json()["alerts"]) == HOURLY_MAX + 2
        assert hooks.on("/ops") == []


def test_low_credit_and_deletion_notices_are_mailed_once_despite_kills(
    tmp_path: Path, postgresql: Postgresql, mail: MailTaker
) -> None:
    smtp = f"smtp://me:p%40ss@{HOST}:{mail.port}"
    channels = {"mail": {"smtp": smtp, "from": "alerts@example.com", "to": "ops@example.com"}}
    pages = {"url": "https://console.example.com", "mail": {"server": f"{HOST}:{mail.port}", "sender": "a@example.com"}}
    settings = {"alerts": {"channels": channels, "customers": "mail"}, "pages": pages}
    database = postgresql.database()
    first, second = (Collector(tmp_path / name, database, **settings) for name in ("one", "two"))
    chain = Chain("e-credits", since=int(time.time()))

    def read_subjects(name: str) -> list[str]:
        by_id = {one["Message-ID"]: one["Subject"] for one in mail.to(f"{name}@zest.test")}
        return [subject for subject in by_id.values() if "added" not in subject]

    def give(millicredits: int) -> None:
        body = {"customer": "zest", "millicredits": millicredits, "why": "a test"}
        assert first.send("POST", "/billing/credits/adjust", body).status == 201

    def use(collector: Collector, millicredits: int, *subjects: str) -> None:
        assert collector.post(chain.next(("zest", "cost", "v1", millicredits))).status == 200
        until(lambda: read_subjects("ann") == [*subjects], f"the mails are {subjects}", seconds=30)

    with closing(first), closing(second):
        first.start()
        second.start()
        assert first.send("POST", "/v1/customers", {"name": "zest", "tier": "basic"}).status == 201
        for name, role in (("ann", "owner"), ("dev", "developer")):
            body = {"email": f"{name}@zest.test", "role": role}
            assert first.send("POST", "/v1/customers/zest/contacts", body).status == 201
        give(10_000_000)
        use(first, 7_900_000)
        low = "Your credits are running low: $1.99 left"
        use(second, 110_000, low)
        for collector in (first, second):
            collector.kill()
            collector.start()
        spent = "Your credits are used up"
        use(first, 2_000_000, low, spent)
        use(second, 100_000, low, spent)
        give(1_000_000)
        use(first, 850_000, low, spent, "Your credits are running low: $0.04 left")
        # Each recipient has a mail of its own: the developer's may come after the owner's next one.
        until(lambda: read_subjects("dev") == [spent], "developers hear only of refused requests", seconds=30)
        (text,) = {" ".join(text_of(one).split()) for one in mail.to("dev@zest.test") if one["Subject"] == spent}
        assert "Buy more credits, and they work again at once." in text
        assert "$" not in text, "developers see no amounts"
        assert "https://console.example.com/account/credits" in text

        for collector in (first, second):
            assert collector.send("DELETE", "/v1/customers/zest").status == 202
        until(lambda: read_subjects("ann")[3:] == ["The deletion of your account has begun"], "the owner hears of it")
        times = {one["Subject"]: parsedate_to_datetime(one["Date"]).timestamp() for one in mail.to("ann@zest.test")}
        assert [about for about, at in times.items() if abs(time.time() - at) > 600] == [], (
            "mails have the present time"
        )
