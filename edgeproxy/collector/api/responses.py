"""The collector's responses: JSON and problem documents (RFC 9457)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Generic, NamedTuple, NotRequired, TypeVar, cast

import orjson
from aiohttp import web
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.database.unreadable_rows import format_unreadable
from edgeproxy.collector.problems.coded_error import CodedError, FieldFault, Params
from edgeproxy.collector.problems.table import CODES

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
    417: "Expectation Failed",
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
    code: str
    """The code of the fault, for programs."""
    detail: str
    """The reason why the field is invalid."""
    params: NotRequired[Params]
    """The figures in the reason, for programs."""


KnownProblemCode = TypeAliasType(
    "KnownProblemCode",
    Annotated[str, Field(description="The codes of this version.", json_schema_extra={"enum": sorted(CODES)})],
)


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: str
    """The type of the problem: a URI that ends with the code."""
    code: KnownProblemCode | str
    """The code of the problem, for programs. It stays when the sentence changes. A later version may have more codes.
    """
    title: str
    """The reason phrase of the status."""
    status: int
    """The HTTP status."""
    detail: NotRequired[str]
    """A sentence about this error."""
    params: NotRequired[Params]
    """The names and figures in the sentence, for programs."""
    errors: NotRequired[list[FieldError]]
    """The invalid fields."""
    used: NotRequired[int]
    """The number of units in use, if a quota is used up."""
    allowed: NotRequired[int]
    """The number of units that the quota allows."""


class ProblemError(CodedError):
    """The answer is a problem document, with additional header fields."""

    def __init__(
        self,
        code: ProblemCode,
        why: str,
        faults: Sequence[FieldFault] = (),
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, why, faults, params=params)
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
    follow_up: Callable[[], Awaitable[None]] | None = None
    """An effect elsewhere, after the commit of a change. A dry run, a repeated request and a rollback have none."""


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
    code: ProblemCode,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    faults: Sequence[FieldFault] = (),
    params: Params | None = None,
    also: Mapping[str, object] | None = None,
) -> web.Response:
    """Answer with a problem document. `also` has additional members."""
    body: dict[str, object] = {
        "type": code.type,
        "code": code.name,
        "title": TITLES[code.status],
        "status": code.status,
        "detail": detail,
    }
    body |= also or {}
    if params:
        body["params"] = params
    if faults:
        body["errors"] = list(map(_to_field_error, faults))
    headers = {"Content-Type": PROBLEM, **(headers or {})}
    return web.Response(status=code.status, body=orjson.dumps(body), headers=headers)


def answer_error(error: CodedError, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with the problem document of an error."""
    return problem(error.code, error.why, headers, faults=error.faults, params=error.params)


def _to_field_error(fault: FieldFault) -> FieldError:
    error: FieldError = {"field": fault.field, "code": fault.code.name, "detail": fault.detail}
    if fault.params:
        error["params"] = fault.params
    return error
