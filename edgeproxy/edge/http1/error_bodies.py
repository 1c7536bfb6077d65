"""Bodies of the edge's own errors in other forms than problems (docs/edge/errors.md)."""

import html
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Protocol

import orjson

from edgeproxy.edge.http1.message import REASONS

CODES: Final[dict[int, str]] = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "request_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    417: "expectation_failed",
    421: "misdirected_request",
    429: "rate_limit_exceeded",
    431: "fields_too_large",
    500: "internal_error",
    501: "not_implemented",
    502: "upstream_failed",
    503: "unavailable",
    504: "upstream_timeout",
    505: "version_not_supported",
}
"""A word for programs, by status."""

OPENAI_TYPES: Final[dict[int, str]] = {402: "insufficient_quota", 429: "rate_limit_error"}
"""The `type` of an error of OpenAI's API, unless it is one of the two below."""
OPENAI_CLIENT, OPENAI_SERVER = "invalid_request_error", "server_error"

ANTHROPIC_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""The `type` of an error of Anthropic's API, unless it is one of the two below."""
ANTHROPIC_CLIENT, ANTHROPIC_SERVER = "invalid_request_error", "api_error"

END: Final = b'"}'
"""The bytes behind the request id in each format that is JSON."""


class ErrorBodies(Protocol):
    """The form of error bodies of a route."""

    line: bytes
    """The line Content-Type, with its CRLF."""

    def format_opening(self, status: int, detail: str) -> bytes | None:
        """Return a body up to the request id, for END to follow; None if bodies have another form."""

    def format_body(self, status: int, detail: str, request_id: bytes) -> bytes:
        """Format a body."""


class JsonErrors:
    """Errors of an API whose bodies are JSON, and end with the id of the request."""

    line = b"Content-Type: application/json\r\n"

    def __init__(self, build_members: Callable[[int, str], Mapping[str, object]]) -> None:
        """`build_members` returns the members of a body except the request id."""
        self._build_opening = lru_cache(maxsize=256)(
            lambda status, detail: orjson.dumps(build_members(status, detail))[:-1] + b',"request_id":"'
        )

    def format_opening(self, status: int, detail: str) -> bytes | None:
        """See ErrorBodies."""
        opening: bytes = self._build_opening(status, detail)
        return opening

    def format_body(self, status: int, detail: str, request_id: bytes) -> bytes:
        """See ErrorBodies."""
        escaped = escape_json(request_id.decode("latin-1")).encode()
        return b"".join((self._build_opening(status, detail), escaped, END))


def _build_openai_members(status: int, detail: str) -> Mapping[str, object]:
    kind = OPENAI_TYPES.get(status) or (OPENAI_SERVER if status >= 500 else OPENAI_CLIENT)
    return {"error": {"message": detail, "type": kind, "param": None, "code": CODES[status]}}


def _build_anthropic_members(status: int, detail: str) -> Mapping[str, object]:
    kind = ANTHROPIC_TYPES.get(status) or (ANTHROPIC_SERVER if status >= 500 else ANTHROPIC_CLIENT)
    return {"type": "error", "error": {"type": kind, "message": detail}}


OPENAI: Final = JsonErrors(_build_openai_members)
ANTHROPIC: Final = JsonErrors(_build_anthropic_members)
VARIABLE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def escape_json(value: str) -> str:
    """Escape a text for the place between two quotes of JSON; `<` too, as JSON may stand in a page."""
    return json.dumps(value, ensure_ascii=False)[1:-1].replace("<", "\\u003c")


class TemplateErrors:
    """Errors by a template of the operator. Each value is escaped for the type of the template."""

    def __init__(self, text: str, media_type: str) -> None:
        """`text` has only the variables that edgeproxy/config/error_templates.py knows."""
        charset = b"" if media_type.endswith("json") else b"; charset=utf-8"
        self.line = b"Content-Type: %b%b\r\n" % (media_type.encode(), charset)
        self._pieces = VARIABLE.split(text)
        """Text and names of variables by turns."""
        self._escape: Callable[[str], str] = str
        if media_type.endswith("json"):
            self._escape = escape_json
        elif media_type.endswith(("html", "xml")):
            self._escape = html.escape

    def format_opening(self, status: int, detail: str) -> bytes | None:
        """See ErrorBodies."""
        return None

    def format_body(self, status: int, detail: str, request_id: bytes) -> bytes:
        """See ErrorBodies."""
        values = {
            "status": str(status),
            "title": REASONS[status],
            "code": CODES[status],
            "detail": detail,
            "request_id": request_id.decode("latin-1"),
        }
        pieces = [self._escape(values[piece]) if at % 2 else piece for at, piece in enumerate(self._pieces)]
        return "".join(pieces).encode()
