"""Sign-up: people create a customer for themselves after proving their address.

Anyone may enter any address, so the number of mails is limited. An address gets one mail per SIGN_UP_SECONDS. The
settings limit all mails per hour, and each network and each domain has a share of that. A client may send
REQUESTS_PER_MINUTE forms. Neither the page nor its timing shows whether an address is known: a known one gets a sign-in
link. The collector generates customer names, so visitors cannot learn or take names of others.
"""

import re
import secrets
import time

import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import colleagues, contacts, customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.contact_roles import OWNER
from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.accounts.shown_names import NAME_FIELD
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.page_tables import sign_ups
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, open_rows, seal_rows
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.invisible import replace_invisible
from edgeproxy.collector.mails import mail
from edgeproxy.collector.pages.get_started import ROOT as GET_STARTED
from edgeproxy.collector.pages.outgoing_mails import HourlyMails
from edgeproxy.collector.pages.sessions import Session, SignedIn, compute_digest
from edgeproxy.collector.pages.sign_in import (
    LINK_UNUSABLE,
    SignInPages,
    limit_visits,
    refuse_mail,
    require_place,
    start_mail,
)
from edgeproxy.collector.pages.site import PORTAL, Page, PageError, Site, Visit
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.pages import MAILBOX, SignUp

ROOT = "/sign-up"
SIGN_UP_SECONDS = 3600
"""Seconds before a link expires. An address gets no second link in that time."""
ORGANISATION_CHARACTERS_MAX = 100
LATER = "too many people sign up now: try again in an hour"
columns = sign_ups.c


def match_expired(at: int) -> sa.ColumnElement[bool]:
    """Match addresses whose link has expired at a Unix second."""
    return columns.requested_at <= at - SIGN_UP_SECONDS


async def insert_request(
    connection: AsyncConnection, email: str, now: float, per_hour: int, *, renews: bool = False
) -> str | None:
    """Insert an address that wants to sign up and return the secret of its link.

    Return None if it got a link recently, or if too many addresses want to sign up. With `renews` an unused link of the
    address is replaced, because the visitor has proved the address.
    """
    at = int(now)
    is_over = match_expired(at)
    if renews:
        is_over |= match_value(connection, sign_ups.name, "email", email) & columns.used_at.is_(None)
    await connection.execute(sa.delete(sign_ups).where(is_over))
    count = (await connection.execute(sa.select(sa.func.count()).select_from(sign_ups))).scalar_one()
    if count >= per_hour:
        return None
    secret = secrets.token_urlsafe(32)
    row = {"email": email, "sha256": compute_digest(secret), "requested_at": at}
    (stored,) = await seal_rows(connection, sign_ups.name, [row])
    insert = build_insert_new(connection, sign_ups, "email").values(stored).returning(columns.email)
    return secret if await connection.scalar(insert) is not None else None


async def count_requests(connection: AsyncConnection, now: float) -> int:
    """Return the number of addresses that wanted to sign up in the SIGN_UP_SECONDS before a Unix second."""
    statement = sa.select(sa.func.count()).select_from(sign_ups).where(~match_expired(int(now)))
    return (await connection.execute(statement)).scalar_one()


async def find_address(connection: AsyncConnection, secret: str, now: float) -> str | None:
    """Return the address of the valid link with this secret, or None."""
    rows = await fetch_rows(connection, sign_ups.name, sa.select(sign_ups).where(_is_usable(secret, now)))
    return str(rows[0]["email"]) if rows else None


async def use_up_link(connection: AsyncConnection, secret: str, now: float) -> str | None:
    """Mark the link with this secret as used and return its address, or None if no such link is valid."""
    update = sa.update(sign_ups).where(_is_usable(secret, now)).values(used_at=int(now)).returning(*columns)
    used_up = [dict(row._mapping) for row in await connection.execute(update)]
    rows = await open_rows(connection, sign_ups.name, used_up)
    return str(rows[0]["email"]) if rows else None


