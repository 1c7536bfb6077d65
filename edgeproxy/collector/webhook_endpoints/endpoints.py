"""Endpoints of customers' webhooks: each change with its audit entry in one transaction.

Secrets are stored encrypted. The audit log has only the host of a URL, because the rest may be a secret.
"""

import base64
import secrets
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import (
    ChangeRejectedError,
    compute_difference,
    drop_empty_values,
    reject_field,
    require_version,
)
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_rows, reading_row
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_endpoints, webhook_messages
from edgeproxy.collector.encryption.rows import fetch_page, fetch_rows, seal_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.collector.webhook_endpoints.models import (
    CreateWebhookEndpointRequest,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointWithSecret,
)
from edgeproxy.collector.webhooks import deliveries
from edgeproxy.collector.webhooks.address_policy import find_customer_refusal
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import DISABLED, ENABLED, generate_name, insert_message
from edgeproxy.collector.webhooks.sender import SECRETS
from edgeproxy.config.addresses import is_address
from edgeproxy.config.collector.alerts import SECRET_PREFIX
from edgeproxy.config.collector.webhooks import Webhooks
from edgeproxy.config.field_codes import MISSING, NOT_A_URL

ENDPOINTS_MAX = 10
"""The most endpoints of a customer."""
SECRET_BYTES = 32
OVERLAP_SECONDS = 24 * 3600
"""The old secret also signs for this many seconds after a rotation."""
NOT_FOUND, NO_MESSAGE = "there is no such webhook endpoint", "there is no such message to this endpoint"
BY_HAND = "disabled by hand"
TABLE = webhook_endpoints.name
columns = webhook_endpoints.c
COLUMN_NAMES = columns.keys()


class EndpointRow(NamedTuple):
    """A row of `webhook_endpoints`, with the name of its customer."""

    id: str
    customer: str
    url: str
    description: str | None
    types: str | None
    secret: bytes
    old_secret: bytes | None
    old_secret_until: int | None
    state: str
    disabled_why: str | None
    failing_since: int | None
    created_at: int
    version: int
    customer_name: str


def to_response(row: EndpointRow) -> WebhookEndpoint:
    """Return an endpoint in the form of the API, without its secret."""
    has_old_secret = row.old_secret_until is not None and row.old_secret_until > now_ms()
    return {
        "id": row.id,
        "customer": row.customer_name,
        "url": row.url,
        "description": row.description,
        "types": None if row.types is None else orjson.loads(row.types),
        "state": "enabled" if row.state == ENABLED else "disabled",
        "disabled_why": row.disabled_why,
        "failing_since": format_timestamp(row.failing_since),
        "old_secret_until": format_timestamp(row.old_secret_until) if has_old_secret else None,
        "created_at": format_timestamp(row.created_at),
    }


async def list_endpoints(connection: AsyncConnection, customer: str) -> list[WebhookEndpoint]:
    """Return the endpoints of a customer, by id or name, oldest first. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, customer)
    statement = sa.select(webhook_endpoints).where(columns.customer == owner.id).order_by(columns.id)
    rows = await fetch_rows(connection, TABLE, statement)
    return parse_rows(TABLE, rows, lambda row: to_response(_to_row(row, owner.name)), itemgetter("id"))


async def get_row(connection: AsyncConnection, customer: str, endpoint: str, *, lock: bool = False) -> EndpointRow:
    """Return an endpoint of a customer, by id or name. Raises ChangeRejectedError if it does not exist."""
    owner = await customers.get_row(connection, customer)
    statement = sa.select(webhook_endpoints).where(columns.customer == owner.id, columns.id == endpoint)
    rows = []
    if endpoint.isascii() and endpoint.isprintable():  # Some databases reject a NUL even in a query.
        rows = await fetch_rows(connection, TABLE, statement.with_for_update() if lock else statement)
    if not rows:
        raise ChangeRejectedError(account_codes.WEBHOOK_NOT_FOUND, NOT_FOUND)
    return _to_row(rows[0], owner.name)


def _to_row(row: Mapping[str, object], customer_name: str) -> EndpointRow:
    return EndpointRow(**row, customer_name=customer_name)  # type: ignore[arg-type]


async def create_endpoint(
    connection: AsyncConnection, caller: Caller, customer: str, new: CreateWebhookEndpointRequest, settings: Webhooks
) -> WebhookEndpointWithSecret:
    """Create an endpoint of a customer, and return it with its secret. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, customer, lock=True)
    if owner.deleting_since is not None:
        raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
    require_reachable(new.url, settings)
    count = sa.select(sa.func.count()).where(columns.customer == owner.id)
    if (await connection.execute(count)).scalar_one() >= ENDPOINTS_MAX:
        raise ChangeRejectedError(
            account_codes.WEBHOOKS_FULL, f"the customer has {ENDPOINTS_MAX} endpoints, as many as there may be"
        )
    now = now_ms()
    endpoint, secret = generate_name("we", now), _generate_secret()
    row = EndpointRow(
        id=endpoint,
        customer=owner.id,
        url=new.url,
        description=new.description,
        types=_dump_types(new.types),
        secret=_encrypt(secret, endpoint, settings),
        old_secret=None,
        old_secret_until=None,
        state=ENABLED,
        disabled_why=None,
        failing_since=None,
        created_at=now,
        version=1,
        customer_name=owner.name,
    )
    stored = await seal_rows(connection, TABLE, [{name: getattr(row, name) for name in COLUMN_NAMES}])
    await connection.execute(sa.insert(webhook_endpoints), stored)
    await _record(connection, caller, "webhook.create", row, None, drop_empty_values(_to_audit(row)))
    return {**to_response(row), "secret": secret}


