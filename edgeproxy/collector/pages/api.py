"""The interface from pages to the collector's API. All data of pages goes through it, with the session's rights."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypedDict, TypeVar, Unpack

from aiohttp import web

from edgeproxy.base.json_values import JsonDocument as JsonDocument
from edgeproxy.base.json_values import JsonValue
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.pages.sessions import Session
from edgeproxy.collector.problems.coded_error import CodedError


class ApiResponse(NamedTuple):
    """A response of the API."""

    status: int
    body: JsonDocument
    """The JSON document, with the endpoint's schema; None for other media types."""
    content: bytes = b""
    """The body in bytes."""
    fields: Mapping[str, str] = {}
    """The header fields."""

    @property
    def is_success(self) -> bool:
        """Return True if the request succeeded."""
        return self.status < 400


class RequestOptions(TypedDict, total=False):
    """Optional parts of a request to the API."""

    names: Mapping[str, str]
    """The parameters of the path."""
    query: Mapping[str, str]
    body: Mapping[str, JsonValue]
    """The JSON object to send."""
    given: bytes
    """The bytes for an endpoint that reads its body itself."""
    once: str
    """The Idempotency-Key."""


class ApiClient(Protocol):
    """The collector's endpoints. Roles, checks and audit entries equal those of HTTP requests."""

    async def ask(
        self,
        request: web.Request,
        session: Session,
        method: str,
        path: str,
        **options: Unpack[RequestOptions],
    ) -> ApiResponse:
        """Call the endpoint with this method and path template on behalf of the session."""

    def deny(self, request: web.Request, actor: str | None, status: int, why: str) -> None:
        """Record in the audit log that a page was denied."""

    def count_visit(self, request: web.Request, what: str, per_minute: int) -> int:
        """Count a client's visit and return 0. Over the limit, count nothing and return the seconds to wait."""

    def count_page(self, session: Session) -> int:
        """Count a page view and return 0. Over the limit, count nothing and return the seconds to wait."""

    def show_names(self, request: web.Request, session: Session | None) -> None:
        """Make the page of a request show names instead of pseudonyms, as far as the visitor may see them."""

    def client(self, request: web.Request) -> str:
        """Return the IP address of a client, or a text if a trusted proxy names none."""

    def caller(self, request: web.Request) -> tuple[str, str]:
        """Return the origin and the id of a request, for the audit log."""


class SignInDeniedError(CodedError):
    """A sign-in failed. `actor` is the identified person, if there is one."""

    def __init__(self, code: ProblemCode, why: str, actor: str | None = None) -> None:
        super().__init__(code, why)
        self.actor = actor


Who = TypeVar("Who", covariant=True)


class Issuer(Protocol[Who]):
    """An issuer for signing in with the code flow of OpenID Connect and PKCE (RFC 7636)."""

    async def begin(self, secret: str, back: str, *, again: bool) -> str:
        """Return the issuer's URL for the browser.

        `secret` stays in the browser's cookie. The issuer returns the browser to the URL `back`. With `again` it asks
        for a second factor again. Raises SignInDeniedError.
        """

    async def finish(self, secret: str, back: str, query: Mapping[str, str]) -> Who:
        """Return the person who signed in, from the query of the issuer's redirect. Raises SignInDeniedError."""
