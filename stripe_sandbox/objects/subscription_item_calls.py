"""Calls about single items of subscriptions: each is an update of the subscription."""

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import subscription_items, subscriptions
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.objects.subscription_invoices import fetch_items
from stripe_sandbox.transaction import Body, Fields, Transaction

FIELDS = ("discounts", "metadata", "price", "price_data", "quantity", "tax_rates")
"""Parameters of an item itself."""


def create_item(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Add an item to a subscription."""
    fields = {name: value for name, value in params.items() if name in FIELDS}
    require_supported(params, *subscription_items.REFUSED)
    subscription = tx.get("subscription", params["subscription"], "subscription")
    before = {item["id"] for item in fetch_items(tx, subscription)}
    subscriptions.update(tx, {"id": subscription["id"]}, _build_item_update(params, fields))
    return next(item for item in fetch_items(tx, subscription) if item["id"] not in before)


def update_item(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an item."""
    require_supported(params, *subscription_items.REFUSED)
    item = tx.get("subscription_item", ids["id"])
    fields = {name: value for name, value in params.items() if name in FIELDS}
    subscriptions.update(tx, {"id": item["subscription"]}, _build_item_update(params, {**fields, "id": item["id"]}))
    return tx.get("subscription_item", item["id"])


def delete_item(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Remove an item from its subscription."""
    require_supported(params, "clear_usage")
    item = tx.get("subscription_item", ids["id"])
    subscriptions.update(
        tx, {"id": item["subscription"]}, _build_item_update(params, {"id": item["id"], "deleted": True})
    )
    return {"id": item["id"], "object": "subscription_item", "deleted": True}


def _build_item_update(params: Parameters, item: Fields) -> Parameters:
    names = ("payment_behavior", "proration_behavior", "proration_date")
    return {"items": [item], **{name: params[name] for name in names if name in params}}


def list_items(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the items of a subscription."""
    return list_objects(tx, "subscription_item", params, {"subscription": params["subscription"]})