def _is_usable(secret: str, now: float) -> sa.ColumnElement[bool]:
    is_recent = columns.requested_at > int(now) - SIGN_UP_SECONDS
    return sa.and_(columns.sha256 == compute_digest(secret), is_recent, columns.used_at.is_(None))


def build_name(organisation: str) -> str:
    """Return a unique name for a new customer: permitted characters of the organisation's name, and random digits."""
    words = re.sub(r"[^a-z0-9]+", "-", organisation.lower()).strip("-")[:32].strip("-")
    return f"{words or 'account'}-{secrets.token_hex(4)}"


class SignUpPages:
    """The pages for signing up."""

    def __init__(self, site: Site, sign_in: SignInPages, settings: SignUp, mails: HourlyMails) -> None:
        self._site = site
        self._sign_in = sign_in
        self._settings = settings
        self._mails = mails
        self._log = log.get_logger()

    def pages(self) -> list[Page]:
        """Return the pages and the forms."""
        return [
            Page("GET", ROOT, "anyone", self.show_form, PORTAL),
            Page("POST", ROOT, "anyone", self.request_link, PORTAL),
            Page("GET", f"{ROOT}/confirm", "anyone", self.show_confirm, PORTAL),
            Page("POST", f"{ROOT}/confirm", "anyone", self.create_account, PORTAL),
        ]

    async def show_form(self, visit: Visit) -> web.Response:
        """Show the ways to sign up."""
        return self._render(visit, "ask")

    async def request_link(self, visit: Visit) -> web.Response:
        """Mail a link to an address. The response and its timing do not show whether the address is known."""
        limit_visits(visit, "sign-up")
        email = visit.read_field("email").strip().lower()
        if self._site.settings.mail is None:
            raise PageError(page_codes.PAGE_NOT_FOUND, "there is no such page")
        if not MAILBOX.fullmatch(email):
            raise PageError(page_codes.EMAIL_INVALID, "this is not an e-mail address")
        require_place(visit)  # Before the mail is counted, since a counted mail cannot be returned.
        await self._take_mail(visit, email)
        start_mail(visit, lambda: self._mail(visit, email))
        return self._render(visit, "sent")

    async def _take_mail(self, visit: Visit, email: str) -> None:
        """Count a mail to an address, known or not. Raises PageError if none is left in this hour."""
        async with self._site.database.reading() as connection:
            stored = await count_requests(connection, time.time())
        exhausted = self._mails.take(visit.client, email, stored)
        if exhausted is not None:
            raise refuse_mail(exhausted)

    async def _mail(self, visit: Visit, email: str) -> None:
        """Mail a sign-up link, or a sign-in link if the address belongs to a contact."""
        if await self._sign_in.mail_links(visit, email):
            return
        async with self._site.mails.slot():
            await self._mail_newcomer(visit, email)

    async def _mail_newcomer(self, visit: Visit, email: str) -> None:
        async with self._site.database.writing() as connection:
            secret = await insert_request(connection, email, time.time(), self._settings.per_hour)
        settings = self._site.settings.mail
        if secret is None or settings is None:
            return
        link = f"{self._site.url}{ROOT}/confirm?token={secret}"
        text = visit.render_text("sign_up.txt", link=link)
        subject, _, body = text.strip().partition("\n\n")
        button = load_catalog(visit.reader.language).gettext("Create the account")
        html = visit.render_mail(subject, body, [link], button)
        await mail.send_message(settings, mail.create_message(settings.sender, email, subject, body, html))

    async def by_issuer(self, visit: Visit, email: str) -> web.Response:
        """Continue the sign-up of a visitor whose address an issuer has verified. Raises PageError."""
        limit_visits(visit, "sign-up")
        await self._take_mail(visit, email)
        async with self._site.database.writing() as connection:
            secret = await insert_request(connection, email, time.time(), self._settings.per_hour, renews=True)
        if secret is None:
            raise PageError(page_codes.SIGN_UPS_EXCEEDED, LATER)
        return visit.redirect(f"{ROOT}/confirm", token=secret)

    async def show_confirm(self, visit: Visit) -> web.Response:
        """Ask for the organisation before creating anything, because mail scanners follow links.

        The page shows the address. A visitor with a link of another person sees the future account's owner.
        """
        secret = visit.request.query.get("token", "")
        async with self._site.database.reading() as connection:
            email = await find_address(connection, secret, time.time())
        if email is None:
            raise PageError(page_codes.LINK_UNUSABLE, LINK_UNUSABLE)
        return self._render(visit, "confirm", secret, email)

    async def create_account(self, visit: Visit) -> web.Response:
        """Create the customer and its owner, and begin the owner's session. Raises PageError."""
        limit_visits(visit, "sign-up")
        secret, now = visit.read_field("token"), time.time()
        async with self._site.database.reading() as connection:
            known = await find_address(connection, secret, now)
        if known is None:  # A wrong secret, which anyone may send, needs no write transaction.
            self._site.api.deny(visit.request, None, 403, LINK_UNUSABLE)
            raise PageError(page_codes.LINK_UNUSABLE, LINK_UNUSABLE)
        organisation = replace_invisible(visit.read_field("organisation").strip(), lambda _: "")
        organisation = organisation[:ORGANISATION_CHARACTERS_MAX]
        who = SignedIn(
            contacts.format_label(known), frozenset({"customer"}), build_name(organisation), contact_role=OWNER
        )
        who = await self._create(visit, secret, known, who, organisation)
        answer = await self._sign_in.begin_session(visit, who, GET_STARTED if self._site.settings.api else "")
        if self._settings.plan is not None:
            await self._subscribe(visit, who, self._settings.plan)
        return answer

    async def _create(self, visit: Visit, secret: str, email: str, who: SignedIn, organisation: str) -> SignedIn:
        """Create the customer and its owner. Return the owner with the customer's name in the ledger."""
        metadata = {NAME_FIELD: organisation} if organisation else None
        fields = {"name": who.customer, "tier": self._settings.tier, "metadata": metadata}
        caller = Caller(who.label, *self._site.api.caller(visit.request))
        try:
            async with self._site.database.writing() as connection:
                if await use_up_link(connection, secret, time.time()) != email:
                    raise PageError(page_codes.LINK_UNUSABLE, LINK_UNUSABLE)
                request = CreateCustomerRequest.model_validate(fields)
                created = await customers.create_customer(connection, caller, request, self._site.settings_now())
                owner = colleagues.PutContactRequest(email=email, role=OWNER)
                await colleagues.put_contact(connection, caller, created["name"], owner)
        except ChangeRejectedError as error:
            self._log.error("a customer who signs up cannot be created", why=error.why, faults=error.faults)
            raise PageError(page_codes.SIGN_UP_FAILED, "an account cannot be created now") from None
        return who._replace(customer=created["name"])

    async def _subscribe(self, visit: Visit, who: SignedIn, plan: str) -> None:
        """Subscribe the new customer to the free plan. If that fails, the customer chooses one on the page of plans."""
        session = Session("", who, int(time.time()), int(time.time()), "")
        response = await self._site.api.ask(
            visit.request, session, "POST", "/billing/subscription", body={"plan": plan}
        )
        if not response.is_success:
            why = str((response.body or {}).get("detail", ""))
            self._log.error("a customer who signed up has no plan yet", customer=who.customer, why=why)

    def _render(self, visit: Visit, step: str, token: str = "", email: str = "") -> web.Response:
        return visit.render(
            "sign_up.html",
            step=step,
            token=token,
            email=email,
            has_mail=self._site.settings.mail is not None,
            has_customers=self._site.settings.customers is not None,
            characters_max=ORGANISATION_CHARACTERS_MAX,
        )
