"""Tokens as data: each change over HTTP with its audit entry, in one transaction.

Only the SHA-256 of a secret is stored. A secret has the form of a key with the prefix `token`; other texts are not
looked up.
"""

import re
from collections.abc import Collection
from operator import attrgetter
from typing import Literal, NotRequired

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base import bearer
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field, reject_fields
from edgeproxy.collector.accounts.fields import End, Span
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.rows import Role, TokenMatch, TokenRow
from edgeproxy.collector.database.schema import token_secrets, tokens
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.field_codes import PAST
from edgeproxy.config.field_types import Name
from edgeproxy.config.key_form import REGEX, generate_key, is_miswritten
from edgeproxy.config.parsers import NAME

PREFIX = "token"
SECRET_PATTERN = re.compile(REGEX)
TOKENS_MAX = 1000
SECRETS_MAX = 5
"""The most valid secrets of a token."""
ENDED_SECRET_RETENTION_MS = 30 * 86400 * 1000
"""For how many milliseconds an ended secret is stored, so that denials can name its token."""
NOT_FOUND = "there is no such token"
SENSITIVE_ROLES = frozenset({"support", "billing", "admin"})
"""The roles whose tokens can change customers. Granting one of them is a sensitive action."""


class CreateTokenRequest(Body):
    """A new token: with a role, or for a customer."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["role"]}, {"required": ["customer"]}]})

    name: Name
    """The name of the token."""
    role: Role | None = None
    """The role of the token. It grants the permissions."""
    customer: Name | None = None
    """The only customer whose data the token may read, by name, instead of a role."""
    edge: Name | None = None
    """The only edge that may send batches with the token, by id."""
    region: Name | None = None
    """The only region whose edges may use the token."""
    expires_at: End | None = None
    """The time when the token expires; by default never."""


class CreateTokenSecretRequest(Body):
    """A request for a new secret of a token; earlier secrets expire after the overlap."""

    overlap: Span = 7 * 86400
    """The time that the old secrets stay valid, for example 7d; 0s ends them at once."""


class TokenResponse(TypedDict):
    """A token, without its secrets."""

    name: str
    """The name of the token."""
    role: Role | None
    """The role of the token; null for a customer's token."""
    customer: str | None
    """The only customer whose data the token may read, by name; null if the token has a role."""
    edge: str | None
    """The only edge that may send batches with the token; null: any."""
    region: str | None
    """The only region whose edges may use the token; null: any."""
    source: Literal["api", "file"]
    """`api` for a token created over the API, `file` for a token in the collector's file."""
    created_at: str | None
    """The time when the token was created; null for tokens in the file."""
    created_by: str | None
    """The token or operator that created it; null for tokens in the file."""
    expires_at: str | None
    """The time when the token expires; null: never."""
    secrets: int
    """The number of secrets that are valid now."""


class TokenWithSecret(TokenResponse):
    """A token with its secret. No other response contains the secret."""

    secret: NotRequired[str]
    """The secret itself. No other response has it."""


class TokenList(TypedDict):
    """All tokens, by name."""

    tokens: list[TokenResponse]
    """The tokens, by name."""


FIELDS = ("role", "customer", "edge", "region")


def to_response(row: TokenRow, secrets: int) -> TokenResponse:
    """Return a token in the form of the API. `secrets` is the number of valid secrets."""
    return {
        "name": row.name,
        "role": row.role,
        "customer": row.customer,
        "edge": row.edge,
        "region": row.region,
        "source": "api",
        "created_at": format_timestamp(row.created_at),
        "created_by": row.created_by,
        "expires_at": format_timestamp(row.expires_at),
        "secrets": secrets,
    }


