"""API keys of customers."""

import time
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base import log
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import customers, key_changes, key_delivery, key_rows, keys, leaked_keys, public_keys
from edgeproxy.collector.accounts.key_budgets import KeyBudgetTerms
from edgeproxy.collector.accounts.models import (
    CreateKeyRequest,
    FindKeyRequest,
    Key,
    KeyList,
    KeyWithSecret,
    LeakReport,
    LeakReportResult,
    RotateKeyRequest,
    UpdateKeyRequest,
)
from edgeproxy.collector.accounts.rotation_models import KeyRotation, PutPublicKeyRequest
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import CUSTOMER
from edgeproxy.collector.api.changes import ChangeHandlers, parse_if_match
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    ANYONE,
    CREATE,
    OWN,
    READERS,
    SUPPORT,
    UPDATE,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    patch,
    post,
    put,
)
from edgeproxy.collector.api.field_types import ChangeQuery, Cursor, PageLimit, Truth
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result, next_page
from edgeproxy.collector.billing.reports import key_spend
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.collector.rotation import GRACE_SECONDS
from edgeproxy.wire.key_uses import USAGE_KEY_DIGITS

USAGE_KEYS = f"^[0-9a-f]{{{USAGE_KEY_DIGITS}}}(,[0-9a-f]{{{USAGE_KEY_DIGITS}}}){{0,99}}$"
KEY_IDS = "^[^,]{1,64}(,[^,]{1,64}){0,99}$"


class KeysQuery(Query):
    """The page of keys."""

    limit: PageLimit = 100
    """The number of keys on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    sort: Literal["created_at", "-created_at", "name", "-name", "last_used_on", "-last_used_on"] = "created_at"
    """The order of keys; `-` reverses it. Keys without a name or a last use sort as the lowest."""
    due: Truth = False
    """True lists only keys that should be rotated. The customer gets alerts about these."""
    usage_key: Annotated[str, Field(pattern=USAGE_KEYS)] | None = None
    """Only the keys with these ids in usage, at most 100, separated by commas."""


class KeyBudgetsQuery(Query):
    """The selected budgets."""

    key: Annotated[str, Field(pattern=KEY_IDS)] | None = None
    """Only the budgets of the keys with these ids, at most 100, separated by commas."""


class KeyBudgetUse(KeyBudgetTerms):
    """The budget of a key, and the used part."""

    key: str
    """The id of the key; for keys that replaced each other, the id of the latest."""
    start: str
    """The first characters of the key."""
    name: str | None
    """A name for people; null if there is none."""
    used: int | None
    """The used part in this period, as far as edges have shipped it; null if the customer's plan has no prices in the
    currency any more, or if the meter is not counted by key.
    """
    percent: float | None
    """The share of the budget that is used, in percent; null if it is not known."""
    resets: str
    """The end of the period."""


class KeyBudgetList(TypedDict):
    """The budgets of a customer's keys."""

    customer: str
    """The customer, by name."""
    budgets: list[KeyBudgetUse]
    """The budgets, in the order of their keys' creation."""


T = TypeVar("T", CreateKeyRequest, UpdateKeyRequest)


