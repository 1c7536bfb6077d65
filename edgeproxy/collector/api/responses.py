"""The collector's responses: JSON and problem documents (RFC 9457)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, NotRequired, TypeVar, cast

import orjson
from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.collector.database.unreadable_rows import format_unreadable

PROBLEM = "application/problem+json"
RETRY_LATER = {"Retry-After": "1"}
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    428: "Precondition Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class FieldError(TypedDict):
    """The error of a field, in `errors` of a problem."""

    field: str
    """The field, such as `limits.0.rate`."""
    detail: str
    """The reason why the field is invalid."""


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: str
    """The type of the problem: `about:blank`, because the status is the whole type."""
    title: str
    """The reason phrase of the status."""
    status: int
    """The HTTP status."""
    detail: NotRequired[str]
    """A sentence about this error."""
    errors: NotRequired[list[FieldError]]
    """The invalid fields."""
    used: NotRequired[int]
    """The number of units in use, if a quota is used up."""
    allowed: NotRequired[int]
    """The number of units that the quota allows."""


class ProblemError(Exception):
    """The answer is a problem document: status, a sentence why, and the errors of invalid fields."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers


T = TypeVar("T", bound=Mapping[str, object])
C = TypeVar("C", int, str)


class Result(NamedTuple, Generic[T]):
    """An answer of a handler that has more than a body."""

    body: T
    version: int | None = None
    """The version of the object, for its ETag; None if it has none."""
    status: int | None = None
    """The status; None: the one of the endpoint's success."""
    headers: Mapping[str, str] = MappingProxyType({})


def as_result(result: object) -> Result[Mapping[str, object]]:
    """Return the result of a handler as an answer."""
    return result if isinstance(result, Result) else Result(cast(Mapping[str, object], result))


def build_response(result: object, status: int) -> web.StreamResponse:
    """Return the response for the result of a handler, with the `status` of success."""
    if isinstance(result, web.StreamResponse):
        return result
    given = as_result(result)
    headers = given.headers if given.version is None else {**given.headers, "ETag": f'"{given.version}"'}
    return answer(given.status or status, given.body, headers)


def answer(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON. An unreadable value of the books is written as UNREADABLE_TEXT."""
    return web.Response(
        status=status, body=orjson.dumps(body, format_unreadable), content_type="application/json", headers=headers
    )


class NextPage(TypedDict, Generic[C]):
    """The cursor of the next page, in the answer of a list."""

    next: NotRequired[C]


def next_page(cursor: C | None) -> NextPage[C]:
    """Return the cursor of the next page, if there is one, for the answer of a list."""
    return {} if cursor is None else {"next": cursor}


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    errors: list[FieldError] | None = None,
    also: Mapping[str, object] | None = None,
) -> web.Response:
    """Answer with a problem document. `also` has additional members."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": TITLES.get(status, ""),
        "status": status,
        "detail": detail,
    }
    body |= also or {}
    if errors:
        body["errors"] = errors
    return web.Response(status=status, body=orjson.dumps(body), headers={"Content-Type": PROBLEM, **(headers or {})})
