"""Events, as they may be read again for a month."""

from edgeproxy.billing.sandbox.delivery import waiting
from edgeproxy.billing.sandbox.lists import Ids, Parameters, listed
from edgeproxy.billing.sandbox.objects.fields import refuse
from edgeproxy.billing.sandbox.refusal import invalid, missing
from edgeproxy.billing.sandbox.transaction import Body, Transaction

KEPT_SECONDS = 30 * 86400
"""How long an event may be read."""


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


def view(tx: Transaction, body: Body) -> Body:
    """With how many are yet to hear of it."""
    return {**body, "pending_webhooks": waiting(tx.account.connection, body["id"])}
