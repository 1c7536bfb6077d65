"""The collector's API as pages call it: all that they show and change goes through it, by the rights of a session."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypedDict, TypeVar, Unpack

from aiohttp import web

from edgeproxy.base.json_values import JsonDocument as JsonDocument
from edgeproxy.base.json_values import JsonValue
from edgeproxy.collector.pages.sessions import Session


class ApiResponse(NamedTuple):
    """A response of the API."""

    status: int
    body: JsonDocument
    """The JSON document, as the schema of the endpoint has it; None for another media type."""
    content: bytes = b""
    """The body in bytes."""
    fields: Mapping[str, str] = {}
    """The header fields."""

    @property
    def is_success(self) -> bool:
        """Return whether the request succeeded."""
        return self.status < 400


class RequestOptions(TypedDict, total=False):
    """The parts of a request to the API that it may have."""

    names: Mapping[str, str]
    """The parameters of the path."""
    query: Mapping[str, str]
    body: Mapping[str, JsonValue]
    """The JSON object that is sent."""
    given: bytes
    """The bytes for an endpoint that reads its body itself."""
    once: str
    """The Idempotency-Key."""


class ApiClient(Protocol):
    """The endpoints of the collector, with the same roles, checks and audit entries as over HTTP."""

    async def ask(
        self,
        request: web.Request,
        session: Session,
        method: str,
        path: str,
        **options: Unpack[RequestOptions],
    ) -> ApiResponse:
        """Call the endpoint with this method and path template, in the session's name."""

    def deny(self, request: web.Request, actor: str | None, status: int, why: str) -> None:
        """Record in the audit log that a page was denied."""

    def count_visit(self, request: web.Request, what: str, per_minute: int) -> int:
        """Count a visit of a client; return 0, or the seconds until it may come again, and then it is not counted."""

    def count_page(self, session: Session) -> int:
        """Count a page of a session's visitor; return 0, or the seconds until the next one, and it is not counted."""

    def show_names(self, request: web.Request, session: Session | None) -> None:
        """Let the page of a request have names in the place of pseudonyms, as far as its visitor may see them."""

    def client(self, request: web.Request) -> str:
        """Return the IP address of a client, or a text where a trusted proxy names none."""

    def caller(self, request: web.Request) -> tuple[str, str]:
        """Return the origin and the id of a request, for the audit log."""


class SignInDeniedError(Exception):
    """A sign-in fails: its HTTP status, and a sentence why."""

    def __init__(self, status: int, why: str, actor: str | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.actor = actor


Who = TypeVar("Who", covariant=True)


class Issuer(Protocol[Who]):
    """An issuer at which people sign in, by the code flow of OpenID Connect with PKCE (RFC 7636)."""

    async def begin(self, secret: str, back: str, *, again: bool) -> str:
        """Return the URL to which the browser goes.

        `secret` stays in the browser's cookie, `back` is the URL to which the issuer sends the browser. With `again`
        the issuer asks for a second factor again. Raises SignInDeniedError.
        """

    async def finish(self, secret: str, back: str, query: Mapping[str, str]) -> Who:
        """Return who signed in, by the query with which the issuer sent the browser back; raises SignInDeniedError."""
