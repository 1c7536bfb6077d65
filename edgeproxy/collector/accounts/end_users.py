"""End users of customers, as services name them: stored as an HMAC by a secret of the customer.

Equal names have equal hashes, so that they are counted as one. The secret goes with the erasure of the customer: from
then on nobody can try names.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Collection
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.privacy_tables import end_user_secrets
from edgeproxy.config.collector.settings import CollectorSettings

HASHED = "hmac:"
"""How items begin that are stored hashed."""
ERASED = "erased:"
"""How random items begin that stand for an end user who was erased."""
SECRET_BYTES = 32
NAMES_MAX = 1000
"""Customers whose secrets one statement fetches."""

Secrets = dict[str, bytes]
"""Secrets by customer, as the ledger knows it."""


def is_hashing(settings: CollectorSettings) -> bool:
    """Return whether end users are stored hashed."""
    return settings.privacy is not None and settings.privacy.hash_end_users


def hash_item(secret: bytes, item: str) -> str:
    """Return an item as it is stored."""
    return HASHED + urlsafe_b64encode(hmac.digest(secret, item.encode(), sha256)).rstrip(b"=").decode()


def make_random_item() -> str:
    """Return an item that stands for an end user who was erased."""
    return ERASED + secrets.token_urlsafe(SECRET_BYTES)


async def fetch_secrets(connection: AsyncConnection, customers: Collection[str]) -> Secrets:
    """Return the secrets of those of these customers who have one."""
    ordered, columns = sorted(customers), end_user_secrets.c
    by_customer: Secrets = {}
    for at in range(0, len(ordered), NAMES_MAX):
        some = sa.select(columns.customer, columns.secret).where(columns.customer.in_(ordered[at : at + NAMES_MAX]))
        by_customer |= {row.customer: row.secret for row in await connection.execute(some)}
    return by_customer


async def get_or_create_secrets(connection: AsyncConnection, customers: Collection[str]) -> Secrets:
    """Return the secrets of these customers; those who have none yet get one."""
    by_customer = await fetch_secrets(connection, customers)
    rows = [{"customer": one, "secret": secrets.token_bytes(SECRET_BYTES)} for one in {*customers} - by_customer.keys()]
    if not rows:
        return by_customer
    await connection.execute(build_insert_new(connection, end_user_secrets, "customer"), rows)
    return await fetch_secrets(connection, customers)
