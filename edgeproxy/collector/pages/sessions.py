"""Sessions and sign-in links in the database; the browser has a secret that cannot be guessed.

Of secrets only the SHA-256 is stored. A session ends by a sign-out, after IDLE_SECONDS without a request, and
SECONDS_MAX after it began.
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
"""Seconds after which an issuer is asked again for the person and the operator's roles."""
RECORD_USE_SECONDS = 60
"""Seconds between two records of a session's use, so that reading a page is no transaction."""
SESSIONS_PER_PERSON_MAX = 10
"""Sessions of one person at most; a further one ends the oldest."""
KEY_CHARACTERS = 16
"""Characters of a session's hash that alerts about its row have."""
LINK_SECONDS = 900
LINKS_MAX = 3
"""Usable links of one person and customer at most; further ones are not sent."""


class SignedIn(NamedTuple):
    """The person who signed in, and their roles."""

    label: str
    """The name in the audit log: `operator:` and the subject, or `contact:` and the address."""
    roles: frozenset[str]
    customer: str | None = None
    """The name of the contact's customer; None: an operator."""
    factor_at: float | None = None
    """The Unix second of the sign-in at the issuer: of an operator if it was with a second factor, of a customer's
    contact if the issuer says it."""
    by_issuer: bool = False
    """Whether a customer's contact signed in at an issuer, and not by a mailed link."""
    contact_role: ContactRole | None = None
    """The role of a customer's contact; None: an operator."""

    @property
    def builds(self) -> bool:
        """Return whether a contact may see and change keys and webhooks."""
        return self.contact_role in BUILDERS

    @property
    def pays(self) -> bool:
        """Return whether a contact may see invoices, pay, and change the plan."""
        return self.contact_role in PAYERS

    @property
    def is_owner(self) -> bool:
        """Return whether a contact may do everything, and invite colleagues."""
        return self.contact_role == OWNER


class VerifiedContact(NamedTuple):
    """A person whose address an issuer of customers has verified."""

    email: str
    signed_in_at: float | None
    """The Unix second of the sign-in there (`auth_time`); None where the issuer does not say it."""


class Session(NamedTuple):
    """A session that has not ended."""

    sha256: str
    who: SignedIn
    created_at: int
    seen_at: int
    form: str
    """The token in each form of the session, which no other site knows."""

    @property
    def signed_in_at(self) -> float | None:
        """The Unix second at which a contact has signed in; at an issuer, which confirms sessions without asking the
        person, that is what it says, and None where it does not."""
        return self.who.factor_at if self.who.by_issuer else self.created_at


class Link(NamedTuple):
    """The person who can sign in by a link; `by_issuer`: they have just signed in at an issuer."""

    label: str
    customer: str | None
    by_issuer: bool = False


def compute_digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def match_expired_sessions(at: int) -> sa.ColumnElement[bool]:
    """Match sessions that are over at a Unix second."""
    return sessions.c.created_at < at - SECONDS_MAX


def match_expired_links(at: int) -> sa.ColumnElement[bool]:
    """Match links that cannot be used any more at a Unix second."""
    return sign_in_links.c.ends_at <= at


async def begin_session(connection: AsyncConnection, who: SignedIn, now: float) -> str:
    """Begin a session; return its secret."""
    at = int(now)
    await connection.execute(sa.delete(sessions).where(match_expired_sessions(at)))
    own = sa.select(sessions.c.sha256).where(match_value(connection, sessions.name, "label", who.label))
    older = await connection.execute(own.order_by(sessions.c.created_at.desc()).offset(SESSIONS_PER_PERSON_MAX - 1))
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
    """Return the session that has this secret and has not ended, or None."""
    columns = sessions.c
    alive = (columns.created_at >= int(now) - SECONDS_MAX) & (columns.seen_at >= int(now) - IDLE_SECONDS)
    statement = sa.select(sessions).where(columns.sha256 == compute_digest(secret), alive)
    row = await _find_row(connection, sessions.name, statement)
    rows = () if row is None else (row,)
    # One that cannot be read has ended: its person signs in again.
    parsed = parse_rows(sessions.name, rows, partial(_parse_session, secret), lambda row: row.sha256[:KEY_CHARACTERS])
    return parsed[0] if parsed else None


