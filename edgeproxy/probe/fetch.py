"""Asking servers as the probe does: directly, within bounds, and never where a redirection leads."""

import ssl
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import NamedTuple, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from edgeproxy.probe.steps import Failed

ANSWER_TIMEOUT = 10.0
"""Seconds for an answer."""
BODY_BYTES_MAX = 16 << 20
"""Bytes of an answer's body that are read: a month's statement of a customer who buys every five minutes has 2 MB."""
AGENT = "edgeproxy-probe"


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class Fetch(Protocol):
    """Asks a URL with these fields, and posts the body where there is one; raises Failed where there is no answer."""

    def __call__(self, url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Ask."""


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: the key is for the edge alone."""

    def redirect_request(self, *_: object) -> None:
        return None


def fetcher(ca: str | None) -> Fetch:
    """Return what asks servers directly, over TLS by the system's authorities and those of `ca`; raises OSError."""
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context), _Stay())

    def fetch(url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        if urlsplit(url).scheme not in ("http", "https"):  # As of a page to pay at, which the collector tells.
            raise Failed(f"{url.partition('?')[0]!r} is no URL of http:// or https://")
        asked = Request(url, data=body, headers={**fields, "User-Agent": AGENT})
        try:
            try:
                answer = opener.open(asked, timeout=ANSWER_TIMEOUT)
            except HTTPError as error:
                answer = error
            with answer:
                return Answer(answer.status, answer.headers, answer.read(BODY_BYTES_MAX))
        except OSError as error:
            raise Failed(f"nobody answers at {url.partition('?')[0]}: {getattr(error, 'reason', error)}") from None
        except HTTPException as error:
            raise Failed(f"what {url.partition('?')[0]} answers is no HTTP: {type(error).__name__}") from None

    return fetch


def wait_until(holds: Callable[[], bool], patience: float, pause: float, otherwise: str) -> None:
    """Ask whether something holds until it does; raises Failed, with `otherwise`, where it does not in time."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() >= deadline:
            raise Failed(f"{otherwise} after {patience:g} s")
        time.sleep(pause)
