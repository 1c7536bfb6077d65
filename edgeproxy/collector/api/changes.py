"""Changes by callers: one transaction each, optionally as a dry run or idempotent."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import orjson
import sqlalchemy as sa
from aiohttp import web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import idempotency
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.idempotency import IdempotentRequest
from edgeproxy.collector.accounts.pseudonyms import NOBODY, Readers, reveal_names
from edgeproxy.collector.api.endpoint import CREATE, SHOWN_TO, AnyCall, Call
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.responses import RETRY_LATER, ProblemError, Result
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.problems import request_codes

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
ETAG = re.compile(r'"([0-9]{1,15})"|(?:W/)?"[^"]*"')


T = TypeVar("T", bound=Mapping[str, object])
Change = Callable[[AsyncConnection], Awaitable[Result[T]]]
"""Makes a change within a transaction."""
Permit = Callable[[AsyncConnection], Awaitable[None]]
"""Raises DeniedError if the caller may not see the answer, whether new or stored from an earlier request."""


class DryRunDoneError(Exception):
    """A dry run has succeeded. Its transaction is rolled back."""


class ChangeHandlers(Handlers):
    """Handlers that make changes, each in one transaction with its audit entry."""

    async def _change(
        self,
        call: Call[ChangeQuery, BaseModel],
        make: Change[T],
        permit: Permit | None = None,
    ) -> Result[T]:
        """Make a change in a transaction, after the checks of the handler."""
        return await make_change(self._database, call, make, permit)


async def make_change(
    database: Database,
    call: Call[ChangeQuery, BaseModel],
    make: Change[T],
    permit: Permit | None = None,
) -> Result[T]:
    """Make a change and answer with it, as the endpoint says.

    A dry run is rolled back, and its answer lacks the field that the endpoint hides. An endpoint of the kind CREATE
    makes the change once per Idempotency-Key. The follow-up of the change runs after its commit.
    """
    idempotent_request = None
    if call.endpoint.change is CREATE and not call.query.dry_run:  # A dry run is never stored.
        idempotent_request = find_idempotent_request(call)
    for is_second in (False, True):
        try:
            if call.query.dry_run:
                readers = call.request.get(SHOWN_TO, NOBODY)
                return await _try(database, make, permit, readers, call.endpoint.hides)
            made = await _transact(database, make, idempotent_request, permit)
        except sa.exc.IntegrityError:
            # Another collector made this change concurrently. The second attempt sees it.
            if is_second:
                raise ProblemError(
                    request_codes.CONCURRENT_CHANGES, "others change the same now", headers=RETRY_LATER
                ) from None
        else:
            if made.follow_up is not None:
                await made.follow_up()
            return made
    raise AssertionError


async def _try(
    database: Database, make: Change[T], permit: Permit | None, readers: Readers, hides: str | None
) -> Result[T]:
    """Make a change and roll it back. Names are inserted into the answer before the rollback removes them."""
    try:
        async with database.writing() as connection:
            if permit is not None:
                await permit(connection)
            made = await make(connection)
            body = orjson.dumps({name: value for name, value in made.body.items() if name != hides})
            body = await reveal_names(connection, body, readers)
            raise DryRunDoneError
    except DryRunDoneError:
        return Result(orjson.loads(body), status=200)


async def _transact(
    database: Database, make: Change[T], idempotent_request: IdempotentRequest | None, permit: Permit | None
) -> Result[T]:
    async with database.writing() as connection:
        if idempotent_request is not None:
            # A repeated request waits for the first one here. Later it might wait for, or reject, the change itself.
            await database.hold(connection, f"idempotent request {idempotent_request.digest}")
        if permit is not None:
            await permit(connection)
        stored = None
        if idempotent_request is not None:
            async with across_customers(connection):
                stored = await idempotency.find_answer(connection, idempotent_request)
        if stored is not None:
            status, content, version = orjson.loads(stored)
            return Result(content, version, status, {"Idempotent-Replayed": "true"})
        made = await make(connection)
        if idempotent_request is not None:
            content = orjson.dumps([made.status, made.body, made.version])
            async with across_customers(connection):
                await idempotency.store_answer(connection, idempotent_request, content)
        return made


def find_idempotent_request(call: AnyCall) -> IdempotentRequest | None:
    """Return the identity of a repeatable request, or None if it has no Idempotency-Key."""
    key = call.request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ChangeRejectedError(
            request_codes.IDEMPOTENCY_KEY_INVALID, "an Idempotency-Key has 1 to 255 visible characters"
        )
    digest = idempotency.request_digest(call.request.method, call.request.path_qs, call.raw_body)
    return IdempotentRequest(call.caller.actor, key, digest)


def parse_if_match(request: web.Request) -> frozenset[int] | None:
    """Return the versions in If-Match (RFC 9110 section 13.1.1), or None if any version matches."""
    field = request.headers.get("If-Match")
    if field is None or field.strip() == "*":
        return None
    tags = [ETAG.fullmatch(tag.strip()) for tag in field.split(",")]
    if not all(tags):
        raise ChangeRejectedError(request_codes.IF_MATCH_INVALID, 'If-Match is no ETag such as "3", and not *')
    # Weak and foreign ETags never match.
    return frozenset(int(tag[1]) for tag in tags if tag and tag[1])
