"""API keys of customers."""

import time
from typing import TypeVar

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import customers, key_changes, key_delivery, key_rows, keys, leaked_keys, public_keys
from edgeproxy.collector.accounts.models import (
    CreateKeyRequest,
    FindKeyRequest,
    LeakReport,
    RotateKeyRequest,
    UpdateKeyRequest,
)
from edgeproxy.collector.accounts.rotation_models import PutPublicKeyRequest
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import CUSTOMER
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult, answer_with_etag, parse_if_match
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.keys.models import KeyBudgetUse, KeysQuery
from edgeproxy.collector.api.responses import ProblemError, answer, answer_page
from edgeproxy.collector.billing.reports import key_spend
from edgeproxy.config.collector.rotation import GRACE_SECONDS

T = TypeVar("T", CreateKeyRequest, UpdateKeyRequest)


class KeyHandlers(ChangeHandlers):
    """Handlers of keys."""

    async def list_keys(self, call: Call[KeysQuery, Nothing]) -> web.Response:
        """List the keys of a customer."""
        query = call.query
        async with self._database.reading() as connection:
            lead = self._settings.alerts.rotation if query.due else None
            customer = call.path("customer")
            usage_keys = None if query.usage_key is None else query.usage_key.split(",")
            rows = await keys.list_keys(
                connection, customer, query.cursor, query.limit, lead, query.sort, usage_keys=usage_keys
            )
        return answer_page("keys", rows, rows.next)

    async def list_budgets(self, call: Call[Query, Nothing]) -> web.Response:
        """List the budgets of a customer's keys, and the use of each."""
        async with self._database.reading(whole=True) as connection:
            name = (await customers.get_row(connection, call.path("customer"))).name
            uses = await key_spend.fetch_uses(connection, [name], self._settings.meters, time.time() - EPOCH)
        return answer(200, {"customer": name, "budgets": [_format_use(use) for use in uses]})

    async def fetch_rotation(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the rotation of the customer's keys, and the state of each key that is due."""
        async with self._database.reading(whole=True) as connection:
            rotation = await key_delivery.describe_rotation(connection, call.path("customer"), self._settings.rotation)
        return answer(200, rotation)

    async def put_public_key(self, call: Call[ChangeQuery, PutPublicKeyRequest]) -> web.Response:
        """Register the public key for encrypting secrets of new keys."""
        return await self._change_public_key(call, public_keys.parse_public_key(call.body.jwk))

    async def delete_public_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Remove the public key."""
        return await self._change_public_key(call, None)

    async def _change_public_key(
        self, call: Call[ChangeQuery, PutPublicKeyRequest] | Call[ChangeQuery, Nothing], public_key: str | None
    ) -> web.Response:
        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            await key_delivery.put_public_key(connection, call.caller, ref, public_key)
            return ChangeResult(200, await key_delivery.describe_rotation(connection, ref, self._settings.rotation))

        return await self._change(call, make)

    async def create_key(self, call: Call[ChangeQuery, CreateKeyRequest]) -> web.Response:
        """Create a key. Only this answer has its secret."""
        own = CUSTOMER in call.holder.roles
        if own and call.body.sha256 is not None:
            raise auth.DeniedError(403, f"{call.holder.called} may not bring a key along")

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            body = await self._resolve_budget(connection, ref, call.body)
            return ChangeResult(201, await keys.create_key(connection, call.caller, ref, body, own=own), 1)

        return await self._change(call, make, creates=True, hides="secret")

    async def fetch_key(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a key."""
        async with self._database.reading() as connection:
            row = await key_rows.get_row(connection, call.path("key"))
        return answer_with_etag(200, key_changes.to_response(row), row.version)

    async def update_key(self, call: Call[ChangeQuery, UpdateKeyRequest]) -> web.Response:
        """Update a key."""
        own = CUSTOMER in call.holder.roles

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            owner = (await key_rows.get_row(connection, ref)).customer_name
            body = await self._resolve_budget(connection, owner, call.body)
            return ChangeResult(200, *await keys.update_key(connection, call.caller, ref, body, match=match, own=own))

        return await self._change(call, make)

    async def _resolve_budget(self, connection: AsyncConnection, customer: str, body: T) -> T:
        """Return a request whose budget is valid for a key of the customer. Raises ChangeRejectedError."""
        if body.budget is None:
            return body
        budget = await key_spend.resolve_budget(connection, customer, body.budget, self._settings.meters)
        return body.model_copy(update={"budget": budget})

    async def revoke_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Revoke a key at once."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            return ChangeResult(200, await keys.revoke_key(connection, call.caller, ref, match=match))

        return await self._change(call, make)

    async def restore_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Cancel the revocation of a key."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            return ChangeResult(200, *await keys.restore_key(connection, call.caller, ref, match=match))

        return await self._change(call, make)

    async def rotate_key(self, call: Call[ChangeQuery, RotateKeyRequest]) -> web.Response:
        """Create the replacement of a key. The old key ends after the overlap."""
        own, overlap = CUSTOMER in call.holder.roles, call.body.overlap
        if overlap is None:
            overlap = int(GRACE_SECONDS if self._settings.rotation is None else self._settings.rotation.grace)

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("key")
            return ChangeResult(201, await keys.rotate_key(connection, call.caller, ref, overlap, own=own), 1)

        return await self._change(call, make, creates=True, hides="secret")

    async def find_key(self, call: Call[Query, FindKeyRequest]) -> web.Response:
        """Find a key by its secret."""
        async with self._database.reading() as connection:
            key = await leaked_keys.find_by_secret(connection, call.body.key)
        if key is None:
            raise ProblemError(404, key_rows.NOT_FOUND)
        return answer(200, key)

    async def report_leak(self, call: Call[Query, LeakReport]) -> web.Response:
        """Revoke leaked keys. The answer does not show whether there were any."""
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
        return answer(202, {"received": True})


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
