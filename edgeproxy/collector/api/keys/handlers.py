"""API keys of customers."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import key_rows, keys
from edgeproxy.collector.accounts.models import (
    CreateKeyRequest,
    FindKeyRequest,
    LeakReport,
    RotateKeyRequest,
    UpdateKeyRequest,
)
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import CUSTOMER
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult, answer_page, answer_with_etag, parse_if_match
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.keys.models import KeysQuery
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.config.collector.rotation import OVERLAP_SECONDS


class KeyHandlers(ChangeHandlers):
    """Handlers of keys."""

    async def list_keys(self, call: Call[KeysQuery, Nothing]) -> web.Response:
        """List the keys of a customer."""
        query = call.query
        async with self._database.reading() as connection:
            lead = self._settings.alerts.rotation if query.due else None
            customer = call.path("customer")
            rows = await keys.list_keys(connection, customer, query.cursor, query.limit + 1, lead, query.sort)
        return answer_page("keys", rows, query.limit)

    async def create_key(self, call: Call[ChangeQuery, CreateKeyRequest]) -> web.Response:
        """Create a key; its secret is in this answer alone."""
        own = CUSTOMER in call.holder.roles
        if own and call.body.sha256 is not None:
            raise auth.DeniedError(403, f"{call.holder.called} may not bring a key along")

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            return ChangeResult(201, await keys.create_key(connection, call.caller, ref, call.body, own=own), 1)

        return await self._change(call, make, creates=True, hides="secret")

    async def fetch_key(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a key."""
        async with self._database.reading() as connection:
            row = await key_rows.get_row(connection, call.path("key"))
        return answer_with_etag(200, keys.to_response(row), row.version)

    async def update_key(self, call: Call[ChangeQuery, UpdateKeyRequest]) -> web.Response:
        """Update a key."""
        own = CUSTOMER in call.holder.roles

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            return ChangeResult(
                200, *await keys.update_key(connection, call.caller, ref, call.body, match=match, own=own)
            )

        return await self._change(call, make)

    async def revoke_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Revoke a key at once."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            return ChangeResult(200, await keys.revoke_key(connection, call.caller, ref, match=match))

        return await self._change(call, make)

    async def restore_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Take back the revocation of a key."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("key"), parse_if_match(call.request)
            return ChangeResult(200, *await keys.restore_key(connection, call.caller, ref, match=match))

        return await self._change(call, make)

    async def rotate_key(self, call: Call[ChangeQuery, RotateKeyRequest]) -> web.Response:
        """Create the replacement of a key, which ends after the overlap."""
        own, overlap = CUSTOMER in call.holder.roles, call.body.overlap
        if overlap is None:
            overlap = int(OVERLAP_SECONDS if self._settings.rotation is None else self._settings.rotation.overlap)

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("key")
            return ChangeResult(201, await keys.rotate_key(connection, call.caller, ref, overlap, own=own), 1)

        return await self._change(call, make, creates=True, hides="secret")

    async def find_key(self, call: Call[Query, FindKeyRequest]) -> web.Response:
        """Find a key by its secret."""
        async with self._database.reading() as connection:
            key = await keys.find_by_secret(connection, call.body.key)
        if key is None:
            raise ProblemError(404, key_rows.NOT_FOUND)
        return answer(200, key)

    async def report_leak(self, call: Call[Query, LeakReport]) -> web.Response:
        """Revoke leaked keys; the answer is the same whether there were any."""
        digests = [key_rows.compute_sha256(secret) for secret in call.body.secrets]
        async with self._database.reading() as connection:
            unrevoked = await keys.list_unrevoked(connection, digests)
        # A report in vain, which anybody may send, writes nothing and so keeps no batch waiting. Each key is a
        # transaction: two reports that name the same keys never wait for each other in a circle.
        for sha256 in unrevoked:
            async with self._database.writing() as connection:
                revoked = await keys.revoke_leaked_key(connection, call.caller, sha256)
            if revoked is not None:
                self._metrics.leaked.inc()
                log.get_logger().error("a leaked key was revoked", key=revoked["id"], customer=revoked["customer"])
        return answer(202, {"received": True})
