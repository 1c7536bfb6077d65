"""Customers, keys and flags as data."""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import customers, flags, idempotency, keys
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.models import (
    CreateCustomerRequest,
    CreateKeyRequest,
    FlagRequest,
    LeakReport,
    RotateKeyRequest,
)
from edgeproxy.collector.accounts.search import search_customers
from edgeproxy.collector.anomalies.job import WHY_PAUSED
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import CUSTOMER
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import ChangeQuery, CustomersQuery, KeysQuery
from edgeproxy.collector.api.responses import RETRY_LATER, answer, problem
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
ETAG = re.compile(r'"([0-9]{1,15})"|(?:W/)?"[^"]*"')
PAUSE = frozenset({"paused"})
"""The fields of a customer that support may change."""

Change = Callable[[AsyncConnection], Awaitable[tuple[int, Any, int | None]]]
"""Makes a change: the status, what is answered, and the version of it."""
Permit = Callable[[AsyncConnection], Awaitable[None]]
"""Raises DeniedError where who asks may not be told the answer, be it made now or kept from the first time."""


class DryRunError(Exception):
    """A change was tried, and is to be taken back."""


class AccountHandlers:
    """Makes each change in one transaction, with its audit entry."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._settings: CollectorSettings

    def use(self, settings: CollectorSettings) -> None:
        """Hold customers to the tiers and meters of these."""
        self._settings = settings

    # ---- customers

    async def customers(self, call: Call[CustomersQuery, Nothing]) -> web.Response:
        """List customers; a customer sees itself alone."""
        query, holder = call.query, call.holder
        only = {"tier": query.tier, "external_id": query.external_id, "name": query.name}
        if holder.customer is not None:
            if query.name not in (None, holder.customer):
                raise auth.DeniedError(403, f"{holder.called} is bound to another customer")
            only["name"] = holder.customer
        elif query.search:
            async with self._database.reading() as connection:
                matches = await search_customers(connection, self._database, query.search, query.limit)
            return answer(200, {"customers": matches})
        async with self._database.reading() as connection:
            rows = await customers.list_customers(connection, query.cursor, query.limit + 1, **only)
        return answer_page("customers", rows, query.limit)

    async def create_customer(self, call: Call[ChangeQuery, CreateCustomerRequest]) -> web.Response:
        """Make a customer."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await customers.create_customer(connection, call.caller, call.body, self._settings), 1

        return await self._change(call, make, creates=True)

    async def customer(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell a customer."""
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, call.path("customer"))
        return answer_with_etag(200, customers.to_response(row), row.version)

    async def change_customer(self, call: Call[ChangeQuery, Any]) -> web.Response:
        """Change a customer; support may pause one."""
        if "admin" not in call.holder.roles and call.body.model_fields_set - PAUSE:
            raise auth.DeniedError(403, f"{call.holder.called} may change nothing but paused")

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            ref, match = call.path("customer"), parse_if_match(call.request)
            if "paused" in call.body.model_fields_set:
                paused = customers.to_response(await customers.get_row(connection, ref, lock=True))["paused"] or {}
                if paused.get("why") == WHY_PAUSED:
                    auth.require_consent(call.holder, "take back a pause for unusual usage", time.time())
            customer, version = await customers.update_customer(
                connection, call.caller, ref, call.body, self._settings, match=match
            )
            return 200, customer, version

        return await self._change(call, make)

    async def delete_customer(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Begin to delete a customer."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            match = parse_if_match(call.request)
            return (
                202,
                await customers.start_deletion(connection, call.caller, call.path("customer"), match=match),
                None,
            )

        return await self._change(call, make)

    async def restore_customer(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Take the deletion of a customer back."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            ref, match = call.path("customer"), parse_if_match(call.request)
            customer, version = await customers.restore_customer(connection, call.caller, ref, match=match)
            return 200, customer, version

        return await self._change(call, make)

    # ---- keys

    async def keys(self, call: Call[KeysQuery, Nothing]) -> web.Response:
        """List the keys of a customer."""
        query = call.query
        async with self._database.reading() as connection:
            rows = await keys.list_keys(connection, call.path("customer"), query.cursor, query.limit + 1)
        return answer_page("keys", rows, query.limit)

    async def create_key(self, call: Call[ChangeQuery, CreateKeyRequest]) -> web.Response:
        """Make a key, whose secret is in the answer and nowhere else."""
        own = CUSTOMER in call.holder.roles
        if own and call.body.sha256 is not None:
            raise auth.DeniedError(403, f"{call.holder.called} may not bring a key along")

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await keys.create_key(connection, call.caller, call.path("customer"), call.body, own=own), 1

        return await self._change(call, make, creates=True, hides="secret")

    async def key(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell a key."""
        async with self._database.reading() as connection:
            row = await keys.get_row(connection, call.path("key"))
        return answer_with_etag(200, keys.to_response(row), row.version)

    async def change_key(self, call: Call[ChangeQuery, Any]) -> web.Response:
        """Change a key."""
        own = CUSTOMER in call.holder.roles

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            match = parse_if_match(call.request)
            key, version = await keys.update_key(
                connection, call.caller, call.path("key"), call.body, match=match, own=own
            )
            return 200, key, version

        return await self._change(call, make)

    async def revoke_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """End a key at once."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return (
                200,
                await keys.revoke_key(connection, call.caller, call.path("key"), match=parse_if_match(call.request)),
                None,
            )

        return await self._change(call, make)

    async def restore_key(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Take the revocation of a key back."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            match = parse_if_match(call.request)
            key, version = await keys.restore_key(connection, call.caller, call.path("key"), match=match)
            return 200, key, version

        return await self._change(call, make)

    async def rotate_key(self, call: Call[ChangeQuery, RotateKeyRequest]) -> web.Response:
        """Make a key in the place of another one."""
        own = CUSTOMER in call.holder.roles

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await keys.rotate_key(connection, call.caller, call.path("key"), call.body.overlap, own=own), 1

        return await self._change(call, make, creates=True, hides="secret")

    async def leaked(self, call: Call[Query, LeakReport]) -> web.Response:
        """End keys that somebody found; the answer is the same whether there were any."""
        digests = [keys.compute_sha256(secret) for secret in call.body.secrets]
        async with self._database.reading() as connection:
            unrevoked = await keys.list_unrevoked(connection, digests)
        # Whoever asks in vain, which anybody may, keeps no batch waiting. And each key is a transaction: two reports
        # that name the same keys never wait for each other in a circle.
        for sha256 in unrevoked:
            async with self._database.writing() as connection:
                revoked = await keys.revoke_leaked_key(connection, call.caller, sha256)
            if revoked is not None:
                self._metrics.leaked.inc()
                log.get_logger().error("a leaked key was revoked", key=revoked["id"], customer=revoked["customer"])
        return answer(202, {"received": True})

    # ---- flags

    async def flags(self, _: Call[Query, Nothing]) -> web.Response:
        """List all flags."""
        async with self._database.reading() as connection:
            return answer(200, {"flags": await flags.list_flags(connection)})

    async def flag(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell a flag."""
        async with self._database.reading() as connection:
            row = await flags.get_row(connection, call.path("flag"))
        return answer_with_etag(200, flags.to_response(row), row.version)

    async def put_flag(self, call: Call[ChangeQuery, FlagRequest]) -> web.Response:
        """Have a flag be so."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            match = parse_if_match(call.request)
            flag, version = await flags.put_flag(connection, call.caller, call.path("flag"), call.body, match=match)
            return 200, flag, version

        return await self._change(call, make)

    # ---- all of them

    async def _change(
        self,
        call: Call[ChangeQuery, Any],
        make: Change,
        *,
        creates: bool = False,
        hides: str | None = None,
        permit: Permit | None = None,
    ) -> web.Response:
        """Answer with what a change comes to. With `dry_run` it is taken back, and what it `hides` is not told."""
        idempotency_request = await find_idempotency_request(call) if creates else None
        if call.query.dry_run:
            idempotency_request = None  # What was not done is tried anew each time.
        for again in (False, True):
            try:
                return await self._transact(make, idempotency_request, permit, dry=call.query.dry_run, hides=hides)
            except sa.exc.IntegrityError:
                # Another collector made the same at the same time: now it can be seen.
                if again:
                    return problem(503, "others change the same now", RETRY_LATER)
        raise AssertionError

    async def _transact(
        self,
        make: Change,
        idempotency_request: idempotency.IdempotentRequest | None,
        permit: Permit | None,
        *,
        dry: bool,
        hides: str | None,
    ) -> web.Response:
        response = web.Response()
        try:
            async with self._database.writing() as connection:
                if permit is not None:
                    await permit(connection)
                before = None
                if idempotency_request is not None:
                    async with across_customers(connection):
                        before = await idempotency.find_answer(connection, idempotency_request)
                if before is not None:
                    status, body, version = orjson.loads(before)
                    response = answer_with_etag(status, body, version)
                    response.headers["Idempotent-Replayed"] = "true"
                    return response
                status, body, version = await make(connection)
                if dry:
                    body = {name: value for name, value in body.items() if name != hides}
                    response = answer(200, body)
                    raise DryRunError
                if idempotency_request is not None:
                    async with across_customers(connection):
                        await idempotency.store_answer(
                            connection, idempotency_request, orjson.dumps([status, body, version])
                        )
                response = answer_with_etag(status, body, version)
        except DryRunError:
            pass
        return response


async def find_idempotency_request(call: Call[Any, Any]) -> idempotency.IdempotentRequest | None:
    """Return what makes a request one that may be sent again; None where it has no Idempotency-Key."""
    key = call.request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ChangeRejectedError(400, "an Idempotency-Key has 1 to 255 visible characters")
    digest = idempotency.request_digest(call.request.method, call.request.path_qs, call.sent)
    return idempotency.IdempotentRequest(call.caller.actor, key, digest)


def parse_if_match(request: web.Request) -> frozenset[int] | None:
    """Return the versions that If-Match names (RFC 9110 section 13.1.1); None where any will do."""
    field = request.headers.get("If-Match")
    if field is None or field.strip() == "*":
        return None
    tags = [ETAG.fullmatch(tag.strip()) for tag in field.split(",")]
    if not all(tags):
        raise ChangeRejectedError(400, 'If-Match is no ETag such as "3", and not *')
    # A weak one never matches; one that was not made here neither.
    return frozenset(int(tag[1]) for tag in tags if tag and tag[1])


def answer_with_etag(status: int, body: Any, version: int | None) -> web.Response:
    """Answer with a thing and the ETag of its version."""
    return answer(status, body, {} if version is None else {"ETag": f'"{version}"'})


def answer_page(name: str, rows: list[Any], limit: int) -> web.Response:
    """Answer with the first `limit` of what was found, and the cursor of the next page where there are more."""
    more = {"next": rows[limit - 1]["id"]} if len(rows) > limit else {}
    return answer(200, {name: rows[:limit], **more})
