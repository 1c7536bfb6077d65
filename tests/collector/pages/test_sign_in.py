"""Sessions of contacts who are removed while they sign in."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.accounts import contacts
from edgeproxy.collector.accounts.contacts import (
    CUSTOMERS_MAX,
    Contacts,
    fetch_alert_recipients,
    find_role,
    list_customers,
    put_contacts,
)
from edgeproxy.collector.alerts.deliveries import Recipient
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.languages.reader import choose_reader
from edgeproxy.collector.pages import outgoing_mails, sessions, sign_in
from edgeproxy.collector.pages.sessions import Link, SignedIn
from edgeproxy.collector.pages.sign_in import SignInPages
from edgeproxy.collector.pages.site import PageError, Site, Visit
from edgeproxy.config.collector.pages import Pages
from tests.support.credited import ALICE, run, write

ACME_NAME = "acme"
ANN = Link("contact:ann@acme.example", ACME_NAME)
ACME: dict[str, object] = {
    "id": "01a20ba0-ac66-715a-812e-6732ba1a7fdb",
    "name": "acme",
    "tier": "basic",
    "settings": "{}",
}
ACME |= {"metadata": "{}", "created_at": 0, "version": 1}
EVERYBODY, NOBODY = Contacts.model_validate({"emails": ["ann@acme.example"]}), Contacts.model_validate({"emails": []})


class Api:
    """The API of the pages."""

    def __init__(self) -> None:
        self.denials: list[tuple[str | None, int]] = []
        self.address = "192.0.2.1"

    def caller(self, _: web.Request) -> tuple[str, str]:
        """Return the request's address and id."""
        return "192.0.2.1", "request-1"

    def client(self, _: web.Request) -> str:
        """Return the address of the client."""
        return self.address

    def deny(self, _: web.Request, actor: str | None, status: int, __: str) -> None:
        """Note a denial."""
        self.denials.append((actor, status))


async def use_link(opened: Database, pages: SignInPages, site: Site) -> None:
    """Begin a session by a link of the contact."""
    async with opened.writing() as connection:
        secret = await sessions.create_link(connection, ANN, time.time())
    assert secret is not None
    visit = Visit(site, make_mocked_request("POST", "/sign-in/link"), choose_reader(None, None), form={"token": secret})
    await pages.by_link(visit)


@pytest.fixture
def at_work(database: str) -> Any:
    """Return a function that runs a test with a database, an API and the pages that sign in."""

    def start(work: Any) -> None:
        async def scenario(opened: Database) -> None:
            async with opened.writing() as connection:
                await connection.execute(sa.insert(customers), [ACME])
            await write(opened, put_contacts, ALICE, "acme", EVERYBODY)
            api, collector_settings = cast(Any, Api()), cast(Any, None)
            site = Site(
                opened, Pages.model_validate({}), "http://127.0.0.1:9100", api, collector_settings, lambda: None
            )
            await work(opened, api, SignInPages(site, None), site)

        run(database, scenario)

    return start


@pytest.mark.both_databases
def test_contact_removed_during_sign_in_gets_no_session(at_work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Database, api: Api, pages: SignInPages, site: Site) -> None:
        use_up = sessions.use_up_link

        async def use_up_link(connection: Any, secret: str, now: float) -> Link | None:
            link = await use_up(connection, secret, now)
            removal.append(Tasks().start("removal", write(opened, put_contacts, ALICE, "acme", NOBODY)))
            return link

        removal: list[asyncio.Task[Any]] = []
        monkeypatch.setattr(sessions, "use_up_link", use_up_link)
        with pytest.raises(PageError) as refused:
            await use_link(opened, pages, site)
        await removal[0]
        assert (refused.value.status, api.denials) == (403, [(ANN.label, 403)])

    at_work(work)


async def name_as_contact(opened: Database, names: list[str]) -> None:
    """Have customers by these names, all with the contact."""
    rows = [{**ACME, "id": str(uuid4()), "name": name, "created_at": 1} for name in names]
    async with opened.writing() as connection:
        await connection.execute(sa.insert(customers), rows)
    for name in names:
        await write(opened, put_contacts, ALICE, name, EVERYBODY)


