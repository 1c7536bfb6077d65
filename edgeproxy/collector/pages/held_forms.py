"""Forms that met an ended session or lacked a second factor. They are kept until the sender has signed in again.

A form is kept for HELD_SECONDS, encrypted and bound to its sender, and without secrets. Only forms of sessions are
kept. A kept form is displayed again, but never sent automatically.
"""

import secrets
from collections.abc import Mapping
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.page_tables import held_forms
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, seal_rows
from edgeproxy.collector.pages.sessions import SignedIn, compute_digest

HELD_SECONDS = 600
FORMS_PER_PERSON_MAX = 3
"""Most held forms of one person. A further form replaces them all."""
SECRET_FIELDS = frozenset({"form", "once", "password", "secret", "token", "key", "q", "jwk"})
"""Fields that are neither held nor shown again. People paste keys into a search (`q`), or a private key as `jwk`."""
TABLE = held_forms.name
columns = held_forms.c


class HeldForm(NamedTuple):
    """A form that was not applied."""

    page: str
    """The path and query of the form's page."""
    action: str
    fields: Mapping[str, str]


def select_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a form that may be shown again."""
    return {name: value for name, value in fields.items() if name not in SECRET_FIELDS}


def match_expired(at: int) -> sa.ColumnElement[bool]:
    """Match forms that have expired at a Unix second."""
    return columns.ends_at <= at


async def hold_form(connection: AsyncConnection, who: SignedIn, form: HeldForm, now: float) -> str:
    """Hold a form for its sender and return the secret for retrieving it."""
    own = match_value(connection, TABLE, "label", who.label) & columns.customer.is_not_distinct_from(who.customer)
    count = (await connection.execute(sa.select(sa.func.count()).select_from(held_forms).where(own))).scalar_one()
    expired = match_expired(int(now))
    await connection.execute(sa.delete(held_forms).where(expired | own if count >= FORMS_PER_PERSON_MAX else expired))
    secret = secrets.token_urlsafe(32)
    row = {
        "sha256": compute_digest(secret),
        "label": who.label,
        "customer": who.customer,
        "page": form.page,
        "action": form.action,
        "fields": orjson.dumps(select_fields(form.fields)).decode(),
        "ends_at": int(now) + HELD_SECONDS,
    }
    await connection.execute(sa.insert(held_forms), await seal_rows(connection, TABLE, [row]))
    return secret


async def find_form(connection: AsyncConnection, secret: str, who: SignedIn, now: float) -> HeldForm | None:
    """Return the form with this secret, if this person sent it and it has not expired."""
    mine = match_value(connection, TABLE, "label", who.label) & columns.customer.is_not_distinct_from(who.customer)
    held = (columns.sha256 == compute_digest(secret)) & (columns.ends_at > int(now))
    rows = await fetch_rows(connection, TABLE, sa.select(held_forms).where(held, mine))
    if not rows:
        return None
    page, action, fields = (str(rows[0][name]) for name in ("page", "action", "fields"))
    return HeldForm(page, action, orjson.loads(fields))


async def drop_form(connection: AsyncConnection, secret: str) -> None:
    """Delete the form with this secret, independently of its sender."""
    await connection.execute(sa.delete(held_forms).where(columns.sha256 == compute_digest(secret)))
