"""Sign-in and sign-out. Operators and customers use their issuers, or else a printed link and a mailed link."""

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Generic, TypeVar
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.shares import Exhausted
from edgeproxy.collector.accounts import audit, contacts
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.shown_names import find_distinct_names
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.mails import mail
from edgeproxy.collector.pages import held_forms, sessions
from edgeproxy.collector.pages.api import Issuer, SignInDeniedError
from edgeproxy.collector.pages.sessions import Link, SignedIn, VerifiedContact
from edgeproxy.collector.pages.site import CONSOLE, PORTAL, SIGN_IN, Page, PageError, Site, Visit
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.pages import MAILBOX

PENDING_COOKIE = "edgeproxy-sign-in"
PENDING_SECONDS = 600
LINK_LABEL = "operator:link"
"""The operator's name in the audit log after signing in with the printed link."""
FIRST_LINK_SECONDS = 3600
REQUESTS_PER_MINUTE = 10
"""Forms with an address that a client may send."""
TOO_MANY = "this was asked too often: try again in a minute"
MAILS_UNDER_WAY = "many mails are being sent now, and no link was sent: try again in a minute"
LINK_UNUSABLE = "the link was used already, or has ended: ask for another one"


NO_CONTACT = "nobody has this address as a contact: ask whom you buy from"
NOT_BEGUN = "the sign-in was not begun here, or took too long: begin again"
T = TypeVar("T")


class IssuerSignIn(Generic[T]):
    """A sign-in at an issuer that returns the browser to the path `back`. A cookie keeps the secret meanwhile."""

    def __init__(self, site: Site, issuer: Issuer[T], cookie: str, back: str) -> None:
        self._site = site
        self._issuer = issuer
        self._cookie = f"{site.prefix}{cookie}"
        self._back = f"{site.url}{back}"

    async def begin(self, visit: Visit, *, again: bool) -> web.Response:
        """Redirect to the issuer. Raises PageError."""
        secret = secrets.token_urlsafe(32)
        try:
            where = await self._issuer.begin(secret, self._back, again=again)
        except SignInDeniedError as error:
            raise PageError(error.code, error.why) from None
        answer = visit.redirect(where)
        pending = f"{secret}.{find_local_path(visit.request.query.get('next', ''))}"
        self._site.remember(answer, self._cookie, pending, PENDING_SECONDS)
        return answer

    async def finish(self, visit: Visit) -> tuple[T, str]:
        """Return the person who signed in, and the path that they wanted. Raises PageError."""
        secret, _, next_ = visit.request.cookies.get(self._cookie, "").partition(".")
        if not secret:
            raise PageError(page_codes.SIGN_IN_NOT_BEGUN, NOT_BEGUN)
        try:
            return await self._issuer.finish(secret, self._back, visit.request.query), next_
        except SignInDeniedError as error:
            self._site.api.deny(visit.request, error.actor, error.status, error.why)
            raise PageError(error.code, error.why) from None

    def forget(self, answer: web.StreamResponse) -> None:
        """Delete the cookie with the secret."""
        self._site.forget(answer, self._cookie)