def _parse_session(secret: str, row: SimpleNamespace) -> Session:
    role = None if row.customer is None else parse_role(row.contact_role)
    who = SignedIn(row.label, frozenset(parse_texts(row.roles)), row.customer, row.factor_at, bool(row.by_issuer), role)
    return Session(row.sha256, who, row.created_at, row.seen_at, compute_digest(f"form {secret}"))


async def _find_row(connection: AsyncConnection, table: str, statement: AnySelect) -> SimpleNamespace | None:
    rows = await fetch_rows(connection, table, statement)
    return SimpleNamespace(**rows[0]) if rows else None


async def find_sender(connection: AsyncConnection, secret: str, form: str) -> SignedIn | None:
    """Return the person whose form of a session this was, which may have ended; None where it cannot be known."""
    if compute_digest(f"form {secret}") != form:
        return None
    statement = sa.select(sessions).where(sessions.c.sha256 == compute_digest(secret))
    row = await _find_row(connection, sessions.name, statement)
    return None if row is None else SignedIn(row.label, frozenset(parse_texts(row.roles)), row.customer)


async def record_use(connection: AsyncConnection, session: Session, now: float) -> None:
    """Record the use of a session."""
    mine = sessions.c.sha256 == session.sha256
    await connection.execute(sa.update(sessions).where(mine).values(seen_at=int(now)))


async def end_session(connection: AsyncConnection, session: Session) -> None:
    """End a session."""
    await connection.execute(sa.delete(sessions).where(sessions.c.sha256 == session.sha256))


# ---- links


async def create_link(
    connection: AsyncConnection, link: Link, now: float, seconds: int = LINK_SECONDS, most: int | None = LINKS_MAX
) -> str | None:
    """Create a link, by which a person can sign in once; return its secret, or None where they have `most` already."""
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
    """Numbers of invitations of the last days: links that last longer than a sign-in takes."""

    of_customer: int
    """Those of the customer, to whomever."""
    of_person: int
    """Those to one person, of all customers."""
    of_both: int
    """Those of the customer to the person."""


async def count_invitations(connection: AsyncConnection, link: Link, now: float) -> InvitationCounts:
    """Return how many invitations there are of the customer of a link, and to its person."""
    columns = sign_in_links.c
    is_of_customer = columns.customer == link.customer
    is_of_person = match_value(connection, sign_in_links.name, "label", link.label)
    count = sa.func.count()
    statement = sa.select(
        count.filter(is_of_customer), count.filter(is_of_person), count.filter(is_of_customer & is_of_person)
    ).where(columns.ends_at > int(now) + LINK_SECONDS, is_of_customer | is_of_person)
    return InvitationCounts(*(await connection.execute(statement)).one())


async def find_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Return the usable link with this secret, or None."""
    columns = sign_in_links.c
    there = sa.select(sign_in_links).where(columns.sha256 == compute_digest(secret), columns.ends_at > int(now))
    row = await _find_row(connection, sign_in_links.name, there)
    return None if row is None else Link(row.label, row.customer, bool(row.by_issuer))


async def use_up_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Use up the link with this secret and return it, or None where none is usable."""
    columns = sign_in_links.c
    gone = sa.delete(sign_in_links).where(columns.sha256 == compute_digest(secret), columns.ends_at > int(now))
    used_up = [dict(row._mapping) for row in await connection.execute(gone.returning(*columns))]
    rows = [SimpleNamespace(**row) for row in await open_rows(connection, sign_in_links.name, used_up)]
    return Link(rows[0].label, rows[0].customer, bool(rows[0].by_issuer)) if rows else None