async def update_endpoint(
    connection: AsyncConnection,
    caller: Caller,
    before: EndpointRow,
    change: BaseModel,
    settings: Webhooks,
    match: frozenset[int] | None,
) -> tuple[WebhookEndpoint, int]:
    """Update the fields of a locked endpoint that are set in `change`, an UpdateWebhookEndpointRequest.

    Returns the endpoint and its version. Raises ChangeRejectedError.
    """
    require_version(before.version, match)
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    for name in ("url", "state"):
        if name in fields and fields[name] is None:
            raise reject_field(name, "is null", MISSING)
    if "url" in fields:
        require_reachable(fields["url"], settings)
    if "types" in fields:
        fields["types"] = _dump_types(fields["types"])
    if fields.get("state", before.state) != before.state:
        is_enabled = fields["state"] == ENABLED
        fields |= {"disabled_why": None if is_enabled else BY_HAND, "failing_since": None}
    if all(getattr(before, name) == value for name, value in fields.items()):
        return to_response(before), before.version
    after = await _update(connection, before, fields)
    await _record(connection, caller, "webhook.change", after, *compute_difference(_to_audit(before), _to_audit(after)))
    return to_response(after), after.version


async def delete_endpoint(connection: AsyncConnection, caller: Caller, row: EndpointRow) -> WebhookEndpoint:
    """Delete an endpoint and its deliveries. Return its last state."""
    await connection.execute(sa.delete(webhook_deliveries).where(webhook_deliveries.c.endpoint == row.id))
    await connection.execute(sa.delete(webhook_endpoints).where(columns.id == row.id))
    await _record(connection, caller, "webhook.delete", row, drop_empty_values(_to_audit(row)), None)
    return to_response(row)


async def rotate_secret(
    connection: AsyncConnection, caller: Caller, before: EndpointRow, settings: Webhooks
) -> WebhookEndpointWithSecret:
    """Give a locked endpoint a new secret, and return both. The old secret also signs for OVERLAP_SECONDS."""
    secret = _generate_secret()
    values: dict[str, object] = {
        "secret": _encrypt(secret, before.id, settings),
        "old_secret": before.secret,
        "old_secret_until": now_ms() + OVERLAP_SECONDS * 1000,
    }
    after = await _update(connection, before, values)
    response = to_response(after)
    until = {"old_secret_until": response["old_secret_until"]}
    await _record(connection, caller, "webhook.rotate", after, None, until)
    return {**response, "secret": secret}


# ---- messages


async def send_test(connection: AsyncConnection, caller: Caller, row: EndpointRow) -> WebhookDelivery:
    """Write a message of the type `webhook.test` to an endpoint. Raises ChangeRejectedError if it is disabled."""
    _require_enabled(row)
    data = {"customer": row.customer_name, "endpoint": row.id}
    message = await insert_message(connection, row.customer, [row.id], EventType.WEBHOOK_TEST, now_ms(), data)
    await _record(connection, caller, "webhook.test", row, None, {"message": message})
    return await _get_message(connection, row, message)


async def list_messages(
    connection: AsyncConnection, row: EndpointRow, after: str | None, limit: int
) -> ReadPage[WebhookDelivery]:
    """Return at most `limit` messages to an endpoint before the one with the id `after`, latest first."""
    number = webhook_deliveries.c.message
    statement = _select_messages(row) if after is None else _select_messages(row).where(number < after)
    statement = statement.order_by(number.desc())
    return await fetch_page(connection, webhook_messages.name, statement, limit, lambda row: _to_delivery(**row))


