"""Events, as they may be read again for a month."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from edgeproxy.stripe_sandbox.delivery import waiting
from edgeproxy.stripe_sandbox.lists import Ids, Parameters, listed
from edgeproxy.stripe_sandbox.objects.fields import refuse
from edgeproxy.stripe_sandbox.refusal import invalid, missing
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, stamp

KEPT_SECONDS = 30 * 86400
"""How long an event may be read."""
THIN_LIMIT, TYPES_MAX = 20, 20


def retrieve(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """An event of the last 30 days."""
    found = tx.get("event", ids["id"])
    if found["created"] <= tx.now - KEPT_SECONDS:
        raise missing("event", ids["id"])
    return found


def listing(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Events of the last 30 days; of some types, or whose delivery succeeded or did not."""
    refuse(p, "related_object")
    if "type" in p and "types" in p:
        raise invalid("You may only specify one of these parameters: type, types.", "type")
    where, values = "json_extract(body, '$.created') > ?", [tx.now - KEPT_SECONDS]
    fields = {"created": p["created"]} if "created" in p else {}
    if "types" in p:
        fields["type"] = p["types"]
    elif "type" in p:
        where += " AND json_extract(body, '$.type') GLOB ?"
        values.append(p["type"])
    if "delivery_success" in p:
        failed = "EXISTS (SELECT 1 FROM deliveries WHERE event = objects.id AND state <> 'delivered')"
        where += f" AND NOT {failed}" if p["delivery_success"] else f" AND {failed}"
    return listed(tx, "event", p, fields, where, *values)


def list_thin(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Thin events of the last 30 days, newest first. The address of the next page has in it what was asked for."""
    asked = _page(p["page"]) if "page" in p else {"limit": THIN_LIMIT, **p}
    if len(asked.get("types", ())) > TYPES_MAX:
        raise invalid(f"You may specify at most {TYPES_MAX} types.", "types")
    fields: dict[str, Any] = {}
    if "created" in asked:
        fields["created"] = {name: _moment(said, f"created[{name}]") for name, said in asked["created"].items()}
    if "types" in asked:
        fields["type"] = asked["types"]
    if "object_id" in asked:
        fields["related_object.id"] = asked["object_id"]
    recent = "json_extract(body, '$.created') > ?"
    found = listed(tx, "v2.core.event", asked, fields, recent, stamp(tx.now - KEPT_SECONDS))
    following = None
    if found["has_more"]:
        onward = json.dumps({**asked, "starting_after": found["data"][-1]["id"]}).encode()
        following = f"{found['url']}?page={base64.urlsafe_b64encode(onward).decode()}"
    return {"object": "list", "data": found["data"], "next_page_url": following, "previous_page_url": None}


def _page(token: str) -> Parameters:
    """What was asked for, with where it goes on."""
    try:
        asked = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise invalid("Invalid page: take the whole next_page_url.", "page")
    return asked


def _moment(said: str, param: str) -> str:
    """A moment as events have it, to the millisecond."""
    try:
        moment = datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(f"Invalid timestamp: {said}", param) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def view(tx: Transaction, body: Body) -> Body:
    """With how many are yet to hear of it."""
    return {**body, "pending_webhooks": waiting(tx.account.connection, body["id"])}
