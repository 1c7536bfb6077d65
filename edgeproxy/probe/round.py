"""A round of the probe: one request through the edge, its usage and charge, and on demand a purchase."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from edgeproxy.probe.fetch import Answer, Fetch, wait_until
from edgeproxy.probe.money import Credits, Session
from edgeproxy.probe.steps import ProbeError, Step, check_answer, check_limits, parse_total

POLL_SECONDS = 0.5
"""Seconds between two requests to the collector."""
SPAN = timedelta(hours=1)
"""Usage is fetched from this time before now until this time after now, because clocks may differ."""


class ProbeTarget(NamedTuple):
    """The target of a probe: URLs, secrets, and the selected steps."""

    url: str
    key: str
    collector: str | None = None
    token: str = ""
    patience: float = 60.0
    """Seconds within which usage must reach the collector, a request be charged and a purchase be booked."""
    ca: str | None = None
    """A file with authorities of https:// URLs, beside the system's."""
    charge: bool = False
    """Check the charge of the request and the books."""
    checkout: bool = False
    """Buy credits."""


def run_round(target: ProbeTarget, fetch: Fetch) -> Iterator[Step]:
    """Run the steps of one round, in order. After a failed step, the steps that depend on it are skipped."""
    answers: list[Answer] = []

    def request() -> None:
        answers.append(fetch(target.url, {"X-API-Key": target.key}))
        check_answer(answers[0].status)

    credits = Credits(target.collector or "", target.token, fetch, target.patience)
    before: dict[str, int] = {}
    usage_url = _build_usage_url(target)
    readings: dict[str, Callable[[], int]] = {}
    if target.collector is not None:
        readings["usage"] = lambda: fetch_usage(target, usage_url, fetch)
    if target.charge:
        readings["charge"] = credits.fetch_available
    yield from _read_before(readings, before)
    buys_first = target.checkout and before.get("charge", 1) <= 0
    if buys_first:  # Only customers who have had credits are charged.
        yield from _purchase(credits)
        yield from _read_before({"charge": credits.fetch_available}, before)
    yield (step := _time_step("request", request))
    if step.why is None:
        yield _time_step("limits", lambda: check_limits(answers[0].fields))
        if "usage" in before:
            yield _time_step("usage", lambda: wait_for_usage(target, usage_url, before["usage"], fetch))
        if "charge" in before:
            yield _time_step("charge", lambda: credits.wait_for_charge(before["charge"]))
    if target.charge:
        yield _time_step("books", credits.check_books)
    if target.checkout and not buys_first:
        yield from _purchase(credits)


def _read_before(readings: Mapping[str, Callable[[], int]], before: dict[str, int]) -> Iterator[Step]:
    """Put readings before the request into `before`; yield the steps whose reading failed."""
    for name, read in readings.items():
        before.pop(name, None)
        try:
            before[name] = read()
        except ProbeError as error:
            yield Step(name, 0.0, str(error))


def _purchase(credits: Credits) -> Iterator[Step]:
    """Run the steps of a purchase; only the first one if a person has to pay."""
    sessions: list[Session] = []
    yield _time_step("checkout", lambda: sessions.append(credits.create_session()))
    if sessions and sessions[0].is_payable:
        yield _time_step("purchase", lambda: credits.pay_session(sessions[0]))


def _build_usage_url(target: ProbeTarget) -> str:
    """Return the URL of the usage around now."""
    now = datetime.now(UTC).replace(microsecond=0)
    span = {"from": (now - SPAN).isoformat(), "to": (now + SPAN).isoformat()}
    return f"{target.collector}/v1/usage?{urlencode(span)}"


def fetch_usage(target: ProbeTarget, usage_url: str, fetch: Fetch) -> int:
    """Return the usage of the token's customer in the collector; raises ProbeError."""
    answer = fetch(usage_url, {"Authorization": f"Bearer {target.token}"})
    if answer.status != 200:
        raise ProbeError(f"the collector answered {answer.status}")
    return parse_total(answer.body)


def wait_for_usage(target: ProbeTarget, usage_url: str, before: int, fetch: Fetch) -> None:
    """Wait until the collector has more usage than `before`; raises ProbeError after `patience`."""
    wait_until(
        lambda: fetch_usage(target, usage_url, fetch) > before,
        target.patience,
        POLL_SECONDS,
        "the request is not in the collector's usage",
    )


def _time_step(name: str, make: Callable[[], object]) -> Step:
    began, why = time.monotonic(), None
    try:
        make()
    except ProbeError as error:
        why = str(error)
    return Step(name, time.monotonic() - began, why)
