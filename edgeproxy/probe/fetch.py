"""Requests of the probe: direct, within bounds, and without following redirects."""

import ssl
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import NamedTuple, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from edgeproxy.base.trust import load_trusted
from edgeproxy.probe.bounded_answer import BoundedHttpHandler, BoundedHttpsHandler
from edgeproxy.probe.steps import ProbeError

ANSWER_TIMEOUT = 10.0
"""Seconds to connect, for TLS, and for the whole of an answer."""
BODY_BYTES_MAX = 16 << 20
"""The most bytes of a body that are read. A month's statement of a customer who buys every five minutes has 2 MB."""
AGENT = "edgeproxy-probe"


class Answer(NamedTuple):
    """A response, whatever its status."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class Fetch(Protocol):
    """Requests a URL with these fields, by POST if there is a body. Raises ProbeError without a response."""

    def __call__(self, url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send the request and read the response."""


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: only the edge may get the key."""

    def redirect_request(self, *_: object) -> None:
        return None


def create_fetch(ca: str | None) -> Fetch:
    """Return a function that sends requests and trusts the authorities of the system and of `ca`. Raises OSError."""
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False  # RFC 9525 section 6.4, as in edgeproxy.base.trust.
    load_trusted(context)
    if ca is not None:
        context.load_verify_locations(ca)
    opener = build_opener(ProxyHandler({}), BoundedHttpHandler(), BoundedHttpsHandler(context=context), _NoRedirects())

    def fetch(url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        if urlsplit(url).scheme not in ("http", "https"):  # Such as a payment page that the collector names.
            raise ProbeError(f"{url.partition('?')[0]!r} is no URL of http:// or https://")
        request = Request(url, data=body, headers={**fields, "User-Agent": AGENT})
        try:
            try:
                answer = opener.open(request, timeout=ANSWER_TIMEOUT)
            except HTTPError as error:
                answer = error
            with answer:
                return Answer(answer.status, answer.headers, answer.read(BODY_BYTES_MAX))
        except OSError as error:
            raise ProbeError(f"nobody answers at {url.partition('?')[0]}: {getattr(error, 'reason', error)}") from None
        except HTTPException as error:
            raise ProbeError(f"what {url.partition('?')[0]} answers is no HTTP: {type(error).__name__}") from None

    return fetch


def wait_until(holds: Callable[[], bool], patience: float, pause: float, otherwise: str) -> None:
    """Poll until `holds` is true. After `patience` seconds, raises ProbeError with the text `otherwise`."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() >= deadline:
            raise ProbeError(f"{otherwise} after {patience:g} s")
        time.sleep(pause)
