"""Events, which may be read for a month."""

import base64
import json
from datetime import UTC, datetime

from stripe_sandbox.delivery import count_pending
from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.refusal import invalid_request, no_such_object
from stripe_sandbox.transaction import Body, Transaction, format_timestamp

RETENTION_SECONDS = 30 * 86400
"""Seconds for which an event may be read."""
THIN_LIMIT, TYPES_MAX = 20, 20


def retrieve(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return an event of the last 30 days."""
    event = tx.get("event", ids["id"])
    if event["created"] <= tx.now - RETENTION_SECONDS:
        raise no_such_object("event", ids["id"])
    return event


def list_events(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List events of the last 30 days, also by type or success of their delivery."""
    require_supported(params, "related_object")
    if "type" in params and "types" in params:
        raise invalid_request("You may only specify one of these parameters: type, types.", "type")
    where, values = "json_extract(body, '$.created') > ?", [tx.now - RETENTION_SECONDS]
    fields = {"created": params["created"]} if "created" in params else {}
    if "types" in params:
        fields["type"] = params["types"]
    elif "type" in params:
        where += " AND json_extract(body, '$.type') GLOB ?"
        values.append(params["type"])
    if "delivery_success" in params:
        failed = "EXISTS (SELECT 1 FROM deliveries WHERE event = objects.id AND state <> 'delivered')"
        where += f" AND NOT {failed}" if params["delivery_success"] else f" AND {failed}"
    return list_objects(tx, "event", params, fields, where, *values)


def list_thin(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List thin events of the last 30 days, newest first. The URL of the next page has the parameters of the first."""
    query = _parse_page(params["page"]) if "page" in params else {"limit": THIN_LIMIT, **params}
    if len(query.get("types", ())) > TYPES_MAX:
        raise invalid_request(f"You may specify at most {TYPES_MAX} types.", "types")
    fields: Body = {}
    if "created" in query:
        fields["created"] = {
            name: _parse_moment(moment, f"created[{name}]") for name, moment in query["created"].items()
        }
    if "types" in query:
        fields["type"] = query["types"]
    if "object_id" in query:
        fields["related_object.id"] = query["object_id"]
    recent = "json_extract(body, '$.created') > ?"
    events = list_objects(tx, "v2.core.event", query, fields, recent, format_timestamp(tx.now - RETENTION_SECONDS))
    following = None
    if events["has_more"]:
        onward = json.dumps({**query, "starting_after": events["data"][-1]["id"]}).encode()
        following = f"{events['url']}?page={base64.urlsafe_b64encode(onward).decode()}"
    return {"object": "list", "data": events["data"], "next_page_url": following, "previous_page_url": None}


def _parse_page(token: str) -> Parameters:
    """Parse the parameters of a page, with its position."""
    try:
        query = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        query = None
    if not isinstance(query, dict):
        raise invalid_request("Invalid page: take the whole next_page_url.", "page")
    return query


def _parse_moment(text: str, param: str) -> str:
    """Parse a time as events have it, to the millisecond."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid_request(f"Invalid timestamp: {text}", param) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def view(tx: Transaction, body: Body) -> Body:
    """Return an event with the number of its pending deliveries."""
    return {**body, "pending_webhooks": count_pending(tx.account.connection, body["id"])}
