"""The forms that acknowledge, assign and mute alerts, for operators and for customers."""

import time
from functools import partial
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.alerts.mutes import Side, get_days_max
from edgeproxy.collector.pages.site import Audience, Page, PageError, Visit

MUTES: dict[str, int] = {"1h": 3600, "1d": 86400, "7d": 7 * 86400, "30d": 30 * 86400}
"""The times for which a form mutes a kind, in seconds."""
HANDLERS = frozenset({"support", "billing", "admin"})
"""The roles that handle alerts."""


def find_choices(visit: Visit) -> dict[str, object]:
    """Return what the page of alerts has for its forms."""
    who = visit.signed_in.who
    return {
        "root": "/console" if who.customer is None else "/account",
        "list_mutes": partial(list_mutes, "operator" if who.customer is None else "customer"),
        "may_begin": bool(who.roles & {"support", "admin"}),
        "may_handle": who.customer is not None or bool(who.roles & HANDLERS),
    }


def list_mutes(side: Side, kind: str) -> list[str]:
    """List the times for which a side may mute a kind of alerts."""
    seconds_max = get_days_max(AlertKind(kind), side) * 86400
    return [name for name, seconds in MUTES.items() if seconds <= seconds_max]


def list_forms(root: str, who: Audience) -> list[Page]:
    """Return the forms about alerts whose paths begin with `root`."""
    own = (("acknowledge", acknowledge_alert), ("assign", assign_alert), ("mute", mute_alert), ("unmute", unmute_alert))
    return [Page("POST", f"{root}/alerts/{{alert}}/{step}", who, handler) for step, handler in own]


async def acknowledge_alert(visit: Visit) -> web.Response:
    """Acknowledge an alert."""
    why = visit.form.get("why", "").strip()
    return await _take_step(visit, "acknowledge", {"why": why} if why else {}, "acknowledged")


async def assign_alert(visit: Visit) -> web.Response:
    """Give an alert to somebody; an empty name gives it to nobody."""
    return await _take_step(visit, "assign", {"to": visit.form.get("to", "").strip() or None}, "assigned")


async def mute_alert(visit: Visit) -> web.Response:
    """Mute the kind of an alert for a while."""
    seconds = MUTES.get(visit.form.get("span", ""))
    if seconds is None:
        raise PageError(422, "the form is not whole: open the page again")
    until = format_timestamp(round((time.time() + seconds) * 1000))
    return await _take_step(visit, "mute", {"until": until, "why": visit.form.get("why", "")}, "muted")


async def unmute_alert(visit: Visit) -> web.Response:
    """End a mute."""
    body: JsonObject = {"until": format_timestamp(round(time.time() * 1000)), "why": "ended"}
    return await _take_step(visit, "mute", body, "unmuted")


async def _take_step(visit: Visit, step: str, body: JsonObject, done: str) -> web.Response:
    names = {"alert": visit.path_parameter("alert")}
    await visit.fetch("POST", f"/v1/alerts/{{alert}}/{step}", names=names, body=body)
    root = "/account" if visit.signed_in.who.customer else "/console"
    return visit.redirect(format_return(visit.referring_page, root, done))


def format_return(referrer: str, root: str, done: str) -> str:
    """Return the address of the list that a form about an alert was on, with its filters, which says what was done."""
    page, alerts = urlsplit(referrer), f"{root}/alerts"
    path, query = (page.path, page.query) if page.path in (root, alerts) else (alerts, "")
    return f"{path}?{urlencode({**dict(parse_qsl(query)), 'done': done})}"
