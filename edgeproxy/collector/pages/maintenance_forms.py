"""The console's forms of planned maintenance, shown beside the incidents."""

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Page, Visit

PATH = "/console/maintenance"
WITHOUT_SECONDS = len("2027-01-01T00:00")


def list_forms() -> list[Page]:
    """Return the forms."""
    return [
        Page("POST", PATH, "operator", announce),
        Page("POST", f"{PATH}/{{maintenance}}/updates", "operator", change),
    ]


async def announce(visit: Visit) -> web.Response:
    """Announce maintenance."""
    regions = [name for name in visit.site.settings.status.watched if visit.form.get(f"region-{name}") == "on"]
    body: JsonObject = {"title": visit.read_field("title"), "regions": regions, **read_body(visit)}
    await visit.fetch("POST", "/v1/maintenance", body=body, once=keys.read_idempotency_key(visit))
    return visit.redirect("/console/incidents", done="told")


async def change(visit: Visit) -> web.Response:
    """Change or cancel maintenance."""
    body: JsonObject = {"state": visit.read_field("state"), **read_body(visit)}
    await visit.fetch("POST", "/v1/maintenance/{maintenance}/updates", body=body, once=keys.read_idempotency_key(visit))
    return visit.redirect("/console/incidents", done="told")


def read_body(visit: Visit) -> dict[str, str]:
    """Return the message and the times in a form. Browsers send whole minutes, read as UTC."""
    times = {name: visit.form[name] for name in ("begins_at", "ends_at") if name in visit.form}
    return {
        "message": visit.read_field("message"),
        **{name: f"{time}:00Z" if len(time) == WITHOUT_SECONDS else time for name, time in times.items()},
    }
