"""Changes that callers make: one transaction each, tried without effect or carried out once where they ask for that."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from aiohttp import web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import idempotency
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.idempotency import IdempotentRequest
from edgeproxy.collector.accounts.pseudonyms import NOBODY, Readers, reveal_names
from edgeproxy.collector.api.endpoint import SHOWN_TO, AnyCall, Call
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.responses import RETRY_LATER, answer, problem
from edgeproxy.collector.database.row_security import across_customers

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
ETAG = re.compile(r'"([0-9]{1,15})"|(?:W/)?"[^"]*"')


class ChangeResult(NamedTuple):
    """The answer to a change that was made."""

    status: int
    body: Mapping[str, object]
    version: int | None = None
    """The version of what was changed, for its ETag; None where it has none."""


Change = Callable[[AsyncConnection], Awaitable[ChangeResult]]
"""Makes a change within a transaction."""
Permit = Callable[[AsyncConnection], Awaitable[None]]
"""Raises DeniedError where the caller may not see the answer, be it made now or stored from the first time."""


class DryRunDoneError(Exception):
    """A dry run has succeeded: its transaction is rolled back."""


class ChangeHandlers(Handlers):
    """Handlers that make changes: each in one transaction, with its audit entry."""

    async def _change(
        self,
        call: Call[ChangeQuery, BaseModel],
        make: Change,
        *,
        creates: bool = False,
        hides: str | None = None,
        permit: Permit | None = None,
    ) -> web.Response:
        """Make a change and answer with it; a dry run is rolled back, and answered without the field `hides`.

        With `creates` the change is made once for each Idempotency-Key.
        """
        idempotent_request = None
        if creates and not call.query.dry_run:  # Each dry run is tried for itself.
            idempotent_request = find_idempotent_request(call)
        for is_second in (False, True):
            try:
                if call.query.dry_run:
                    return await self._try(make, permit, call.request.get(SHOWN_TO, NOBODY), hides)
                return await self._transact(make, idempotent_request, permit)
            except sa.exc.IntegrityError:
                # Another collector made the same change at the same time: now it can be seen.
                if is_second:
                    return problem(503, "others change the same now", RETRY_LATER)
        raise AssertionError

    async def _try(self, make: Change, permit: Permit | None, readers: Readers, hides: str | None) -> web.Response:
        """Make a change and roll it back. Names are put into the answer before: nobody finds them afterwards."""
        try:
            async with self._database.writing() as connection:
                if permit is not None:
                    await permit(connection)
                result = await make(connection)
                body = orjson.dumps({name: value for name, value in result.body.items() if name != hides})
                body = await reveal_names(connection, body, readers)
                raise DryRunDoneError
        except DryRunDoneError:
            return web.Response(body=body, content_type="application/json")

    async def _transact(
        self, make: Change, idempotent_request: IdempotentRequest | None, permit: Permit | None
    ) -> web.Response:
        async with self._database.writing() as connection:
            if permit is not None:
                await permit(connection)
            stored = None
            if idempotent_request is not None:
                async with across_customers(connection):
                    stored = await idempotency.find_answer(connection, idempotent_request)
            if stored is not None:
                response = answer_with_etag(*orjson.loads(stored))
                response.headers["Idempotent-Replayed"] = "true"
                return response
            result = await make(connection)
            if idempotent_request is not None:
                async with across_customers(connection):
                    await idempotency.store_answer(connection, idempotent_request, orjson.dumps([*result]))
            return answer_with_etag(*result)


def find_idempotent_request(call: AnyCall) -> IdempotentRequest | None:
    """Return the identity of a request that may be sent again; None where it has no Idempotency-Key."""
    key = call.request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ChangeRejectedError(400, "an Idempotency-Key has 1 to 255 visible characters")
    digest = idempotency.request_digest(call.request.method, call.request.path_qs, call.raw_body)
    return IdempotentRequest(call.caller.actor, key, digest)


def parse_if_match(request: web.Request) -> frozenset[int] | None:
    """Return the versions that If-Match names (RFC 9110 section 13.1.1); None where any will do."""
    field = request.headers.get("If-Match")
    if field is None or field.strip() == "*":
        return None
    tags = [ETAG.fullmatch(tag.strip()) for tag in field.split(",")]
    if not all(tags):
        raise ChangeRejectedError(400, 'If-Match is no ETag such as "3", and not *')
    # A weak one never matches, nor does one that was not made here.
    return frozenset(int(tag[1]) for tag in tags if tag and tag[1])


def answer_with_etag(status: int, body: Mapping[str, object], version: int | None) -> web.Response:
    """Answer with JSON and the ETag of its version."""
    return answer(status, body, {} if version is None else {"ETag": f'"{version}"'})
