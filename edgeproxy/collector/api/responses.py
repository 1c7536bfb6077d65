"""The collector's responses: JSON and problem documents (RFC 9457)."""

from collections.abc import Mapping, Sequence
from typing import NotRequired

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


def answer(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON. An unreadable value of the books is written as UNREADABLE_TEXT."""
    return web.Response(
        status=status, body=orjson.dumps(body, format_unreadable), content_type="application/json", headers=headers
    )


def answer_page(name: str, rows: Sequence[object], next_cursor: object | None, **more: object) -> web.Response:
    """Answer with the rows of a page, the cursor of the next page if there is one, and the fields `more`."""
    return answer(200, {**more, name: rows, **({} if next_cursor is None else {"next": next_cursor})})


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
