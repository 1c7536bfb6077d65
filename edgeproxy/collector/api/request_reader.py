"""Bodies and query strings of requests, read within bounds and validated by the models of their endpoint."""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.api.endpoint import AnyCall
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.problems import request_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.explain import SEE_SCHEMA, explain_errors, list_fields
from edgeproxy.config.problems import format_path
from edgeproxy.wire.batch import BODY_BYTES_MAX

BODY_SECONDS_MAX = 30.0
"""Seconds that a body may take."""
BODY_GRACE_SECONDS = 5.0
"""Seconds that a body may lag behind BODY_BYTES_PER_SECOND_MIN."""
BODY_BYTES_PER_SECOND_MIN = 16 << 10
JSON_BYTES_MAX = 256 << 10
"""The most bytes of JSON that an endpoint accepts."""
EXPLAINED_ERRORS_MAX = 2_000
"""The most faults in a body for explaining some. pydantic describes all of them: 100,000 take 0.7 s."""
ERRORS_MAX = 20
"""The most fields that one problem lists."""
HINTS = {SEE_SCHEMA: "see GET /v1/openapi.json"}
"""Hints for callers that replace hints for authors of configuration files."""

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Read the body of a request. Raises ProblemError 408 if it arrives too slowly.

    Reading stops beyond `bytes_max`. The caller must report a longer result as too large.
    """
    pieces, size = [], 0
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(BODY_GRACE_SECONDS) as deadline:
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                seconds = BODY_GRACE_SECONDS + size / BODY_BYTES_PER_SECOND_MIN
                deadline.reschedule(began + min(seconds, BODY_SECONDS_MAX))
                if size > bytes_max:
                    break
    except TimeoutError:
        detail = f"the body came too slowly: it has {BODY_SECONDS_MAX:g} s, and each second of them some of it"
        raise ProblemError(request_codes.BODY_TOO_SLOW, detail, headers={"Connection": "close"}) from None
    return b"".join(pieces)


async def read_json(request: web.Request) -> tuple[JsonObject, bytes]:
    """Return the JSON object in a body, and its bytes. Raises ProblemError."""
    # aiohttp treats a request without Content-Type as an octet-stream.
    if request.content_type not in ("application/json", "application/octet-stream", "application/merge-patch+json"):
        raise ProblemError(request_codes.MEDIA_TYPE_UNSUPPORTED, "send application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(request_codes.MEDIA_TYPE_UNSUPPORTED, "send JSON without a Content-Encoding")
    raw = await read_body(request, JSON_BYTES_MAX)
    if len(raw) > JSON_BYTES_MAX:
        raise ProblemError(
            request_codes.BODY_TOO_LARGE,
            f"the body has more than {JSON_BYTES_MAX} bytes",
            headers={"Connection": "close"},
        )
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProblemError(request_codes.BODY_NOT_JSON, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProblemError(request_codes.BODY_INVALID, "the body is not a JSON object")
    return body, raw


def parse_body(model: type[M], fields: object) -> M:
    """Validate the fields of a body with its model. Raises ProblemError 422 with the invalid fields."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        if (count := error.error_count()) > EXPLAINED_ERRORS_MAX:
            raise ProblemError(
                request_codes.FIELDS_INVALID, f"{count} fields cannot be used, which are too many to list"
            ) from None
        raise ProblemError(
            request_codes.FIELDS_INVALID, "some fields cannot be used", _list_faults(model, error)
        ) from None


async def read_content(call: AnyCall, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Return the body of a call: its inner body if it has one, otherwise the body of the HTTP request."""
    return await read_body(call.request, bytes_max) if call.inner_body is None else call.inner_body


def parse_query(model: type[M], query: Mapping[str, str]) -> M:
    """Validate the parameters of a query string with their model. Raises ProblemError."""
    if len(query) != len(set(query)):
        raise ProblemError(request_codes.QUERY_INVALID, "a parameter is there twice")
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        faults = _list_faults(model, error)
        detail = "; ".join(map(str, faults))
        raise ProblemError(request_codes.QUERY_INVALID, detail, faults) from None


def _list_faults(model: type[BaseModel], error: ValidationError) -> list[FieldFault]:
    # Only listed errors are explained: a suggestion for each of ten thousand misspelt fields takes seconds.
    findings = islice(explain_errors(error, lambda path: list_fields(model, path)), ERRORS_MAX)
    return [
        FieldFault(
            format_path(fault.path), f"{fault.what}, {HINTS.get(fault.hint, fault.hint)}", fault.code, fault.params
        )
        for fault in findings
    ]
