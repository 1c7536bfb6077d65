"""Requests to the collector over one connection, which is reopened after a loss."""

import http.client
import json
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10.0
PATH = "/v1/events"


class Answer(NamedTuple):
    """The collector's response to a request."""

    status: int
    body: bytes
    retry_after: float
    """Seconds of Retry-After; 0 without one."""

    @property
    def code(self) -> str | None:
        """Return the code of a problem, for example `events-busy`; None for another body."""
        try:
            problem = json.loads(self.body)
        except ValueError:
            return None
        return problem.get("code") if isinstance(problem, dict) else None


class Transport:
    """A connection to a collector. Raises ValueError for an invalid URL."""

    def __init__(self, url: str, token: str, ca_file: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url!r} is not the URL of a collector, such as https://collector.internal:9100")
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=TIMEOUT_SECONDS, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._path = parts.path.rstrip("/") + PATH
        self._fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def send(self, body: bytes) -> Answer:
        """Send events. Raises OSError and HTTPException where nothing is known of them."""
        try:
            self._connection.request("POST", self._path, body, self._fields)
            answer = self._connection.getresponse()
            content = answer.read()
        except BaseException:
            self._connection.close()  # The next one opens it again.
            raise
        after = answer.headers.get("Retry-After", "")
        return Answer(answer.status, content, float(after) if after.isascii() and after.isdigit() else 0.0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
