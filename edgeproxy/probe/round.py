"""A round of the probe: one request through the edge, what becomes of it, and where that is asked for a purchase."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from edgeproxy.probe.fetch import Answer, Fetch, wait_until
from edgeproxy.probe.money import Credits, Session
from edgeproxy.probe.steps import Failed, Step, check_answer, check_limits, total_of

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
    """Seconds within which usage is in the collector, a request is charged and a purchase is booked."""
    ca: str | None = None
    """A file with who vouches for https:// URLs, beside the system's authorities."""
    charge: bool = False
    """Whether the request costs credits, and the books are looked at."""
    checkout: bool = False
    """Whether credits are bought."""


def steps(aim: Aim, fetch: Fetch) -> Iterator[Step]:
    """Make the steps of one round, in order; after one that failed, those that build on it are not made.

    `fetch` asks a URL with these fields; it raises Failed where there is no answer.
    """
    asked: dict[str, Answer] = {}

    def request() -> None:
        asked["edge"] = fetch(aim.url, {"X-API-Key": aim.key})
        check_answer(asked["edge"].status)

    credits = Credits(aim.collector or "", aim.token, fetch, aim.patience)
    before: dict[str, int] = {}
    question = _question(aim)
    looks: dict[str, Callable[[], int]] = {}
    if aim.collector is not None:
        looks["usage"] = lambda: usage(aim, question, fetch)
    if aim.charge:
        looks["charge"] = credits.available
    for name, look in looks.items():
        try:
            before[name] = look()
        except Failed as error:
            yield Step(name, 0.0, str(error))
    yield (made := _timed("request", request))
    if made.why is None:
        yield _timed("limits", lambda: check_limits(asked["edge"].fields))
        if "usage" in before:
            yield _timed("usage", lambda: wait_for_usage(aim, question, before["usage"], fetch))
        if "charge" in before:
            yield _timed("charge", lambda: credits.wait_for_charge(before["charge"]))
    if aim.charge:
        yield _timed("books", credits.check_books)
    if aim.checkout:
        yield from _purchase(credits)


def _purchase(credits: Credits) -> Iterator[Step]:
    """Make the steps of a purchase: of one that only a person can pay, the first one."""
    begun: list[Session] = []
    yield _timed("checkout", lambda: begun.append(credits.begin_purchase()))
    if begun and begun[0].is_payable:
        yield _timed("purchase", lambda: credits.purchase(begun[0]))


def _question(aim: Aim) -> str:
    """Return the URL of the usage around now."""
    now = datetime.now(UTC).replace(microsecond=0)
    span = {"from": (now - SPAN).isoformat(), "to": (now + SPAN).isoformat()}
    return f"{aim.collector}/v1/usage?{urlencode(span)}"


def usage(aim: Aim, question: str, fetch: Fetch) -> int:
    """Return how much usage the collector has of the token's customer; raises Failed."""
    answer = fetch(question, {"Authorization": f"Bearer {aim.token}"})
    if answer.status != 200:
        raise Failed(f"the collector answered {answer.status}")
    return total_of(answer.body)


def wait_for_usage(aim: Aim, question: str, before: int, fetch: Fetch) -> None:
    """Wait until the collector has more than `before`; raises Failed where it has not in time."""
    wait_until(
        lambda: usage(aim, question, fetch) > before,
        aim.patience,
        POLL_SECONDS,
        "the request is not in the collector's usage",
    )


def _timed(name: str, make: Callable[[], object]) -> Step:
    began, why = time.monotonic(), None
    try:
        make()
    except Failed as error:
        why = str(error)
    return Step(name, time.monotonic() - began, why)
