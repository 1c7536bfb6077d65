"""Sessions and sign-in links in the database. The browser holds an unguessable secret.

Only the SHA-256 of a secret is stored, or of the forms' token once a person has ended the session. A session ends by a
sign-out, after IDLE_SECONDS without a request, and SECONDS_MAX after it began.
"""

import hashlib
import secrets
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.contact_roles import BUILDERS, OWNER, PAYERS, ContactRole, parse_role
from edgeproxy.collector.database.page_tables import sessions, sign_in_links
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.database.unreadable_rows import parse_rows, parse_texts
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, open_rows, seal_rows

SECONDS_MAX = 8 * 3600
IDLE_SECONDS = 1800
CONFIRM_SECONDS = 900
"""Seconds until an issuer is asked again about the person and the operator's roles."""
RECORD_USE_SECONDS = 60
"""Seconds between two records of a session's use, so that most page views need no write transaction."""
SESSIONS_PER_PERSON_MAX = 10
"""Most sessions of one person. A further session ends the one that was used longest ago."""
KEY_CHARACTERS = 16
"""Characters of a session's hash in alerts about its row."""
LINK_SECONDS = 900
LINKS_MAX = 3
"""Most valid links of one person and customer. Further links are not sent."""


class SignedIn(NamedTuple):
    """The person who signed in, and their roles."""

    label: str
    """The name in the audit log: `operator:` and the subject, or `contact:` and the address."""
    roles: frozenset[str]
    customer: str | None = None
    """The name of the contact's customer; None: an operator."""
    factor_at: float | None = None
    """The Unix second of the sign-in at the issuer.

    For an operator it is set only after a second factor, for a contact only if the issuer reports it.
    """
    by_issuer: bool = False
    """True if a contact signed in at an issuer, False if by a mailed link."""
    contact_role: ContactRole | None = None
    """The role of a contact; None: an operator."""

    @property
    def builds(self) -> bool:
        """Return True if a contact may view and change keys and webhooks."""
        return self.contact_role in BUILDERS

    @property
    def pays(self) -> bool:
        """Return True if a contact may view invoices, pay, and change the plan."""
        return self.contact_role in PAYERS

    @property
    def is_owner(self) -> bool:
        """Return True if a contact may do everything, and invite colleagues."""
        return self.contact_role == OWNER


class VerifiedContact(NamedTuple):
    """A person whose address a customers' issuer has verified."""

    email: str
    signed_in_at: float | None
    """The Unix second of the sign-in at the issuer (`auth_time`), or None if it is not reported."""


class Session(NamedTuple):
    """A session that has not ended."""

    sha256: str
    who: SignedIn
    created_at: int
    seen_at: int
    form: str
    """The token in each form of the session. Other sites do not know it."""

    @property
    def signed_in_at(self) -> float | None:
        """The Unix second when a contact signed in.

        An issuer confirms sessions without asking the person. So for an issuer it is the reported time, or None.
        """
        return self.who.factor_at if self.who.by_issuer else self.created_at


class Link(NamedTuple):
    """The person who can sign in with a link. `by_issuer`: they have just signed in at an issuer."""

    label: str
    customer: str | None
    by_issuer: bool = False


def compute_digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def compute_form_token(secret: str) -> str:
    """Return the token in the forms of the session with this secret."""
    return compute_digest(f"form {secret}")


def match_expired_sessions(at: int) -> sa.ColumnElement[bool]:
    """Match sessions that have ended at a Unix second."""
    return sessions.c.created_at < at - SECONDS_MAX


def match_expired_links(at: int) -> sa.ColumnElement[bool]:
    """Match links that have expired at a Unix second."""
    return sign_in_links.c.ends_at <= at


async def begin_session(connection: AsyncConnection, who: SignedIn, now: float) -> str:
    """Begin a session and return its secret."""
    at = int(now)
    await connection.execute(sa.delete(sessions).where(match_expired_sessions(at)))
    own = sa.select(sessions.c.sha256).where(match_value(connection, sessions.name, "label", who.label))
    latest_first = own.order_by(sessions.c.seen_at.desc(), sessions.c.created_at.desc())
    older = await connection.execute(latest_first.offset(SESSIONS_PER_PERSON_MAX - 1))
    if gone := older.scalars().all():
        await connection.execute(sa.delete(sessions).where(sessions.c.sha256.in_(gone)))
    secret = secrets.token_urlsafe(32)
    row = {
        "sha256": compute_digest(secret),
        "label": who.label,
        "roles": orjson.dumps(sorted(who.roles)).decode(),
        "customer": who.customer,
        "factor_at": None if who.factor_at is None else int(who.factor_at),
        "by_issuer": int(who.by_issuer),
        "contact_role": who.contact_role,
        "created_at": at,
        "seen_at": at,
    }
    await connection.execute(sa.insert(sessions), await seal_rows(connection, sessions.name, [row]))
    return secret


async def find_session(connection: AsyncConnection, secret: str, now: float) -> Session | None:
    """Return the valid session with this secret, or None."""
    columns = sessions.c
    alive = (columns.created_at >= int(now) - SECONDS_MAX) & (columns.seen_at >= int(now) - IDLE_SECONDS)
    statement = sa.select(sessions).where(columns.sha256 == compute_digest(secret), alive)
    row = await _find_row(connection, sessions.name, statement)
    rows = () if row is None else (row,)
    # An unreadable session counts as ended, and the person signs in again.
    parsed = parse_rows(sessions.name, rows, partial(_parse_session, secret), lambda row: row.sha256[:KEY_CHARACTERS])
    return parsed[0] if parsed else None


