"""Subscriptions to the status page: incident updates by mail for confirmed addresses.

Anyone may enter any address, so confirmation mails are limited. An address gets at most one per day. All addresses
together get at most QUESTIONS_MAX per hour, and each network and each domain has a share of that. No other mail is sent
until someone has followed the link and pressed the button. The page does not show whether an address is subscribed.
"""

import secrets
import time
from collections.abc import Sequence
from types import SimpleNamespace

import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.page_tables import incident_updates, incidents, status_subscribers
from edgeproxy.collector.database.periodic import Job, repeat, run_exclusively
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, seal_rows
from edgeproxy.collector.languages.catalogs import DEFAULT, load_catalog
from edgeproxy.collector.languages.invisible import escape_invisible, format_line
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.languages.reader import Reader, create_reader
from edgeproxy.collector.mails import mail
from edgeproxy.collector.mails.letter import Letter, MailSection, render_html, render_text
from edgeproxy.collector.pages.incidents import MAINTENANCE
from edgeproxy.collector.pages.outgoing_mails import HourlyMails
from edgeproxy.collector.pages.sign_in import limit_visits, refuse_mail, require_place, start_mail
from edgeproxy.collector.pages.site import Page, PageError, Site, Visit
from edgeproxy.collector.pages.words import INCIDENT_STATES, MAINTENANCE_UPDATES
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.pages import MAILBOX, Pages

QUESTIONS_MAX = 100
"""Most confirmation mails per hour, to all addresses together."""
SUBSCRIBERS_MAX = 10_000
"""Addresses, confirmed or not."""
QUESTION_SECONDS = 86400
"""Seconds before a confirmation link expires. An address gets no second one in that time."""
MAILS_SECONDS = 5.0
"""Seconds between two checks for updates to mail."""
MAILS_MAX = 100
"""Mails with updates per check."""
TRIES_MAX = 8
"""Attempts to mail an update if the server temporarily refuses an address. Then the address misses the update."""
TRY_SECONDS = 60
"""Seconds until the second attempt. Each further wait is twice as long: eight attempts take two hours."""
UPDATES_MAX = 20
"""Most updates in one mail."""
TITLE_CHARACTERS_MAX = 150
"""Most characters of an incident's title in a subject."""
STATUS = frozenset({"status"})
UNUSABLE = "this link is not valid any more"
TABLE = status_subscribers.name
STATES = INCIDENT_STATES | MAINTENANCE_UPDATES
columns, updates = status_subscribers.c, incident_updates.c


async def can_receive_question(connection: AsyncConnection, email: str, now: int) -> bool:
    """Return True if an address may get the confirmation mail now."""
    known = sa.func.count().filter(
        match_value(connection, TABLE, "email", email),
        columns.confirmed_at.is_not(None) | (columns.requested_at >= now - QUESTION_SECONDS),
    )
    return not (await connection.execute(sa.select(known))).scalar_one()


async def count_questions(connection: AsyncConnection, now: int) -> tuple[int, int]:
    """Return the number of confirmation mails in the hour before a Unix second, and the number of addresses."""
    lately = sa.func.count().filter(columns.requested_at > now - 3600)
    questions, total = (await connection.execute(sa.select(lately, sa.func.count(columns.email)))).one()
    return questions, total


def match_expired(at: int) -> sa.ColumnElement[bool]:
    """Match addresses that were not confirmed in time at a Unix second."""
    return columns.confirmed_at.is_(None) & (columns.requested_at < at - QUESTION_SECONDS)


async def insert_request(connection: AsyncConnection, email: str, now: int, language: str) -> str | None:
    """Insert an unconfirmed address with its language. Return its token, or None if the address exists."""
    await connection.execute(sa.delete(status_subscribers).where(match_expired(now)))
    row = {
        "email": email,
        "token": secrets.token_urlsafe(32),
        "requested_at": now,
        "last_update": "",
        "language": language,
    }
    (stored,) = await seal_rows(connection, TABLE, [row])
    insert = build_insert_new(connection, status_subscribers, "email").values(stored).returning(columns.token)
    return (await connection.execute(insert)).scalar_one_or_none()


async def is_token(connection: AsyncConnection, token: str) -> bool:
    """Return True if a token belongs to an address."""
    return (await connection.execute(sa.select(columns.email).where(columns.token == token))).first() is not None


async def confirm(connection: AsyncConnection, token: str, now: int) -> bool:
    """Confirm the address of a token. Return False if there is none. Updates before the confirmation are not mailed."""
    newest = (await connection.execute(sa.select(sa.func.max(updates.id)))).scalar_one() or ""
    fresh = columns.confirmed_at.is_not(None) | (columns.requested_at >= now - QUESTION_SECONDS)
    values = {"confirmed_at": sa.func.coalesce(columns.confirmed_at, now)}
    new = sa.case((columns.confirmed_at.is_(None), newest), else_=columns.last_update)
    statement = sa.update(status_subscribers).where(columns.token == token, fresh)
    return bool((await connection.execute(statement.values(**values, last_update=new))).rowcount)


