"""Products, prices and tax rates."""

from stripe_sandbox.amounts import format_unit_amounts
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

LOOKUP_KEYS_MAX = 10
"""Maximum lookup keys in a price query."""
PRODUCT = ("description", "images", "marketing_features", "package_dimensions", "shippable", "statement_descriptor")


# ---- products


def create_product(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a product."""
    if "id" in params and tx.find("product", params["id"]) is not None:
        raise invalid_request(f"Product already exists: {params['id']}", "id", "resource_already_exists")
    product: Body = {
        "id": params.get("id") or generate_id("prod"),
        "object": "product",
        "active": params.get("active", True),
        "created": tx.now,
        "images": [],
        "livemode": tx.live,
        "marketing_features": [],
        "name": params["name"],
        "type": params.get("type", "service"),
        "updated": tx.now,
    }
    set_fields(product, params, *PRODUCT, "tax_code", "tax_details", "unit_label", "url")
    merge_metadata(product, params)
    tx.insert(product)
    if "default_price_data" in params:
        product["default_price"] = create_price(tx, {}, {**params["default_price_data"], "product": product["id"]})[
            "id"
        ]
        tx.save(product)
    tx.record_event("product.created", product)
    return product


def update_product(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a product."""
    product = tx.get("product", ids["id"])
    before = dict(product)
    if params.get("default_price"):
        price = tx.get("price", params["default_price"], "default_price")
        if price["product"] != product["id"]:
            raise invalid_request("The price belongs to another product.", "default_price")
    set_fields(
        product, params, *PRODUCT, "active", "default_price", "name", "tax_code", "tax_details", "unit_label", "url"
    )
    product["images"], product["marketing_features"] = product["images"] or [], product["marketing_features"] or []
    merge_metadata(product, params)
    product["updated"] = tx.now
    tx.save(product)
    tx.record_event("product.updated", product, compute_previous_attributes(before, product))
    return product


def delete_product(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a product without prices."""
    product = tx.get("product", ids["id"])
    if tx.all("price", product=product["id"]):
        raise invalid_request("This product cannot be deleted because it has one or more user-created prices.")
    gone = tx.delete(product)
    tx.record_event("product.deleted", product)
    return gone


# ---- prices


def create_price(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a price. Its amounts never change."""
    require_supported(params, "currency_options", "custom_unit_amount")
    if ("product" in params) == ("product_data" in params):
        raise invalid_request("You must specify either product or product_data.", "product", "parameter_missing")
    if "product" in params:
        product = tx.get("product", params["product"], "product")["id"]
    else:
        product_data = {name: value for name, value in params["product_data"].items() if name != "statement_descriptor"}
        product = create_product(tx, {}, product_data)["id"]
    recurring = params.get("recurring")
    price: Body = {
        "id": generate_id("price"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": params.get("billing_scheme", "per_unit"),
        "created": tx.now,
        "currency": parse_currency(params["currency"]),
        "livemode": tx.live,
        "nickname": params.get("nickname"),
        "product": product,
        "recurring": None if recurring is None else _build_recurring(tx, recurring),
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "transform_quantity": params.get("transform_quantity"),
        "type": "one_time" if recurring is None else "recurring",
    }
    _amounts(price, params)
    merge_metadata(price, params)
    _look_up(tx, price, params)
    tx.insert(price)
    tx.record_event("price.created", price)
    return price


def _build_recurring(tx: Transaction, recurring: Fields) -> Body:
    usage, count = recurring.get("usage_type", "licensed"), recurring.get("interval_count", 1)
    if not 1 <= count <= {"day": 1095, "week": 156, "month": 36, "year": 3}[recurring["interval"]]:
        raise invalid_request("The interval may be at most three years.", "recurring[interval_count]")
    if usage == "metered":
        if "meter" not in recurring:
            raise invalid_request("Metered prices must be backed by a meter.", "recurring[meter]", "parameter_missing")
        if tx.get("billing.meter", recurring["meter"], "recurring[meter]")["status"] != "active":
            raise invalid_request("The meter is not active.", "recurring[meter]")
    elif "meter" in recurring:
        raise invalid_request("Only metered prices have a meter.", "recurring[meter]")
    return {
        "interval": recurring["interval"],
        "interval_count": count,
        "meter": recurring.get("meter"),
        "trial_period_days": recurring.get("trial_period_days"),
        "usage_type": usage,
    }


def describe_plan(price: Fields) -> Body:
    """Return a recurring price as the plan that it was called before."""
    same = ("id", "active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname", "product")
    transform = price.get("transform_quantity")
    return {
        "object": "plan",
        **{name: price.get(name) for name in (*same, "tiers_mode")},
        **price["recurring"],
        "amount": price.get("unit_amount"),
        "amount_decimal": price.get("unit_amount_decimal"),
        "transform_usage": transform,
    }


def _amounts(price: Body, params: Parameters) -> None:
    if price["billing_scheme"] == "per_unit":
        for name in ("tiers", "tiers_mode"):
            if name in params:
                raise invalid_request(f"{name} may only be set if billing_scheme is tiered.", name)
        if ("unit_amount" in params) == ("unit_amount_decimal" in params):
            raise invalid_request("You must specify either unit_amount or unit_amount_decimal.", "unit_amount")
        price["unit_amount"], price["unit_amount_decimal"] = format_unit_amounts(params)
        if price["unit_amount_decimal"].startswith("-"):
            raise invalid_request("Invalid non-negative integer", "unit_amount", "parameter_invalid_integer")
        return
    for name in ("unit_amount", "unit_amount_decimal", "transform_quantity"):
        if name in params:
            raise invalid_request(f"{name} may not be set if billing_scheme is tiered.", name)
    if "tiers_mode" not in params or not params.get("tiers"):
        raise invalid_request("Tiered prices need tiers and a tiers_mode.", "tiers", "parameter_missing")
    price["tiers_mode"], price["tiers"] = params["tiers_mode"], [_build_tier(tier) for tier in params["tiers"]]
    tops = [tier["up_to"] for tier in price["tiers"]]
    if tops[-1] is not None or None in tops[:-1]:
        raise invalid_request("The last tier, and no other, must have up_to=inf.", "tiers")
    if any(top < 1 for top in tops[:-1]) or sorted(set(tops[:-1])) != tops[:-1]:
        raise invalid_request("The tiers must be in ascending order of up_to.", "tiers")


def _build_tier(tier: Fields) -> Body:
    unit, unit_decimal = format_unit_amounts(tier)
    flat, flat_decimal = format_unit_amounts(
        {name.replace("flat", "unit"): value for name, value in tier.items() if name.startswith("flat")}
    )
    if unit_decimal is None and flat_decimal is None:
        raise invalid_request("Each tier needs a unit_amount or a flat_amount.", "tiers")
    return {
        "flat_amount": flat,
        "flat_amount_decimal": flat_decimal,
        "unit_amount": unit,
        "unit_amount_decimal": unit_decimal,
        "up_to": None if tier["up_to"] == "inf" else tier["up_to"],
    }


def _look_up(tx: Transaction, price: Body, params: Parameters) -> None:
    if "lookup_key" not in params:
        return
    key = params["lookup_key"] or None
    for other in tx.all("price", lookup_key=key) if key else ():
        if other["id"] == price["id"]:
            continue
        if not params.get("transfer_lookup_key"):
            raise invalid_request(f"A price (`{other['id']}`) already uses that lookup key.", "lookup_key")
        other["lookup_key"] = None
        tx.save(other)
        tx.record_event("price.updated", other, {"lookup_key": key})
    price["lookup_key"] = key


def update_price(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update the names of a price, or whether it is sold."""
    require_supported(params, "currency_options")
    price = tx.get("price", ids["id"])
    before = dict(price)
    if "tax_behavior" in params and price["tax_behavior"] not in ("unspecified", params["tax_behavior"]):
        raise invalid_request("The tax_behavior of a price cannot be changed once it is set.", "tax_behavior")
    set_fields(price, params, "active", "nickname", "tax_behavior")
    merge_metadata(price, params)
    _look_up(tx, price, params)
    tx.save(price)
    tx.record_event("price.updated", price, compute_previous_attributes(before, price))
    return price


def list_prices(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List prices, also by up to ten lookup keys."""
    if len(params.get("lookup_keys", ())) > LOOKUP_KEYS_MAX:
        raise invalid_request(f"You can look up at most {LOOKUP_KEYS_MAX} keys at once.", "lookup_keys")
    named = {"active": "active", "created": "created", "currency": "currency", "product": "product", "type": "type"}
    fields = {named[name]: value for name, value in params.items() if name in named}
    if "lookup_keys" in params:
        fields["lookup_key"] = params["lookup_keys"]
    for name, value in params.get("recurring", {}).items():
        fields[f"recurring.{name}"] = value
    return list_objects(tx, "price", params, fields)


def view_price(tx: Transaction, body: Body) -> Body:
    """Return a price without its tiers, which are answered only when expanded."""
    return {name: value for name, value in body.items() if name != "tiers"}


def list_tiers(tx: Transaction, price: Body) -> JsonValue:
    """Return the tiers of a price."""
    return tx.get("price", price["id"]).get("tiers")


# ---- rates of tax


def create_tax_rate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a tax rate."""
    rate: Body = {
        "id": generate_id("txr"),
        "object": "tax_rate",
        "active": params.get("active", True),
        "created": tx.now,
        "display_name": params["display_name"],
        "effective_percentage": params["percentage"],
        "inclusive": params["inclusive"],
        "livemode": tx.live,
        "percentage": params["percentage"],
        "rate_type": "percentage",
    }
    set_fields(rate, params, "country", "description", "jurisdiction", "state", "tax_type")
    merge_metadata(rate, params)
    tx.insert(rate)
    tx.record_event("tax_rate.created", rate)
    return rate


def update_tax_rate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a tax rate's names, or whether it is used."""
    rate = tx.get("tax_rate", ids["id"])
    before = dict(rate)
    set_fields(rate, params, "active", "country", "description", "display_name", "jurisdiction", "state", "tax_type")
    merge_metadata(rate, params)
    tx.save(rate)
    tx.record_event("tax_rate.updated", rate, compute_previous_attributes(before, rate))
    return rate