class SignInPages:
    """The pages that begin and end sessions."""

    def __init__(
        self, site: Site, issuer: Issuer[SignedIn] | None, customers: Issuer[VerifiedContact] | None = None
    ) -> None:
        self._site = site
        self._operators = None if issuer is None else IssuerSignIn(site, issuer, PENDING_COOKIE, f"{SIGN_IN}/back")
        self._customers = None
        if customers is not None:
            self._customers = IssuerSignIn(site, customers, f"{PENDING_COOKIE}-customer", f"{SIGN_IN}/customer/back")
        self.sign_up: Callable[[Visit, str], Awaitable[web.Response]] | None = None
        """Handles a verified address that is no contact by a sign-up; None: sign-up is off."""

    def pages(self) -> list[Page]:
        """Return the pages and the forms."""
        return [
            Page("GET", "/", "anyone", self.first),
            Page("GET", SIGN_IN, "anyone", self.shown),
            Page("POST", SIGN_IN, "anyone", self.mail_link, PORTAL),
            Page("GET", f"{SIGN_IN}/link", "anyone", self.link),
            Page("POST", f"{SIGN_IN}/link", "anyone", self.by_link),
            Page("GET", f"{SIGN_IN}/operator", "anyone", self.to_issuer, CONSOLE),
            Page("GET", f"{SIGN_IN}/back", "anyone", self.from_issuer, CONSOLE),
            Page("GET", f"{SIGN_IN}/customer", "anyone", self.to_customers_issuer, PORTAL),
            Page("GET", f"{SIGN_IN}/customer/back", "anyone", self.from_customers_issuer, PORTAL),
            Page("POST", "/sign-out", "someone", self.sign_out),
        ]

    async def first(self, visit: Visit) -> web.Response:
        """Redirect to the first page of the session, or to the sign-in."""
        session = visit.session
        return visit.redirect(self._site.home(session.who) if session and self._site.is_home(session.who) else SIGN_IN)

    async def shown(self, visit: Visit) -> web.Response:
        """Show the ways to sign in."""
        return visit.render(
            "sign_in.html",
            has_console=self._site.groups >= CONSOLE,
            has_portal=self._site.groups >= PORTAL,
            has_issuer=self._operators is not None,
            has_customers=self._customers is not None,
            has_mail=self._site.settings.mail is not None,
            has_sign_up=self.sign_up is not None,
            next=find_local_path(visit.request.query.get("next", "")),
        )

    async def sign_out(self, visit: Visit) -> web.Response:
        """End the session."""
        async with self._site.database.writing() as connection:
            await sessions.end_session(connection, visit.session_secret)
            await self._record(connection, visit, visit.signed_in.who, "session.end")
        answer = visit.redirect(SIGN_IN, done="signed-out")
        self._site.forget(answer, self._site.cookie)
        return answer

    # ---- customers

    async def mail_link(self, visit: Visit) -> web.Response:
        """Mail a link to a contact. The response and its timing do not show whether the contact exists."""
        email = visit.read_field("email").strip()
        if self._site.settings.mail is None:
            raise PageError(
                page_codes.SIGN_IN_UNAVAILABLE,
                "this collector sends no mail: an operator can give its settings a mail server",
            )
        limit_visits(visit, "sign-in")
        if not MAILBOX.fullmatch(email):
            raise PageError(page_codes.EMAIL_INVALID, "this is not an e-mail address")
        start_mail(visit, lambda: self.mail_links(visit, email.lower()))
        return visit.render("sent.html", email=email)

    async def mail_links(self, visit: Visit, email: str) -> bool:
        """Mail a contact one mail with a link for each of its customers. Return False if the address is no contact."""
        async with self._site.database.reading() as connection:
            customers = await contacts.list_customers(connection, email)
        if not customers:  # An unknown address, which anyone may send, uses no transaction and no slot.
            return False
        async with self._site.mails.slot():
            links = await self._create_links(email, customers)
            if links:
                await self._send(visit, email, links)
        return True

    async def _create_links(self, email: str, customers: list[str]) -> list[tuple[str, str]]:
        """Create links for these customers of a contact, unless it has enough of them. Return names and URLs."""
        links = []
        async with self._site.database.writing() as connection:
            for customer in customers:
                link = Link(contacts.format_label(email), customer)
                secret = await sessions.create_link(connection, link, time.time())
                if secret is not None:
                    links.append((customer, format_link(self._site.url, secret)))
        names = await find_distinct_names(self._site.database, [customer for customer, _ in links])
        return [(name, link) for name, (_, link) in zip(names, links, strict=True)]

    async def _send(self, visit: Visit, email: str, links: list[tuple[str, str]]) -> None:
        settings = self._site.settings
        assert settings.mail is not None
        text = visit.render_text("mail.txt", links=links, minutes=sessions.LINK_SECONDS // 60)
        subject, _, body = text.strip().partition("\n\n")
        button = load_catalog(visit.reader.language).gettext("Sign in")
        html = visit.render_mail(subject, body, [link for _, link in links], button)
        await mail.send_message(settings.mail, mail.create_message(settings.mail.sender, email, subject, body, html))

    # ---- links

    async def link(self, visit: Visit) -> web.Response:
        """Ask before signing in, because mail scanners follow links and would use up the link."""
        return visit.render("link.html", token=visit.request.query.get("token", ""))

    async def by_link(self, visit: Visit) -> web.Response:
        """Begin a session by a link. Raises PageError."""
        secret, now = visit.read_field("token"), time.time()
        async with self._site.database.reading() as connection:
            link = await sessions.find_link(connection, secret, now)
        if link is not None and not self._site.is_home(link):
            link = None  # It stays valid at the listener that has its pages.
        if link is not None:  # A wrong secret, which anyone may send, needs no write transaction.
            async with self._site.database.writing() as connection:
                link = await sessions.use_up_link(connection, secret, now)
        if link is None:
            self._site.api.deny(visit.request, None, 403, LINK_UNUSABLE)
            raise PageError(page_codes.LINK_UNUSABLE, LINK_UNUSABLE)
        roles = frozenset({"admin"} if link.customer is None else {"customer"})
        return await self.begin_session(visit, SignedIn(link.label, roles, link.customer, by_issuer=link.by_issuer), "")

    async def first_link(self) -> str:
        """Create the sign-in link of the first operator."""
        async with self._site.database.writing() as connection:
            link = Link(LINK_LABEL, None)
            secret = await sessions.create_link(connection, link, time.time(), FIRST_LINK_SECONDS, most=None)
        assert secret is not None
        return format_link(self._site.url, secret)

    # ---- operators

    async def to_issuer(self, visit: Visit) -> web.Response:
        """Redirect an operator to the issuer. With `again` the issuer asks for a second factor."""
        if self._operators is None:
            raise PageError(
                page_codes.SIGN_IN_UNAVAILABLE,
                "operators sign in by the link that the collector printed when it started",
            )
        return await self._operators.begin(visit, again=visit.request.query.get("again") == "1")

    async def from_issuer(self, visit: Visit) -> web.Response:
        """Begin the session of an operator who returns from the issuer."""
        if self._operators is None:
            raise PageError(page_codes.SIGN_IN_NOT_BEGUN, NOT_BEGUN)
        who, next_ = await self._operators.finish(visit)
        answer = await self.begin_session(visit, who, next_)
        self._operators.forget(answer)
        return answer

    # ---- customers, at an issuer of theirs

    async def to_customers_issuer(self, visit: Visit) -> web.Response:
        """Redirect a contact to the customers' issuer. With `again` the contact must sign in anew."""
        if self._customers is None:
            raise PageError(page_codes.SIGN_IN_UNAVAILABLE, "customers sign in by a link that is mailed")
        return await self._customers.begin(visit, again=visit.request.query.get("again") == "1")

    async def from_customers_issuer(self, visit: Visit) -> web.Response:
        """Begin the session of a contact who returns from the issuer. It first chooses one of several customers."""
        if self._customers is None:
            raise PageError(page_codes.SIGN_IN_NOT_BEGUN, NOT_BEGUN)
        (email, signed_in_at), next_ = await self._customers.finish(visit)
        label, secrets_of_links = contacts.format_label(email), []
        before = None if visit.session is None else visit.session.who
        async with self._site.database.writing() as connection:
            customers = await contacts.list_customers(connection, email)
            if before is not None and before.label == label and before.customer in customers:
                customers = [before.customer]  # A contact who has chosen a customer continues with that one.
            if len(customers) > 1:
                links = [Link(label, customer, by_issuer=True) for customer in customers]
                secrets_of_links = [
                    await sessions.create_link(connection, link, time.time(), most=None) for link in links
                ]
        if not customers and self.sign_up is None:
            raise self._deny_no_contact(visit, label)
        if not customers and self.sign_up is not None:
            answer = await self.sign_up(visit, email)
        elif secrets_of_links:
            names = await find_distinct_names(self._site.database, customers)
            answer = visit.render(
                "choose_customer.html", email=email, links=list(zip(names, secrets_of_links, strict=True))
            )
        else:
            who = SignedIn(label, frozenset({"customer"}), customers[0], signed_in_at, by_issuer=True)
            answer = await self.begin_session(visit, who, next_)
        self._customers.forget(answer)
        return answer

    # ---- all of them

    async def begin_session(self, visit: Visit, who: SignedIn, next_: str) -> web.Response:
        """Begin a session, which replaces the current one. Raises PageError if the contact has been removed."""
        async with self._site.database.writing() as connection:
            if who.customer is not None:
                role = await contacts.find_role(connection, who.label, who.customer, time.time(), visit.reader.language)
                if role is None:
                    raise self._deny_no_contact(visit, who.label)
                who = who._replace(contact_role=role)
            await sessions.end_session(connection, visit.session_secret)
            secret = await sessions.begin_session(connection, who, time.time())
            await self._record(connection, visit, who, "session.begin")
            held = await held_forms.find_form(
                connection, visit.request.cookies.get(self._site.held_cookie, ""), who, time.time()
            )
        next_ = held.page if held is not None else next_
        answer = visit.redirect(find_local_path(next_) or self._site.home(who))
        self._site.remember(answer, self._site.cookie, secret)
        return answer

    def _deny_no_contact(self, visit: Visit, label: str) -> PageError:
        """Record that a person who is no contact was denied. Return the error page."""
        self._site.api.deny(visit.request, label, 403, NO_CONTACT)
        return PageError(page_codes.SIGN_IN_UNKNOWN, NO_CONTACT)

    async def _record(self, connection: AsyncConnection, visit: Visit, who: SignedIn, action: str) -> None:
        origin, request_id = self._site.api.caller(visit.request)
        after: audit.Values = {"customer": who.customer, "role": who.contact_role}
        if who.customer is None:
            after = {"roles": sorted(who.roles)}
        caller = Caller(who.label, origin, request_id)
        await audit.append_entry(connection, caller, AuditEntry(action, who.label, None, after, who.customer))


def limit_visits(visit: Visit, what: str) -> None:
    """Raise PageError if a client sends too many forms of a kind."""
    seconds = visit.site.api.count_visit(visit.request, what, REQUESTS_PER_MINUTE)
    if seconds:
        raise PageError(page_codes.SIGN_IN_EXCEEDED, TOO_MANY, retry_after=str(seconds))


def start_mail(visit: Visit, work: Callable[[], Coroutine[None, None, object]]) -> None:
    """Start sending a mail in the background. Raises PageError if the client's share of slots is used up."""
    require_place(visit)
    visit.site.mails.start(visit.client, work)


def require_place(visit: Visit) -> None:
    """Raise PageError if `start_mail` would."""
    if visit.site.mails.find_exhausted(visit.client) is not None:
        raise PageError(page_codes.MAILS_BUSY, MAILS_UNDER_WAY, retry_after="60")


def refuse_mail(exhausted: Exhausted) -> PageError:
    """Return the error page for a client that gets no mail now, with the time until the next one."""
    minutes = max(1, math.ceil(exhausted.seconds / 60))
    is_network = exhausted.key.startswith("network ")
    code = page_codes.NETWORK_MAILS_EXCEEDED if is_network else page_codes.MAILS_EXCEEDED
    network = " from your network" if is_network else ""
    why = f"too many mails were asked for{network}: try again in {minutes} minutes"
    return PageError(code, why, params={"minutes": minutes}, retry_after=str(minutes * 60))


def format_link(url: str, secret: str) -> str:
    """Return the URL of a sign-in link at the site with this URL."""
    return f"{url}{SIGN_IN}/link?{urlencode({'token': secret})}"


def find_local_path(path: str) -> str:
    """Return a path of this site unchanged, or an empty text for other addresses."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return ""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return path if is_ours and path.isprintable() and path.isascii() and len(path) <= 1000 else ""