class KeyHandlers(ChangeHandlers):
    """Handlers of keys."""

    @get("/v1/customers/{customer}/keys", roles=READERS | OWN)
    async def list_keys(self, call: Call[KeysQuery, Nothing]) -> KeyList:
        """List the keys of a customer, without secrets."""
        query = call.query
        async with self._database.reading() as connection:
            lead = self._settings.alerts.rotation if query.due else None
            customer = call.path("customer")
            usage_keys = None if query.usage_key is None else query.usage_key.split(",")
            rows = await keys.list_keys(
                connection, customer, query.cursor, query.limit, lead, query.sort, usage_keys=usage_keys
            )
        return {"keys": rows, **next_page(rows.next)}

    @post(
        "/v1/customers/{customer}/keys",
        roles=ADMIN | OWN,
        example={"name": "production", "scopes": ["read"]},
        status=201,
        change=CREATE,
        hides="secret",
    )
    async def create_key(self, call: Call[ChangeQuery, CreateKeyRequest]) -> Result[KeyWithSecret]:
        """Create a key. Only this answer contains its secret.

        Keys that a customer creates have at most the rights of one of its keys.
        """
        own = CUSTOMER in call.holder.roles
        if own and call.body.sha256 is not None:
            raise auth.DeniedError(request_codes.ROLE_DENIED, f"{call.holder.called} may not bring a key along")

        async def make(connection: AsyncConnection) -> Result[KeyWithSecret]:
            ref = call.path("customer")
            body = await self._resolve_budget(connection, ref, call.body)
            return Result(await keys.create_key(connection, call.caller, ref, body, own=own), 1)

        return await self._change(call, make)

    @get("/v1/customers/{customer}/key-budgets", roles=READERS | OWN)
    async def list_budgets(self, call: Call[KeyBudgetsQuery, Nothing]) -> KeyBudgetList:
        """List the budgets of a customer's keys, and the use of each."""
        of_keys = None if call.query.key is None else call.query.key.split(",")
        async with self._database.reading(whole=True) as connection:
            name = (await customers.get_row(connection, call.path("customer"))).name
            now = time.time() - EPOCH
            uses = await key_spend.fetch_uses(connection, [name], self._settings.meters, now, of_keys=of_keys)
        return {"customer": name, "budgets": [_format_use(use) for use in uses]}

    @get("/v1/customers/{customer}/key-rotation", roles=READERS | OWN)
    async def fetch_rotation(self, call: Call[Query, Nothing]) -> KeyRotation:
        """Fetch the rotation of the customer's keys, and the state of each key that is due."""
        async with self._database.reading(whole=True) as connection:
            return await key_delivery.describe_rotation(connection, call.path("customer"), self._settings.rotation)

    @put(
        "/v1/customers/{customer}/public-key",
        roles=ADMIN | OWN,
        example={"jwk": {"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}},
        change=UPDATE,
    )
    async def put_public_key(
        self, call: Call[ChangeQuery, PutPublicKeyRequest], connection: AsyncConnection
    ) -> KeyRotation:
        """Register the public key that encrypts the secrets of new keys. It replaces the previous one."""
        return await self._change_public_key(call, connection, public_keys.parse_public_key(call.body.jwk))

    @delete("/v1/customers/{customer}/public-key", roles=ADMIN | OWN, change=UPDATE)
    async def delete_public_key(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> KeyRotation:
        """Remove the public key. New keys then wait in the portal."""
        return await self._change_public_key(call, connection, None)

    async def _change_public_key(
        self, call: AnyCall, connection: AsyncConnection, public_key: str | None
    ) -> KeyRotation:
        ref = call.path("customer")
        await key_delivery.put_public_key(connection, call.caller, ref, public_key)
        return await key_delivery.describe_rotation(connection, ref, self._settings.rotation)

    @get("/v1/keys/{key}", roles=READERS | OWN, response_headers=("ETag",))
    async def fetch_key(self, call: Call[Query, Nothing]) -> Result[Key]:
        """Fetch a key, without its secret."""
        async with self._database.reading() as connection:
            row = await key_rows.get_row(connection, call.path("key"))
        return Result(key_changes.to_response(row), row.version)

    @patch("/v1/keys/{key}", roles=ADMIN | OWN, example={"name": "production, Amsterdam"}, change=UPDATE)
    async def update_key(self, call: Call[ChangeQuery, UpdateKeyRequest], connection: AsyncConnection) -> Result[Key]:
        """Update a key: null removes a field. A customer can narrow the key's rights, but not widen them."""
        own = CUSTOMER in call.holder.roles
        ref, match = call.path("key"), parse_if_match(call.request)
        owner = (await key_rows.get_row(connection, ref)).customer_name
        body = await self._resolve_budget(connection, owner, call.body)
        return Result(*await keys.update_key(connection, call.caller, ref, body, match=match, own=own))

    async def _resolve_budget(self, connection: AsyncConnection, customer: str, body: T) -> T:
        """Return a request whose budget is valid for a key of the customer. Raises ChangeRejectedError."""
        if body.budget is None:
            return body
        budget = await key_spend.resolve_budget(connection, customer, body.budget, self._settings.meters)
        return body.model_copy(update={"budget": budget})

    @delete("/v1/keys/{key}", roles=SUPPORT | OWN, change=UPDATE)
    async def revoke_key(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> Key:
        """Revoke a key at once."""
        ref, match = call.path("key"), parse_if_match(call.request)
        return await keys.revoke_key(connection, call.caller, ref, match=match)

    @post("/v1/keys/{key}/restore", roles=ADMIN, change=UPDATE, is_sensitive=True)
    async def restore_key(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> Result[Key]:
        """Restore a revoked key, within 24 hours and before its own expiry."""
        ref, match = call.path("key"), parse_if_match(call.request)
        return Result(*await keys.restore_key(connection, call.caller, ref, match=match))

    @post(
        "/v1/keys/{key}/rotate",
        roles=SUPPORT | OWN,
        example={"overlap": "7d"},
        status=201,
        change=CREATE,
        hides="secret",
    )
    async def rotate_key(
        self, call: Call[ChangeQuery, RotateKeyRequest], connection: AsyncConnection
    ) -> Result[KeyWithSecret]:
        """Rotate a key: create its replacement, and end the old key after the overlap."""
        own, overlap = CUSTOMER in call.holder.roles, call.body.overlap
        if overlap is None:
            overlap = int(GRACE_SECONDS if self._settings.rotation is None else self._settings.rotation.grace)
        ref = call.path("key")
        return Result(await keys.rotate_key(connection, call.caller, ref, overlap, own=own), 1)

    @post(
        "/v1/keys/find", roles=SUPPORT, example={"key": "key_v1_found_in_a_log"}, errors={404: "There is no such key."}
    )
    async def find_key(self, call: Call[Query, FindKeyRequest]) -> Key:
        """Find a key by its secret: its customer and its state."""
        async with self._database.reading() as connection:
            key = await leaked_keys.find_by_secret(connection, call.body.key)
        if key is None:
            raise ProblemError(account_codes.KEY_NOT_FOUND, key_rows.NOT_FOUND)
        return key

    @post(
        "/v1/keys/leaked",
        roles=ANYONE,
        example={"key": "key_v1_found_in_a_log"},
        status=202,
        rate=RequestRate(10, "address"),
        listener_groups=frozenset({"customers"}),
    )
    async def report_leak(self, call: Call[Query, LeakReport]) -> LeakReportResult:
        """Report leaked keys. They are revoked. Only the key itself is proof. The answer is always the same."""
        digests = [key_rows.compute_sha256(secret) for secret in call.body.secrets]
        async with self._database.reading() as connection:
            unrevoked = await leaked_keys.list_unrevoked(connection, digests)
        # Anyone may send a report without effect. It needs no write transaction, which would delay batches. Each key
        # has its own transaction, so two reports with common keys cannot deadlock.
        for sha256 in unrevoked:
            async with self._database.writing() as connection:
                revoked = await leaked_keys.revoke_leaked_key(connection, call.caller, sha256)
            if revoked is not None:
                self._metrics.leaked.inc()
                log.get_logger().error("a leaked key was revoked", key=revoked["id"], customer=revoked["customer"])
        return {"received": True}


def _format_use(use: key_spend.BudgetUse) -> KeyBudgetUse:
    return {
        "key": use.key.id,
        "start": use.key.start,
        "name": use.key.name,
        **use.budget.to_response(),
        "used": use.used,
        "percent": use.percent,
        "resets": use.resets,
    }


GROUP = Group(
    "keys",
    "API keys of customers: create, change, rotate, revoke, report leaks.",
    KeyHandlers,
    parameters={
        "key": PathParameter("The id of the key, or the SHA-256 of its secret in hex.", find_owner=keys.find_owner),
    },
)
