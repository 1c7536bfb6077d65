"""What pages ask of the collector: all that they show and change goes through its API, by the rights of a session."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from aiohttp import web

from edgeproxy.collector.pages.sessions import Session


class ApiResponse(NamedTuple):
    """What the API answered."""

    status: int
    body: Any
    """The JSON; None where it answered something else."""
    content: bytes = b""
    """What it answered, as it came."""
    fields: Mapping[str, str] = {}
    """The head of the answer."""

    @property
    def is_success(self) -> bool:
        """Whether it did what was asked."""
        return self.status < 400


class ApiClient(Protocol):
    """The endpoints of the collector, as over HTTP: the same roles, checks, audit entries."""

    async def ask(
        self,
        request: web.Request,
        session: Session,
        method: str,
        path: str,
        *,
        names: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        given: bytes = b"",
        once: str | None = None,
    ) -> ApiResponse:
        """Ask an endpoint, by its `path` as `endpoints.py` has it, whose parameters are `names`.

        `body` is the JSON that is sent, `given` are the bytes for an endpoint that reads them itself, `once` is the
        Idempotency-Key.
        """

    def deny(self, request: web.Request, actor: str | None, status: int, why: str) -> None:
        """Put on record that a page was denied."""

    def caller(self, request: web.Request) -> tuple[str, str]:
        """Return from where a request comes, and its id, for the audit log."""


class SignInDeniedError(Exception):
    """Nobody signs in: the status, and a sentence why."""

    def __init__(self, status: int, why: str, actor: str | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.actor = actor


Who = TypeVar("Who", covariant=True)


class Issuer(Protocol[Who]):
    """Where people sign in: the code flow of OpenID Connect, with PKCE (RFC 7636)."""

    async def begin(self, secret: str, back: str, *, again: bool) -> str:
        """Return where the browser goes. `secret` stays in the browser's cookie, `back` is where the issuer sends it.

        With `again` the issuer asks for a second factor anew. Raises Denied.
        """

    async def finish(self, secret: str, back: str, query: Mapping[str, str]) -> Who:
        """Return who signed in, by what the issuer sent the browser back with; raises Denied."""
