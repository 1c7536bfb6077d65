"""The forms that acknowledge, assign and mute alerts, for operators and for customers."""

import re
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.mutes import Side, get_days_max
from edgeproxy.collector.pages.site import Audience, Page, PageError, Visit
from edgeproxy.collector.problems import page_codes

MUTES: dict[str, int] = {"1h": 3600, "1d": 86400, "7d": 7 * 86400, "30d": 30 * 86400}
"""The durations of mutes that a form offers, in seconds."""
ACKNOWLEDGE = "/v1/alerts/{alert}/acknowledge"
TICK = "alert-"
"""Prefix of the names of checkboxes. The value of a checkbox has the numbers of its line's alerts."""
NUMBER = re.compile(r"[1-9][0-9]{0,14}")
NUMBERS_MAX = 200
"""Most alerts that one form acknowledges. A page of the list has fewer."""
HANDLERS = frozenset({"support", "billing", "admin"})
"""The roles that handle alerts."""


class Outcome(NamedTuple):
    """The outcome of acknowledging several alerts: their number, and the numbers of alerts that failed."""

    total: int
    failed: Sequence[str]


def find_choices(visit: Visit) -> dict[str, object]:
    """Return the values for the forms of the alerts page."""
    who = visit.signed_in.who
    return {
        "root": "/console" if who.customer is None else "/account",
        "list_mutes": partial(list_mutes, "operator" if who.customer is None else "customer"),
        "failed": find_failed(visit),
        "may_begin": bool(who.roles & {"support", "admin"}),
        "may_handle": who.customer is not None or bool(who.roles & HANDLERS),
    }


def list_mutes(side: Side, kind: str) -> list[str]:
    """List the durations of mutes that a side may set for a kind of alerts."""
    seconds_max = get_days_max(kind, side) * 86400
    return [name for name, seconds in MUTES.items() if seconds <= seconds_max]


def list_forms(root: str, who: Audience) -> list[Page]:
    """Return the forms about alerts whose paths begin with `root`."""
    own = (("acknowledge", acknowledge_alert), ("assign", assign_alert), ("mute", mute_alert), ("unmute", unmute_alert))
    return [
        Page("POST", f"{root}/alerts/acknowledge", who, acknowledge_alerts),
        *(Page("POST", f"{root}/alerts/{{alert}}/{step}", who, handler) for step, handler in own),
    ]


async def acknowledge_alert(visit: Visit) -> web.Response:
    """Acknowledge an alert, and alerts of lower thresholds for its subject on the line."""
    why = visit.read_field("why").strip()
    number = visit.path_parameter("alert")
    earlier = [other for other in parse_numbers([visit.read_field("earlier")]) if other != number]
    answer = await _take_step(visit, "acknowledge", {"why": why} if why else {}, "acknowledged")
    failed = (await acknowledge_each(visit, earlier, why)).failed
    return _return_to_list(visit, "acknowledged-some", failed) if failed else answer


async def acknowledge_alerts(visit: Visit) -> web.Response:
    """Acknowledge the ticked alerts with all alerts of their lines. The page names the failed ones."""
    ticked = [value for name, value in visit.form.items() if name.startswith(TICK)]
    numbers = parse_numbers(ticked)
    if not numbers:
        raise PageError(page_codes.ALERTS_NOT_TICKED, "tick the alerts to acknowledge")
    outcome = await acknowledge_each(visit, numbers, visit.read_field("why").strip())
    if outcome.failed:
        return _return_to_list(visit, "acknowledged-some", outcome.failed)
    return _return_to_list(visit, "acknowledged" if outcome.total == 1 else "acknowledged-all")


async def acknowledge_each(visit: Visit, numbers: Sequence[str], why: str) -> Outcome:
    """Acknowledge alerts one by one. A failure does not stop the others. Already acknowledged alerts are unchanged."""
    failed = []
    for number in numbers:
        body: JsonObject = {"why": why} if why else {}
        response = await visit.call("POST", ACKNOWLEDGE, names={"alert": number}, body=body)
        if not response.is_success and response.status != 409:
            failed.append(number)
    return Outcome(len(numbers), failed)


def parse_numbers(written: Iterable[str]) -> list[str]:
    """Return the alert numbers in values of a form without duplicates. Raises PageError for invalid numbers."""
    numbers = list(dict.fromkeys(" ".join(written).split()))
    if len(numbers) > NUMBERS_MAX or not all(NUMBER.fullmatch(number) for number in numbers):
        raise PageError(page_codes.FORM_INCOMPLETE, "the form is not whole: open the page again")
    return numbers


def find_failed(visit: Visit) -> list[str]:
    """Return the numbers of the alerts that the previous form could not acknowledge."""
    written = visit.request.query.get("failed", "").split()
    return [number for number in written[:NUMBERS_MAX] if NUMBER.fullmatch(number)]


async def assign_alert(visit: Visit) -> web.Response:
    """Assign an alert to a person. An empty name removes the assignment."""
    return await _take_step(visit, "assign", {"to": visit.read_field("to").strip() or None}, "assigned")


async def mute_alert(visit: Visit) -> web.Response:
    """Mute the kind of an alert for a while."""
    seconds = MUTES.get(visit.read_field("span"))
    if seconds is None:
        raise PageError(page_codes.FORM_INCOMPLETE, "the form is not whole: open the page again")
    until = format_timestamp(round((time.time() + seconds) * 1000))
    return await _take_step(visit, "mute", {"until": until, "why": visit.read_field("why")}, "muted")


async def unmute_alert(visit: Visit) -> web.Response:
    """End a mute."""
    body: JsonObject = {"until": format_timestamp(round(time.time() * 1000)), "why": "ended"}
    return await _take_step(visit, "mute", body, "unmuted")


async def _take_step(visit: Visit, step: str, body: JsonObject, done: str) -> web.Response:
    await visit.fetch("POST", f"/v1/alerts/{{alert}}/{step}", body=body)
    return _return_to_list(visit, done)


def _return_to_list(visit: Visit, done: str, failed: Sequence[str] = ()) -> web.Response:
    root = "/account" if visit.signed_in.who.customer else "/console"
    return visit.redirect(format_return(visit.referring_page, root, done, failed))


def format_return(referrer: str, root: str, done: str, failed: Sequence[str] = ()) -> str:
    """Return the address of the list with the form, including its filters.

    It says which action was done, and the numbers of the alerts with errors.
    """
    page, alerts = urlsplit(referrer), f"{root}/alerts"
    path, query = (page.path, page.query) if page.path in (root, alerts) else (alerts, "")
    filters = {name: value for name, value in parse_qsl(query) if name != "failed"}
    more = {"failed": " ".join(failed)} if failed else {}
    return f"{path}?{urlencode({**filters, **more, 'done': done})}"
