"""A round of the probe: one request through the edge, and what becomes of it."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from edgeproxy.probe.steps import Failed, Step, check_answer, check_limits, total_of

ANSWER_TIMEOUT = 10.0
"""Seconds for an answer."""
BODY_BYTES_MAX = 1 << 20
"""Bytes of an answer's body that are read."""
AGENT = "edgeproxy-probe"
POLL_SECONDS = 0.5
"""Between two questions to the collector."""
SPAN = timedelta(hours=1)
"""What is asked of usage before and after now: clocks may differ by so much."""


class Aim(NamedTuple):
    """What is probed, and with which secrets."""

    url: str
    key: str
    collector: str | None = None
    token: str = ""
    patience: float = 60.0
    """Seconds within which usage is in the collector."""
    ca: str | None = None
    """A file with who vouches for https:// URLs, beside the system's authorities."""


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    fields: Mapping[str, str]
    body: bytes


Fetch = Callable[[str, Mapping[str, str]], Answer]


def steps(aim: Aim, fetch: Fetch) -> Iterator[Step]:
    """Make the steps of one round, in order; after one that failed, those that build on it are not made.

    `fetch` asks a URL with these fields; it raises Failed where there is no answer.
    """
    asked: dict[str, Answer] = {}

    def request() -> None:
        asked["edge"] = fetch(aim.url, {"X-API-Key": aim.key})
        check_answer(asked["edge"].status)

    before, question = 0, ""
    if aim.collector is not None:
        now = datetime.now(UTC).replace(microsecond=0)
        span = {"from": (now - SPAN).isoformat(), "to": (now + SPAN).isoformat()}
        question = f"{aim.collector}/v1/usage?{urlencode(span)}"
        try:
            before = usage(aim, question, fetch)
        except Failed as why:
            yield Step("usage", 0.0, str(why))
            question = ""
    yield (made := _timed("request", request))
    if made.why is None:
        yield _timed("limits", lambda: check_limits(asked["edge"].fields))
        if question:
            yield _timed("usage", lambda: wait_for_usage(aim, question, before, fetch))


def usage(aim: Aim, question: str, fetch: Fetch) -> int:
    """Return how much usage the collector has of the token's customer; raises Failed."""
    answer = fetch(question, {"Authorization": f"Bearer {aim.token}"})
    if answer.status != 200:
        raise Failed(f"the collector answered {answer.status}")
    return total_of(answer.body)


def wait_for_usage(aim: Aim, question: str, before: int, fetch: Fetch) -> None:
    """Wait until the collector has more than `before`; raises Failed where it has not in time."""
    deadline = time.monotonic() + aim.patience
    while usage(aim, question, fetch) <= before:
        if time.monotonic() >= deadline:
            raise Failed(f"the request is not in the collector's usage after {aim.patience:g} s")
        time.sleep(POLL_SECONDS)


def _timed(name: str, make: Callable[[], None]) -> Step:
    began, why = time.monotonic(), None
    try:
        make()
    except Failed as failure:
        why = str(failure)
    return Step(name, time.monotonic() - began, why)


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

    def fetch(url: str, fields: Mapping[str, str]) -> Answer:
        try:
            try:
                answer = opener.open(Request(url, headers={**fields, "User-Agent": AGENT}), timeout=ANSWER_TIMEOUT)
            except HTTPError as refusal:
                answer = refusal
            with answer:
                return Answer(answer.status, answer.headers, answer.read(BODY_BYTES_MAX))
        except OSError as failure:
            raise Failed(f"nobody answers at {url.partition('?')[0]}: {getattr(failure, 'reason', failure)}") from None
        except HTTPException as failure:
            raise Failed(f"what {url.partition('?')[0]} answers is no HTTP: {type(failure).__name__}") from None

    return fetch