class Subscriptions:
    """The subscription forms of one listener."""

    def __init__(self, site: Site, mails: HourlyMails) -> None:
        self._site = site
        self._mails = mails
        self._limited_log = log.RateLimitedLog(60.0)

    def pages(self) -> list[Page]:
        """Return the pages and the forms."""
        return [
            Page("GET", "/status/subscribe", "anyone", self.show_form, STATUS),
            Page("POST", "/status/subscribe", "anyone", self.subscribe, STATUS),
            Page("GET", "/status/confirm", "anyone", self.show_confirm, STATUS),
            Page("POST", "/status/confirm", "anyone", self.confirm, STATUS),
            Page("GET", "/status/unsubscribe", "anyone", self.show_unsubscribe, STATUS),
            Page("POST", "/status/unsubscribe", "anyone", self.unsubscribe, STATUS),
        ]

    async def show_form(self, visit: Visit) -> web.Response:
        """Show the form for an address."""
        return visit.render("subscribe.html", step="ask", token="")

    async def subscribe(self, visit: Visit) -> web.Response:
        """Mail the confirmation link, unless the address had one recently. The page hides which. Raises PageError."""
        limit_visits(visit, "subscribe")
        email = visit.read_field("email").strip().lower()
        if not MAILBOX.fullmatch(email):
            raise PageError(page_codes.EMAIL_INVALID, "this is not an e-mail address")
        require_place(visit)  # Before the mail is counted, since a counted mail cannot be returned.
        now, token = int(time.time()), None
        async with self._site.database.reading() as connection:
            stored, total = await count_questions(connection, now)
            may = await can_receive_question(connection, email, now)
        if total >= SUBSCRIBERS_MAX:
            self._limited_log.error("nobody can subscribe: there are as many addresses as may be", "subscribers")
            raise PageError(page_codes.SUBSCRIBERS_FULL, "no more addresses can be subscribed")
        exhausted = self._mails.take(visit.client, email, stored)
        if exhausted is not None:
            raise refuse_mail(exhausted)
        if may:  # Anyone may send a request without effect. It needs no write transaction, which would delay batches.
            async with self._site.database.writing() as connection:
                token = await insert_request(connection, email, now, visit.reader.language)
        if token is not None:
            link = f"{self._site.url}/status/confirm?token={token}"
            text = visit.render_text("subscribe.txt", link=link)
            subject, _, body = text.strip().partition("\n\n")
            button = load_catalog(visit.reader.language).gettext("Subscribe")
            html = visit.render_mail(subject, body, [link], button)
            start_mail(visit, lambda: self._send(email, subject, body, html))
        return visit.render("subscribe.html", step="sent", token="")

    async def _send(self, email: str, subject: str, body: str, html: str) -> None:
        settings = self._site.settings.mail
        assert settings is not None
        async with self._site.mails.slot():
            await mail.send_message(settings, mail.create_message(settings.sender, email, subject, body, html))

    async def show_confirm(self, visit: Visit) -> web.Response:
        """Ask before subscribing, because mail scanners follow links."""
        return visit.render("subscribe.html", step="confirm", token=visit.request.query.get("token", ""))

    async def confirm(self, visit: Visit) -> web.Response:
        """Confirm an address."""
        token = await self._read_token(visit)
        async with self._site.database.writing() as connection:
            if not await confirm(connection, token, int(time.time())):
                raise PageError(page_codes.SUBSCRIPTION_LINK_UNUSABLE, UNUSABLE)
        return visit.render("subscribe.html", step="confirmed", token="")

    async def show_unsubscribe(self, visit: Visit) -> web.Response:
        """Ask before unsubscribing."""
        return visit.render("subscribe.html", step="leave", token=visit.request.query.get("token", ""))

    async def unsubscribe(self, visit: Visit) -> web.Response:
        """Delete an address."""
        token = await self._read_token(visit)
        async with self._site.database.writing() as connection:
            await connection.execute(sa.delete(status_subscribers).where(columns.token == token))
        return visit.render("subscribe.html", step="left", token="")

    async def _read_token(self, visit: Visit) -> str:
        """Return the token of a form. Raises PageError if it belongs to no address."""
        token = visit.read_field("token")
        async with self._site.database.reading() as connection:
            if not await is_token(connection, token):
                raise PageError(page_codes.SUBSCRIPTION_LINK_UNUSABLE, UNUSABLE)
        return token


