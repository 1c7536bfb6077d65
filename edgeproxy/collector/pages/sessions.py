"""Who has signed in: sessions are in the database, and the browser has a secret that nobody can guess.

Of secrets only the SHA-256 is kept. A session ends when it is ended, when nothing was asked for IDLE_SECONDS, and
SECONDS_MAX after its begin.
"""

import hashlib
import secrets
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.page_tables import sessions, sign_in_links

SECONDS_MAX = 8 * 3600
IDLE_SECONDS = 1800
CONFIRM_SECONDS = 900
"""Seconds after which an issuer is asked again who that is, and what roles an operator has by now."""
RECORD_USE_SECONDS = 60
"""A session that is used is noted once in so many seconds: to look at a page is no transaction."""
SESSIONS_PER_PERSON_MAX = 10
"""Sessions of one person; the oldest ends when there are more."""
LINK_SECONDS = 900
LINKS_MAX = 3
"""Links of one person and customer that can be used at a time: more are not sent."""


class SignedIn(NamedTuple):
    """Who signed in, and what they may."""

    label: str
    """Who they are in the audit log: `operator:` and the subject, or `contact:` and the address."""
    roles: frozenset[str]
    customer: str | None = None
    """The name of the customer whose contact it is; None: an operator."""
    factor_at: float | None = None
    """The Unix second of the sign-in, if it was with a second factor."""
    by_issuer: bool = False
    """Whether an issuer vouches for a customer's contact, and no mailed link."""


class Session(NamedTuple):
    """A session that has not ended."""

    sha256: str
    who: SignedIn
    created_at: int
    seen_at: int
    form: str
    """What each form of the session has, and no other site knows."""


class Link(NamedTuple):
    """Who can sign in by a link; `by_issuer`: an issuer vouched for them a moment ago."""

    label: str
    customer: str | None
    by_issuer: bool = False


def compute_digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


async def begin_session(connection: AsyncConnection, who: SignedIn, now: float) -> str:
    """Begin a session; return its secret."""
    at = int(now)
    await connection.execute(sa.delete(sessions).where(sessions.c.created_at < at - SECONDS_MAX))
    own = sa.select(sessions.c.sha256).where(sessions.c.label == who.label)
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
        "created_at": at,
        "seen_at": at,
    }
    await connection.execute(sa.insert(sessions), [row])
    return secret


async def find_session(connection: AsyncConnection, secret: str, now: float) -> Session | None:
    """Return the session that has this secret; None where there is none, or it has ended."""
    columns = sessions.c
    alive = (columns.created_at >= int(now) - SECONDS_MAX) & (columns.seen_at >= int(now) - IDLE_SECONDS)
    row = (
        await connection.execute(sa.select(sessions).where(columns.sha256 == compute_digest(secret), alive))
    ).one_or_none()
    if row is None:
        return None
    who = SignedIn(row.label, frozenset(orjson.loads(row.roles)), row.customer, row.factor_at, bool(row.by_issuer))
    return Session(row.sha256, who, row.created_at, row.seen_at, compute_digest(f"form {secret}"))


async def record_use(connection: AsyncConnection, session: Session, now: float) -> None:
    """Note that a session is used."""
    mine = sessions.c.sha256 == session.sha256
    await connection.execute(sa.update(sessions).where(mine).values(seen_at=int(now)))


async def end_session(connection: AsyncConnection, session: Session) -> None:
    """End a session."""
    await connection.execute(sa.delete(sessions).where(sessions.c.sha256 == session.sha256))


# ---- links


async def create_link(
    connection: AsyncConnection, link: Link, now: float, seconds: int = LINK_SECONDS, most: int | None = LINKS_MAX
) -> str | None:
    """Make a link by which somebody can sign in once; its secret, None where they have `most` already."""
    columns = sign_in_links.c
    await connection.execute(sa.delete(sign_in_links).where(columns.ends_at <= int(now)))
    mine = (columns.label == link.label) & (columns.customer.is_not_distinct_from(link.customer))
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
    await connection.execute(sa.insert(sign_in_links), [row])
    return secret


async def find_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Return who can sign in by a link; None where there is none, or it has ended."""
    columns = sign_in_links.c
    there = sa.select(columns.label, columns.customer, columns.by_issuer).where(
        columns.sha256 == compute_digest(secret)
    )
    row = (await connection.execute(there.where(columns.ends_at > int(now)))).one_or_none()
    return None if row is None else Link(row.label, row.customer, bool(row.by_issuer))


async def use_up_link(connection: AsyncConnection, secret: str, now: float) -> Link | None:
    """Use up a link; None where there is none, or it has ended."""
    columns = sign_in_links.c
    gone = sa.delete(sign_in_links).where(columns.sha256 == compute_digest(secret), columns.ends_at > int(now))
    known = gone.returning(columns.label, columns.customer, columns.by_issuer)
    row = (await connection.execute(known)).one_or_none()
    return None if row is None else Link(row.label, row.customer, bool(row.by_issuer))