def _select_messages(row: EndpointRow) -> AnySelect:
    own = webhook_deliveries.c
    return (
        sa.select(webhook_messages, *(column for column in own if column.name not in ("message", "endpoint")))
        .join_from(webhook_deliveries, webhook_messages, webhook_messages.c.id == own.message)
        .where(own.endpoint == row.id)
    )


async def _get_message(connection: AsyncConnection, row: EndpointRow, message: str) -> WebhookDelivery:
    """Return a message to an endpoint. Raises ChangeRejectedError and UnreadableRowError."""
    statement = _select_messages(row).where(webhook_messages.c.id == message)
    rows = await fetch_rows(connection, webhook_messages.name, statement, strict=True)
    if not rows:
        raise ChangeRejectedError(account_codes.WEBHOOK_MESSAGE_NOT_FOUND, NO_MESSAGE)
    with reading_row(webhook_messages.name, message):
        return _to_delivery(**rows[0])  # type: ignore[arg-type]


def _to_delivery(
    *,
    id: str,
    type: str,
    at: int,
    body: str,
    state: deliveries.WebhookState,
    attempts: int,
    due_at: int,
    status: int | None,
    error: str | None,
    attempted_at: int | None,
    **_: object,
) -> WebhookDelivery:
    """Return a message to an endpoint in the form of the API."""
    return {
        "id": id,
        "type": type,
        "at": format_timestamp(at),
        "state": state,
        "attempts": attempts,
        "status": status,
        "error": error,
        "attempted_at": format_timestamp(attempted_at),
        "next_at": format_timestamp(due_at) if state == deliveries.WebhookState.DUE else None,
        "data": orjson.loads(body)["data"],
    }


async def redeliver_message(
    connection: AsyncConnection, caller: Caller, row: EndpointRow, message: str
) -> WebhookDelivery:
    """Send a message to an endpoint again, even if it was delivered. Raises ChangeRejectedError."""
    _require_enabled(row)
    if not (message.isascii() and message.isprintable()):
        raise ChangeRejectedError(account_codes.WEBHOOK_MESSAGE_NOT_FOUND, NO_MESSAGE)
    await _get_message(connection, row, message)
    if not await deliveries.redeliver(connection, message, row.id, now_ms()):
        raise ChangeRejectedError(account_codes.WEBHOOK_MESSAGE_SENDING, "the message is on its way already")
    await _record(connection, caller, "webhook.redeliver", row, None, {"message": message})
    return await _get_message(connection, row, message)


# ---- parts


def require_reachable(url: str, settings: Webhooks) -> None:
    """Raise ChangeRejectedError(422) if a URL can never be used.

    Host names are resolved only when a message is sent.
    """
    parts = urlsplit(url)
    is_encrypted, host = parts.scheme == "https", parts.hostname or ""
    if not is_encrypted and not settings.networks:
        raise reject_field("url", "is reached in the clear: write https://", NOT_A_URL)
    if is_address(host):
        refusal = find_customer_refusal(host, settings.networks, is_encrypted=is_encrypted)
        if refusal is not None:
            raise reject_field("url", f"cannot be used: {refusal}", NOT_A_URL)


def _require_enabled(row: EndpointRow) -> None:
    if row.state == DISABLED:
        raise ChangeRejectedError(account_codes.WEBHOOK_DISABLED, "the endpoint is disabled: enable it first")


def _generate_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _encrypt(secret: str, endpoint: str, settings: Webhooks) -> bytes:
    return ColumnCipher(settings.encryption, SECRETS).encrypt(secret.encode(), endpoint)


def _dump_types(types: tuple[EventType, ...] | None) -> str | None:
    return None if types is None else orjson.dumps(sorted(set(types))).decode()


def _to_audit(row: EndpointRow) -> dict[str, object]:
    """Return the fields of an endpoint for the audit log."""
    response = to_response(row)
    fields = {name: response[name] for name in ("description", "types", "state", "disabled_why")}
    return {"host": urlsplit(row.url).hostname, **fields}


async def _update(connection: AsyncConnection, before: EndpointRow, values: Mapping[str, object]) -> EndpointRow:
    after = before._replace(**values, version=before.version + 1)  # type: ignore[arg-type]
    statement = sa.update(webhook_endpoints).where(columns.id == before.id)
    own = {"id": before.id, "customer": before.customer}
    (stored,) = await seal_rows(connection, TABLE, [{**own, **values}])
    await connection.execute(statement.values(**stored, version=after.version))
    return after


async def _record(
    connection: AsyncConnection,
    caller: Caller,
    action: str,
    row: EndpointRow,
    before: audit.Values | None,
    after: audit.Values | None,
) -> None:
    entry = AuditEntry(action, f"{row.customer_name}/{row.id}", before, after)
    await audit.append_entry(connection, caller, entry)
