"""Items of subscriptions: added, changed and removed as of a moment."""

from stripe_sandbox.objects import catalog, discounts, subscription_invoices
from stripe_sandbox.objects.fields import merge_metadata, require_supported
from stripe_sandbox.objects.periods import find_item_period
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

ITEMS_MAX = 20
QUANTITIES = 200
"""Changes of quantities of a subscription in an hour."""
REFUSED = ("billing_thresholds", "clear_usage", "current_trial", "plan")


def add_item(tx: Transaction, subscription: Body, params: Fields, param: str, now: int) -> Body:
    """Add an item to a subscription; `param` names it in errors."""
    require_supported(params, *REFUSED)
    price = _get_usable_price(tx, subscription, params["price"], f"{param}[price]")
    existing = fetch_items(tx, subscription)
    if any(item["price"] == price["id"] for item in existing):
        raise invalid_request(f"There is an item with the price {price['id']} already.", f"{param}[price]")
    if len(existing) >= ITEMS_MAX:
        raise invalid_request(f"A subscription can have up to {ITEMS_MAX} items.", "items")
    if is_metered(price) and "quantity" in params:
        raise invalid_request("Quantity should not be specified where usage_type is metered.", f"{param}[quantity]")
    start, end = find_item_period(subscription, price["recurring"], now)
    subscription_item: Body = {
        "id": generate_id("si"),
        "object": "subscription_item",
        "created": now,
        "current_period_end": end,
        "current_period_start": start,
        "discounts": [],
        "price": price["id"],
        "subscription": subscription["id"],
        "tax_rates": [tx.get("tax_rate", id, f"{param}[tax_rates]") for id in params.get("tax_rates") or ()],
        "_usage_from": now,
    }
    if not is_metered(price):
        subscription_item["quantity"] = params.get("quantity", 1)
    merge_metadata(subscription_item, params)
    tx.insert(subscription_item)
    _set_discounts(tx, subscription, subscription_item, params, param)
    return tx.save(subscription_item)


def resolve_price(tx: Transaction, params: Fields, param: str) -> Fields:
    """Return the parameters of an item with a price for its `price_data`, if it has any."""
    if "price_data" not in params:
        if "price" not in params and "id" not in params:
            raise invalid_request(f"Missing required param: {param}[price].", f"{param}[price]", "parameter_missing")
        return params
    if "price" in params:
        raise invalid_request("You may only specify one of these parameters: price, price_data.", f"{param}[price]")
    tx.get("product", params["price_data"]["product"], f"{param}[price_data][product]")
    price = catalog.create_price(tx, {}, {**params["price_data"], "active": False})
    tx.save({**price, "_inline": True})
    return {**{name: value for name, value in params.items() if name != "price_data"}, "price": price["id"]}


def _set_discounts(tx: Transaction, subscription: Fields, item: Body, params: Fields, param: str) -> None:
    now, clock = tx.get_time(subscription["test_clock"]), subscription["test_clock"]
    owner, customer = {"subscription_item": item["id"]}, subscription["customer"]
    redemption = discounts.Redemption(owner, customer, subscription["currency"], now, clock)
    discounts.replace(tx, item, params, f"{param}[discounts]", redemption)


def _get_usable_price(tx: Transaction, subscription: Fields, id: str, param: str) -> Body:
    price = tx.get("price", id, param)
    if price["type"] != "recurring":
        raise invalid_request(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            param,
        )
    if not price["active"] and not price.get("_inline"):
        raise invalid_request("The price specified is inactive. This field only accepts active prices.", param)
    if price["currency"] != subscription.get("currency"):
        raise invalid_request("All prices of a subscription must have one currency.", param)
    return price


def change_item(tx: Transaction, subscription_item: Body, params: Fields, param: str, at: int, behavior: str) -> None:
    """Add, change or remove an item, as of a moment."""
    require_supported(params, *REFUSED)
    if "id" not in params:
        _add_later(tx, subscription_item, params, param, at, behavior)
        return
    item = tx.get("subscription_item", params["id"], f"{param}[id]")
    if item["subscription"] != subscription_item["id"]:
        raise invalid_request(f"The item {item['id']} belongs to another subscription.", f"{param}[id]")
    if params.get("deleted"):
        _prorate_item(tx, subscription_item, item, at, behavior)
        _delete_item(tx, item)
        return
    price = (
        _get_usable_price(tx, subscription_item, params["price"], f"{param}[price]")
        if "price" in params
        else get_price(tx, item)
    )
    quantity = None if is_metered(price) else params.get("quantity", item.get("quantity", 1))
    merge_metadata(item, params)
    _set_discounts(tx, subscription_item, item, params, param)
    if "tax_rates" in params:
        item["tax_rates"] = [tx.get("tax_rate", id, f"{param}[tax_rates]") for id in params["tax_rates"] or ()]
    if (price["id"], quantity) == (item["price"], item.get("quantity")):
        tx.save(item)
        return
    if quantity != item.get("quantity"):
        tx.check_rate("subscription.quantity_changed", subscription_item["id"], QUANTITIES, 3600)
        tx.record_effect("subscription.quantity_changed", subscription_item["id"], item=item["id"], quantity=quantity)
    _prorate_item(tx, subscription_item, item, at, behavior)
    ended = item["current_period_end"] == at
    end = at if ended else find_item_period(subscription_item, price["recurring"], at)[1]
    item.update(price=price["id"], current_period_end=end, _usage_from=at)
    item.pop("quantity", None)
    if quantity is not None:
        item["quantity"] = quantity
        if behavior != "none" and not ended:
            subscription_invoices.charge_remaining(tx, subscription_item, item, at)
    tx.save(item)


def _add_later(tx: Transaction, subscription: Body, params: Fields, param: str, at: int, behavior: str) -> None:
    """Add an item to a subscription that goes on, and charge it for the rest of the period."""
    ended = [item for item in fetch_items(tx, subscription) if item["current_period_end"] == at]
    item = add_item(tx, subscription, params, param, at)
    if ended:  # A phase of a schedule begins with a period, whose fees the renewal that is due charges.
        start = min(other["current_period_start"] for other in ended)
        tx.save({**item, "current_period_start": start, "current_period_end": at})
    elif "quantity" in item and behavior != "none":
        subscription_invoices.charge_remaining(tx, subscription, item, at)


def _delete_item(tx: Transaction, item: Body) -> None:
    """Delete an item with its discounts."""
    tx.delete(item)
    for id in item["discounts"]:
        discounts.remove(tx, discounts.get_discount(tx, id))


def _prorate_item(tx: Transaction, subscription_item: Body, item: Body, at: int, behavior: str) -> None:
    """Charge or credit the open part of an item, unless proration is off."""
    if behavior == "none":
        return
    if is_metered(get_price(tx, item)):
        if not subscription_invoices.is_free(subscription_item, at - 1):
            subscription_invoices.bill_usage(tx, subscription_item, item, at)
    elif item["current_period_end"] > at:
        subscription_invoices.credit_unused(tx, subscription_item, item, at)
