"""Updates of incidents by mail: confirmed addresses alone, each update once, and a flood of addresses is bounded."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import incident_updates, incidents, status_subscribers
from edgeproxy.collector.mails import mail
from edgeproxy.collector.mails.mail import AddressRefusedError
from edgeproxy.collector.pages import subscriptions
from edgeproxy.collector.pages.subscriptions import QUESTIONS_MAX, TRIES_MAX, StatusMails, confirm, insert_request
from edgeproxy.config.collector.pages import Pages
from loadtest.testbed.collector import Collector
from loadtest.testbed.fork_server import PAUSES
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.credited import run
from tests.support.mailbox import Mailbox, html_of, text_of
from tests.support.visitor import Visitor

TOKEN = re.compile(r"/status/(?:confirm|unsubscribe)\?token=([\w-]+)")

SHORT = " ".join(
    f"edgeproxy.collector.pages.{name}=0.5"
    for name in ("status:REFRESH_SECONDS", "maintenance_clock:ROUND_SECONDS", "subscriptions:MAILS_SECONDS")
)


class Stage:
    """A collector with a status page that may be subscribed to, and a visitor."""

    def __init__(self, folder: Path) -> None:
        self.mailbox = Mailbox()
        self.collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")
        mail = {"server": f"{HOST}:{self.mailbox.port}", "sender": "status@example.com", "tls": "none"}
        self.collector.environ[PAUSES] = SHORT
        self.collector.settings["pages"] = {"mail": mail, "status": {"name": "Example", "subscribe": True}}
        self.collector.start()
        self.visitor = Visitor(f"http://{HOST}:{self.collector.port}").__enter__()

    def close(self) -> None:
        """End everything."""
        self.visitor.__exit__(None, None, None)
        self.collector.close()
        self.mailbox.close()

    def subscribe(self, email: str, language: str = "en") -> int:
        """Enter an address on the page in a language; return the status."""
        self.visitor.get(f"/status/subscribe?lang={language}")
        self.visitor.send("/status/subscribe", email=email)
        return self.visitor.status

    def follow(self, path: str, token: str) -> int:
        """Open a link of a mail and press its button; return the status."""
        self.visitor.get(f"{path}?token={token}")
        self.visitor.send(path)
        return self.visitor.status

    def begin_incident(self, title: str) -> str:
        """Begin an incident; return its id."""
        body = {"severity": "P1", "title": title, "message": "We look into it."}
        answer = self.collector.send("POST", "/v1/incidents", body)
        assert answer.status == 201, answer
        return str(answer.json()["id"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(Stage(tmp_path)) as made:
        yield made


def token_in(text: str) -> str:
    (token,) = TOKEN.findall(text)
    return str(token)


def test_confirmed_subscriber_gets_each_update_once_until_unsubscribed(stage: Stage) -> None:
    stage.begin_incident("before anybody subscribed")
    assert stage.subscribe("Ann@example.org") == 200
    question = stage.mailbox.wait_for(1)
    assert question["To"] == "ann@example.org"
    token = token_in(text_of(question))
    assert token in html_of(question), "the button leads where the text does"
    incident = stage.begin_incident("while it is not confirmed")
    stage.visitor.get(f"/status/confirm?token={token}")  # As a mail scanner does, which presses no button.
    assert stage.follow("/status/confirm", "x" * 43) == 404
    assert stage.follow("/status/confirm", token) == 200

    update = {"state": "identified", "message": "It is the database."}
    assert stage.collector.send("POST", f"/v1/incidents/{incident}/updates", update).status == 201
    mail = stage.mailbox.wait_for(2)
    text = text_of(mail)
    assert (mail["To"], mail["Subject"]) == ("ann@example.org", "[Example] while it is not confirmed")
    assert "It is the database." in text
    assert "We look into it." not in text, "earlier updates are not mailed"
    assert mail["List-Unsubscribe"] in (f"<{line.partition(': ')[2]}>" for line in text.splitlines())

    assert stage.follow("/status/unsubscribe", token_in(text)) == 200
    assert stage.follow("/status/unsubscribe", token) == 404
    assert stage.subscribe("bob@example.org", "de") == 200
    bob = token_in(text_of(stage.mailbox.wait_for(3)))
    assert stage.follow("/status/confirm", bob) == 200
    stage.begin_incident("later <b>on</b>")
    last = stage.mailbox.wait_for(4)
    assert last["To"] == "bob@example.org"
    assert "Wird untersucht" in text_of(last), "in the language in which they subscribed"
    html = html_of(last)
    assert '<html lang="de"' in html
    assert "later &lt;b&gt;on&lt;/b&gt;" in html
    assert re.findall(r'href="([^"]+)"', html)[-1] == str(last["List-Unsubscribe"]).strip("<>")
    assert len(stage.mailbox.mails) == 4, "each subscriber has one mail and former subscribers have none"


def test_rejected_address_does_not_block_mail_to_others(stage: Stage) -> None:
    for number, address in enumerate(("gone@example.org", "here@example.org"), start=1):
        assert stage.subscribe(address) == 200
        assert stage.follow("/status/confirm", token_in(text_of(stage.mailbox.wait_for(number)))) == 200
    stage.mailbox.refused.add("gone@example.org")
    stage.begin_incident("for all of them")
    assert stage.mailbox.wait_for(3)["To"] == "here@example.org"


@pytest.mark.parametrize("refusal", ["552 too large", "452 full"])
def test_deferred_mail_of_one_address_does_not_block_others(
    database: str, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    monkeypatch.setattr(subscriptions, "MAILS_MAX", 1)

    async def work(opened: Database) -> None:
        with closing(Mailbox()) as mailbox:
            server = {"server": f"{HOST}:{mailbox.port}", "sender": "status@example.com", "tls": "none"}
            mails = StatusMails(opened, Pages.model_validate({"mail": server}), "http://127.0.0.1")
            async with opened.writing() as connection:
                for email in ("full@example.org", "here@example.org"):
                    token = await insert_request(connection, email, int(time.time()), "en") or ""
                    assert await confirm(connection, token, int(time.time()))
                row = {"id": "i", "severity": "P1", "title": "slow", "regions": "[]", "began_at": 1}
                await connection.execute(sa.insert(incidents), [row])
                update = {"id": "1", "incident": "i", "at": 1, "state": "investigating", "message": ""}
                await connection.execute(sa.insert(incident_updates), [update])
            mailbox.full["full@example.org"] = refusal
            for _ in range(3):
                await mails.step()
            assert [mail["To"] for mail in mailbox.mails] == ["here@example.org"]
            mailbox.full.clear()
            async with opened.writing() as connection:  # Later.
                await connection.execute(sa.update(status_subscribers).values(next_try_at=1))
            await mails.step()
            assert [mail["To"] for mail in mailbox.mails[1:]] == ["full@example.org"], (
                "the failure may have been the server's"
            )

    run(database, work)


@pytest.mark.both_databases
def test_an_address_that_is_never_ready_is_given_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [0]

    async def refuse(*_: object) -> None:
        tries[0] += 1
        raise AddressRefusedError(450)

    async def work(opened: Database) -> None:
        monkeypatch.setattr(mail, "send_to_one", refuse)
        server = {"server": f"{HOST}:1", "sender": "status@example.com", "tls": "none"}
        mails = StatusMails(opened, Pages.model_validate({"mail": server}), "http://127.0.0.1")
        async with opened.writing() as connection:
            row = {"email": "never@example.org", "token": "t", "requested_at": 1, "confirmed_at": 1}
            await connection.execute(sa.insert(status_subscribers), [row])
            row = {"id": "i", "severity": "P1", "title": "slow", "regions": "[]", "began_at": 1}
            await connection.execute(sa.insert(incidents), [row])
            update = {"id": "1", "incident": "i", "at": 1, "state": "investigating", "message": ""}
            await connection.execute(sa.insert(incident_updates), [update])
        for _ in range(TRIES_MAX + 2):
            await mails.step()
            async with opened.writing() as connection:
                await connection.execute(sa.update(status_subscribers).values(next_try_at=1))
        assert tries[0] == TRIES_MAX

    run(database, work)


def test_status_subscription_limits_confirmation_mails(stage: Stage) -> None:
    for _ in range(5):
        assert stage.subscribe("victim@example.org") == 200
    assert stage.subscribe("a@b.c\r\nBcc: many@example.org") == 422
    rows = [(f"{number}@example.org", str(number), int(time.time()), "") for number in range(QUESTIONS_MAX - 1)]
    with sqlite3.connect(stage.collector.database, timeout=30) as connection:
        connection.executemany(
            "INSERT INTO status_subscribers (email, token, requested_at, last_update) VALUES (?, ?, ?, ?)", rows
        )
    assert stage.subscribe("one-too-many@example.org") == 429
    stage.begin_incident("it is not for them")
    with sqlite3.connect(stage.collector.database, timeout=30) as connection:
        connection.execute("DELETE FROM status_subscribers WHERE email != 'victim@example.org'")
    assert stage.subscribe("last@example.org") == 200
    until(lambda: len(stage.mailbox.mails) >= 2, "the last question is mailed")
    assert [mail["To"] for mail in stage.mailbox.mails] == ["victim@example.org", "last@example.org"]