async def find_by_secret(connection: AsyncConnection, secret: str) -> TokenMatch | None:
    """Return the token with this secret, including secrets that ended within ENDED_SECRET_RETENTION_MS, or None."""
    if SECRET_PATTERN.fullmatch(secret) is None or is_miswritten(secret.encode()):
        return None
    statement = (
        sa.select(tokens, token_secrets.c.ends_at)
        .join_from(tokens, token_secrets, token_secrets.c.token == tokens.c.name)
        .where(token_secrets.c.sha256 == bearer.hash_token(secret))
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else TokenMatch(TokenRow(*row[:-1]), row.ends_at)


def has_expired(row: TokenRow) -> bool:
    """Return whether a token has expired."""
    return row.expires_at is not None and row.expires_at <= now_ms()


def has_secret_ended(match: TokenMatch) -> bool:
    """Return whether the secret that matched the token has ended."""
    return match.secret_ends_at is not None and match.secret_ends_at <= now_ms()


async def list_tokens(connection: AsyncConnection) -> list[TokenResponse]:
    """Return all tokens created over HTTP, by name."""
    counts = await _count_secrets(connection)
    rows = await connection.execute(sa.select(tokens).order_by(tokens.c.name))
    return parse_rows(
        tokens.name, rows, lambda row: to_response(TokenRow(*row), counts.get(row.name, 0)), attrgetter("name")
    )


async def get_token(connection: AsyncConnection, name: str) -> TokenResponse:
    """Return a token by name. Raises ChangeRejectedError if it does not exist."""
    return to_response(await get_row(connection, name), (await _count_secrets(connection)).get(name, 0))


async def get_row(connection: AsyncConnection, name: str, *, lock: bool = False) -> TokenRow:
    """Return the row of a token. Raises ChangeRejectedError if it does not exist."""
    row = None
    if NAME.fullmatch(name):
        statement = sa.select(tokens).where(tokens.c.name == name)
        row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(account_codes.TOKEN_NOT_FOUND, NOT_FOUND)
    return TokenRow(*row)


async def create_token(
    connection: AsyncConnection, caller: Caller, new: CreateTokenRequest, reserved: Collection[str]
) -> TokenWithSecret:
    """Create a token, and return it with its secret. Raises ChangeRejectedError.

    `reserved` are the names of the tokens in the configuration.
    """
    if (new.role is None) == (new.customer is None):
        raise reject_field("role", "write a role, or a customer instead")
    misplaced = [field for field in ("edge", "region") if getattr(new, field) is not None and new.role != "edge"]
    if misplaced:
        hint = "binds those who ship: write it beside role edge"
        raise reject_fields([FieldFault(field, hint) for field in misplaced])
    if new.expires_at is not None and new.expires_at <= now_ms():
        raise reject_field("expires_at", "is past", PAST)
    names = (await connection.scalars(sa.select(tokens.c.name))).all()
    if new.name in reserved or new.name in names:
        raise ChangeRejectedError(
            account_codes.TOKEN_EXISTS, f"there is a token {new.name} already", params={"name": new.name}
        )
    if len(names) >= TOKENS_MAX:
        raise ChangeRejectedError(
            account_codes.TOKENS_FULL, f"there are {len(names)} tokens, and {TOKENS_MAX} is as many as there may be"
        )
    row = {name: getattr(new, name) for name in ("name", *FIELDS, "expires_at")}
    row |= {"created_at": now_ms(), "created_by": caller.actor}
    await connection.execute(sa.insert(tokens), [row])
    secret = await _add_secret(connection, new.name)
    token = await get_token(connection, new.name)
    await audit.append_entry(connection, caller, AuditEntry("token.create", new.name, None, token, new.customer))
    return {**token, "secret": secret}


async def add_secret(connection: AsyncConnection, caller: Caller, name: str, overlap: int) -> TokenWithSecret:
    """Add a secret to a token, and return both. The token's other secrets end after `overlap` seconds.

    Raises ChangeRejectedError.
    """
    row = await get_row(connection, name, lock=True)
    if has_expired(row):
        raise ChangeRejectedError(account_codes.TOKEN_EXPIRED, "the token has expired: make a new one")
    before, now = await get_token(connection, name), now_ms()
    if overlap and before["secrets"] >= SECRETS_MAX:
        raise ChangeRejectedError(
            account_codes.TOKEN_SECRETS_FULL,
            f"it has {SECRETS_MAX} secrets already: write overlap: 0s, and the others end",
        )
    end = now + overlap * 1000
    outlasting = token_secrets.c.ends_at.is_(None) | (token_secrets.c.ends_at > end)
    own = token_secrets.c.token == name
    await connection.execute(sa.update(token_secrets).where(own, outlasting).values(ends_at=end))
    is_old = token_secrets.c.ends_at <= now - ENDED_SECRET_RETENTION_MS
    await connection.execute(sa.delete(token_secrets).where(own, is_old))
    secret = await _add_secret(connection, name)
    token = await get_token(connection, name)
    after = {"secrets": token["secrets"], "others_end_at": format_timestamp(end)}
    entry = AuditEntry("token.secret", name, {"secrets": before["secrets"]}, after, row.customer)
    await audit.append_entry(connection, caller, entry)
    return {**token, "secret": secret}


async def revoke_token(connection: AsyncConnection, caller: Caller, name: str) -> TokenResponse:
    """Revoke a token with all its secrets, and return its last state. Raises ChangeRejectedError."""
    row = await get_row(connection, name, lock=True)
    before = await get_token(connection, name)
    await connection.execute(sa.delete(token_secrets).where(token_secrets.c.token == name))
    await connection.execute(sa.delete(tokens).where(tokens.c.name == name))
    await audit.append_entry(connection, caller, AuditEntry("token.revoke", name, before, None, row.customer))
    return before


async def _add_secret(connection: AsyncConnection, name: str) -> str:
    secret = generate_key(PREFIX)
    row = {"sha256": bearer.hash_token(secret), "token": name, "created_at": now_ms(), "ends_at": None}
    await connection.execute(sa.insert(token_secrets), [row])
    return secret


async def _count_secrets(connection: AsyncConnection) -> dict[str, int]:
    """Return the number of valid secrets of each token that has any."""
    usable = token_secrets.c.ends_at.is_(None) | (token_secrets.c.ends_at > now_ms())
    statement = sa.select(token_secrets.c.token, sa.func.count()).where(usable).group_by(token_secrets.c.token)
    return {row[0]: row[1] for row in await connection.execute(statement)}