def _parse_session(secret: str, row: SimpleNamespace) -> Session:
    role = None if row.customer is None else parse_role(row.contact_role)
    who = SignedIn(row.label, frozenset(parse_texts(row.roles)), row.customer, row.factor_at, bool(row.by_issuer), role)
    return Session(row.sha256, who, row.created_at, row.seen_at, compute_form_token(secret))


async def _find_row(connection: AsyncConnection, table: str, statement: AnySelect) -> SimpleNamespace | None:
    rows = await fetch_rows(connection, table, statement)
    return SimpleNamespace(**rows[0]) if rows else None


async def find_sender(connection: AsyncConnection, secret: str, form: str) -> SignedIn | None:
    """Return the person whose session sent this form, even if the session has ended, or None if unknown.

    `secret` is the browser's cookie. A session that the person ended is found without it, and with it, too: it may have
    been ended in another browser.
    """
    digests = {compute_digest(form), *([compute_digest(secret)] if compute_form_token(secret) == form else [])}
    row = await _find_row(connection, sessions.name, sa.select(sessions).where(sessions.c.sha256.in_(digests)))
    return None if row is None else SignedIn(row.label, frozenset(parse_texts(row.roles)), row.customer)


async def record_use(connection: AsyncConnection, session: Session, now: float) -> None:
    """Record the use of a session."""
    mine = sessions.c.sha256 == session.sha256
    await connection.execute(sa.update(sessions).where(mine).values(seen_at=int(now)))


async def end_session(connection: AsyncConnection, secret: str) -> None:
    """End the session with this secret, if there is one.

    Pages of the session may be open in other tabs. Its row stays under the digest of their form token until it
    expires, so that a form of such a page finds its sender. Its last use is put back, so that it admits nobody.
    """
    gone = sa.delete(sessions).where(sessions.c.sha256 == compute_digest(secret)).returning(*sessions.c)
    rows = [{**row._mapping, "seen_at": row.seen_at - IDLE_SECONDS - 1} for row in await connection.execute(gone)]
    token = compute_digest(compute_form_token(secret))
    ended = [{**row, "sha256": token} for row in await open_rows(connection, sessions.name, rows)]
    if ended:
        await connection.execute(sa.insert(sessions), await seal_rows(connection, sessions.name, ended))


# ---- links


async def create_link(
    connection: AsyncConnection, link: Link, now: float, seconds: int = LINK_SECONDS, most: int | None = LINKS_MAX
) -> str | None:
    """Create a link that signs a person in once. Return its secret, or None if the person has `most` links."""
    columns = sign_in_links.c
    await connection.execute(sa.delete(sign_in_links).where(match_expired_links(int(now))))
    is_theirs = match_value(connection, sign_in_links.name, "label", link.label)
    mine = is_theirs & (columns.customer.is_not_distinct_from(link.customer))
    there = (await connection.execute(sa.select(sa.func.count()).select_from(sign_in_links).where(mine))).scalar_one()
    if most is not None and there >= most:
        return None
    secret = secrets.token_urlsafe(32)
    row = {
        "sha256": compute_digest(secret),
        "ends_at": int(now) + seconds,
        **link._asdict(),
        "by_issuer": int(link.by_issuer),
    }
    await connection.execute(sa.insert(sign_in_links), await seal_rows(connection, sign_in_links.name, [row]))
    return secret


class InvitationCounts(NamedTuple):
    """Numbers of invitations in the last days. Invitations are links that live longer than sign-in links."""

    of_customer: int
    """Invitations by the customer to anyone."""
    of_person: int
    """Invitations of the person by any customer."""
    of_both: int
    """Invitations of the person by the customer."""


async def count_invitations(connection: AsyncConnection, link: Link, now: float) -> InvitationCounts:
    """Return the numbers of invitations for the customer and the person of a link."""
    columns = sign_in_links.c
    is_of_customer = columns.customer == link.customer
    is_of_person = match_value(connection, sign_in_links.name, "label", link.label)
    count = sa.func.count()
    statement = sa.select(
        count.filter(is_of_customer), count.filter(is_of_person), count.filter(is_of_customer & is_of_person)
    ).where(columns.ends_at > int(now) + LINK_SECONDS, is_of_customer | is_of_person)
    return InvitationCounts(*(await connection.execute(statement)).one())


async def find_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Return the valid link with this secret, or None."""
    columns = sign_in_links.c
    there = sa.select(sign_in_links).where(columns.sha256 == compute_digest(secret), columns.ends_at > int(now))
    row = await _find_row(connection, sign_in_links.name, there)
    return None if row is None else Link(row.label, row.customer, bool(row.by_issuer))


async def use_up_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Delete the link with this secret and return it, or None if no such link is valid."""
    columns = sign_in_links.c
    gone = sa.delete(sign_in_links).where(columns.sha256 == compute_digest(secret), columns.ends_at > int(now))
    used_up = [dict(row._mapping) for row in await connection.execute(gone.returning(*columns))]
    rows = [SimpleNamespace(**row) for row in await open_rows(connection, sign_in_links.name, used_up)]
    return Link(rows[0].label, rows[0].customer, bool(rows[0].by_issuer)) if rows else None