def test_foreign_customers_that_add_a_contact_do_not_block_its_sign_in(at_work: Any) -> None:
    async def work(opened: Database, _: Api, pages: SignInPages, site: Site) -> None:
        await name_as_contact(opened, [f"aaa-{number}" for number in range(CUSTOMERS_MAX)])
        async with opened.reading() as connection:
            assert (await list_customers(connection, "ann@acme.example"))[0] == ACME_NAME, "the oldest one"
        await use_link(opened, pages, site)
        await name_as_contact(opened, ["before"])
        async with opened.writing() as connection:
            await connection.execute(sa.update(customers).where(customers.c.name == "before").values(created_at=-1))
            assert (await list_customers(connection, "ann@acme.example"))[:2] == [ACME_NAME, "before"]

    at_work(work)


def test_sign_in_of_an_unknown_address_takes_no_slot_of_contacts(at_work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Database, api: Api, pages: SignInPages, site: Site) -> None:
        sent, may_go = asyncio.Event(), asyncio.Event()

        async def look_up(_: Any, email: str) -> list[str]:
            if email == "ann@acme.example":
                return [ACME_NAME]
            await may_go.wait()
            return []

        async def create_links(*_: Any) -> list[tuple[str, str]]:
            return [(ACME_NAME, "http://127.0.0.1/")]

        async def send(*_: Any) -> None:
            sent.set()

        @asynccontextmanager
        async def read() -> AsyncIterator[None]:
            yield

        monkeypatch.setattr(opened, "reading", read)
        monkeypatch.setattr(contacts, "list_customers", look_up)
        monkeypatch.setattr(pages, "_create_links", create_links)
        monkeypatch.setattr(pages, "_send", send)
        visit = Visit(site, make_mocked_request("POST", "/sign-in"), choose_reader(None, None))
        for number in range(outgoing_mails.MAILS_MAX):
            api.address = f"192.0.{number}.1"
            sign_in.start_mail(visit, functools.partial(pages.mail_links, visit, f"{number}@elsewhere.example"))
        await asyncio.sleep(0)
        sign_in.start_mail(visit, functools.partial(pages.mail_links, visit, "ann@acme.example"))
        async with asyncio.timeout(5):
            await sent.wait()
        may_go.set()

    at_work(work)


def test_alerts_are_mailed_in_the_language_of_the_contact_s_last_sign_in(at_work: Any) -> None:
    async def work(opened: Database, *_: Any) -> None:
        address = {"metadata": '{"alert_email": "Ann@acme.example"}'}
        async with opened.writing() as connection:
            await connection.execute(sa.update(customers).values(address))
            before = await fetch_alert_recipients(connection, [ACME_NAME, "nobody"])
            for language in ("nl", "de"):
                await find_role(connection, ANN.label, ACME_NAME, time.time(), language)
            after = await fetch_alert_recipients(connection, [ACME_NAME])
            await connection.execute(sa.update(customers).values(metadata='{"alert_email": "ops@acme.example"}'))
            other = await fetch_alert_recipients(connection, [ACME_NAME])
        assert before == {ACME_NAME: Recipient("Ann@acme.example", None)}
        assert after == {ACME_NAME: Recipient("Ann@acme.example", "de")}
        assert other == {ACME_NAME: Recipient("ops@acme.example", None)}, "an address that is no contact's"

    at_work(work)


def test_contact_removal_waits_for_a_starting_session_and_ends_it(at_work: Any, database: str) -> None:
    async def work(opened: Database, *_: Any) -> None:
        who, now = SignedIn(ANN.label, frozenset({"customer"}), ACME_NAME), time.time()
        other = await Database.connect(database)
        async with opened.writing() as connection:
            assert await find_role(connection, ANN.label, ACME_NAME, now, "en") == "owner"
            removal = Tasks().start("removal", write(other, put_contacts, ALICE, "acme", NOBODY))
            await asyncio.wait([removal], timeout=0.2)
            assert not removal.done(), "the removal waits for the session"
            secret = await sessions.begin_session(connection, who, now)
        await removal
        await other.close()
        async with opened.reading() as connection:
            assert await sessions.find_session(connection, secret, now) is None

    at_work(work)