class StatusMails:
    """Mails incident updates to confirmed addresses. One collector at a time does so."""

    def __init__(self, database: Database, settings: Pages, url: str) -> None:
        self._database = database
        self.settings = settings
        """Pages, with their mail server. A reload replaces its password."""
        self._url = url
        self._limited_log = log.RateLimitedLog(60.0)

    async def run(self) -> None:
        """Check for updates repeatedly, until cancelled."""

        async def work() -> object:
            return await run_exclusively(self._database, "status-mails", self.step)

        failed = "updates of incidents could not be mailed, and are mailed later"
        await repeat(Job("status-mails", MAILS_SECONDS, failed, work, mail.MAIL_ERRORS), self._limited_log)

    async def step(self) -> None:
        """Mail pending updates, at most MAILS_MAX mails. Raises one of mail.MAIL_ERRORS.

        A mail is recorded once the server accepted it, so a kill repeats at most one mail. If the server refuses an
        address, other addresses still get their mails. The refused mail is recorded too, or retried later if the
        refusal is temporary.
        """
        now, try_at = int(time.time()), sa.func.coalesce(columns.next_try_at, 0)
        async with self._database.reading() as connection:
            newest = (await connection.execute(sa.select(sa.func.max(updates.id)))).scalar_one() or ""
            due = sa.select(status_subscribers).where(
                columns.confirmed_at.is_not(None), columns.last_update < newest, try_at <= now
            )
            opened = await fetch_rows(connection, TABLE, due.order_by(try_at, columns.last_update).limit(MAILS_MAX))
            rows = [SimpleNamespace(**row) for row in opened]
            news = {
                (after, language): await self._fetch_news(connection, after, create_reader(language or DEFAULT))
                for after, language in {(row.last_update, row.language) for row in rows}
            }
        for row in rows:
            sections, last = news[row.last_update, row.language]
            values = {"last_update": last, "failures": 0, "next_try_at": None}
            try:
                await self._send(row.email, row.token, sections, create_reader(row.language or DEFAULT))
            except mail.AddressRefusedError as error:
                self._limited_log.error("the mail server refuses the address of a subscriber", str(error))
                if not error.is_permanent and row.failures + 1 < TRIES_MAX:
                    values = {"failures": row.failures + 1, "next_try_at": now + (TRY_SECONDS << row.failures)}
            async with self._database.writing() as connection:
                own = sa.update(status_subscribers).where(columns.token == row.token)
                await connection.execute(own.values(**values))

    async def _fetch_news(
        self, connection: AsyncConnection, after: str, reader: Reader
    ) -> tuple[Sequence[MailSection], str]:
        """Return the updates after the id `after`, formatted for a reader, and the id of the last of them."""
        statement = (
            sa.select(updates.id, updates.at, updates.state, updates.message, incidents)
            .join_from(incident_updates, incidents, incidents.c.id == updates.incident)
            .where(updates.id > after)
            .order_by(updates.id)
            .limit(UPDATES_MAX)
        )
        rows = (await connection.execute(statement)).all()
        say = load_catalog(reader.language).gettext
        sections = [
            MailSection(
                format_line(row.title),
                format_line(f"{reader.moment(row.at)} · {say(STATES.get(row.state, row.state))}"),
                paragraphs=[
                    *([_format_plan(row.began_at, row.ended_at, reader)] if row.severity == MAINTENANCE else []),
                    *([escape_invisible(row.message)] if row.message else []),
                ],
            )
            for row in rows
        ]
        return sections, rows[-1].id

    async def _send(self, email: str, token: str, sections: Sequence[MailSection], reader: Reader) -> None:
        settings, name = self.settings.mail, self.settings.status.name
        assert settings is not None
        say, link = load_catalog(reader.language).gettext, f"{self._url}/status"
        leave = f"{link}/unsubscribe?token={token}"
        subject = f"[{name}] {sections[-1].heading[:TITLE_CHARACTERS_MAX]}"
        letter = Letter(
            name,
            sections[-1].heading[:TITLE_CHARACTERS_MAX],
            [*sections, MailSection(paragraphs=[link])],
            [link],
            say(N_("Status")),
            foot_links=[(say(N_("Unsubscribe")), leave)],
        )
        message = mail.create_message(settings.sender, email, subject, render_text(letter), render_html(letter, reader))
        message["List-Unsubscribe"] = f"<{leave}>"
        await mail.send_to_one(settings, message)


def _format_plan(begins: int, ends: int, reader: Reader) -> str:
    """Return the currently planned time of maintenance."""
    words = load_catalog(reader.language).gettext(N_("From %(begins)s to %(ends)s"))
    return words % {"begins": reader.moment(begins), "ends": reader.moment(ends)}
