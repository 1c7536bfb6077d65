"""Phases of subscription schedules, as calls describe them."""

from collections.abc import Sequence

from stripe_sandbox.objects import subscription_items
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.objects.periods import shift_by_intervals
from stripe_sandbox.objects.subscription_invoices import is_metered
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

SETTINGS = ("automatic_tax", "billing_cycle_anchor", "collection_method", "default_payment_method", "description")
"""Settings of a phase, or of all that have none of their own."""
TIME_MAX = 4_102_444_800
"""The first moment that is too late for a phase: the year 2100."""
INTERVALS_MAX = 1095
OTHERS = ("application_fee_percent", "billing_thresholds", "default_tax_rates")


def parse_phases(tx: Transaction, phases: Sequence[Fields], start: int) -> list[Body]:
    """Parse phases, each of which begins where the one before it ends."""
    parsed: list[Body] = []
    for place, phase in enumerate(phases):
        param = f"phases[{place}]"
        if place and phase.get("start_date", start) != start:
            raise invalid_request("A phase begins at the end_date of the one before it.", f"{param}[start_date]")
        parsed.append(_parse_phase(tx, phase, start, param))
        start = parsed[-1]["end_date"]
    return parsed


def _parse_phase(tx: Transaction, phase: Fields, start: int, param: str) -> Body:
    require_supported(phase, *OTHERS)
    if not phase["items"]:
        raise invalid_request("A phase needs an item.", f"{param}[items]", "parameter_missing")
    items = [_parse_item(tx, item, f"{param}[items][{number}]") for number, item in enumerate(phase["items"])]
    price = tx.get("price", items[0]["price"])
    end = _parse_end(tx, phase, start, price["recurring"], param)
    trial_end = end if phase.get("trial") else phase.get("trial_end")
    if trial_end is not None and not (isinstance(trial_end, int) and start < trial_end <= end):
        raise invalid_request("The trial_end must be within the phase.", f"{param}[trial_end]")
    for number, discount in enumerate(phase.get("discounts") or ()):
        if "coupon" in discount:
            tx.get("coupon", discount["coupon"], f"{param}[discounts][{number}][coupon]")
    return {
        **{name: phase[name] or None for name in (*SETTINGS, "invoice_settings") if name in phase},
        "add_invoice_items": [_parse_added(entry) for entry in phase.get("add_invoice_items", ())],
        "currency": price["currency"],
        "discounts": list(phase.get("discounts") or ()),
        "end_date": end,
        "items": items,
        "metadata": dict(phase.get("metadata") or {}),
        "proration_behavior": phase.get("proration_behavior", "create_prorations"),
        "start_date": start,
        "trial_end": trial_end,
    }


def _parse_item(tx: Transaction, item: Fields, param: str) -> Body:
    require_supported(item, "billing_thresholds", "plan", "tax_rates")
    item = subscription_items.resolve_price(tx, item, param)
    price = tx.get("price", item["price"], f"{param}[price]")
    if price["type"] != "recurring":
        raise invalid_request("A phase takes prices with `type=recurring` alone.", f"{param}[price]")
    if is_metered(price) and "quantity" in item:
        raise invalid_request("Quantity should not be specified where usage_type is metered.", f"{param}[quantity]")
    return build_item(price["id"], item if is_metered(price) else {"quantity": 1, **item})


def build_item(price: str, item: Fields) -> Body:
    discounts = [{"discount": each} if isinstance(each, str) else each for each in item.get("discounts") or ()]
    body = {"price": price, "plan": price, "discounts": discounts, "metadata": dict(item.get("metadata") or {})}
    return {**body, "tax_rates": [], **({"quantity": item["quantity"]} if "quantity" in item else {})}


def _parse_end(tx: Transaction, phase: Fields, start: int, recurring: Fields, param: str) -> int:
    """Parse the end of a phase: by default after an interval of its first price."""
    end = phase.get("end_date")
    if end is not None and "duration" in phase:
        raise invalid_request("You may only specify one of these parameters: end_date, duration.", f"{param}[duration]")
    if end is None:
        duration = phase.get("duration", recurring)
        count = duration.get("interval_count", 1)
        if not 1 <= count <= INTERVALS_MAX or not 0 <= start < TIME_MAX:
            raise invalid_request("A phase cannot last so long.", f"{param}[duration]")
        end = shift_by_intervals(start, duration["interval"], count)
    end = tx.now if end == "now" else end
    if not start < end < TIME_MAX:
        raise invalid_request("The end_date of a phase must be after its start_date, by 2100.", f"{param}[end_date]")
    return int(end)


def _parse_added(entry: Fields) -> Body:
    require_supported(entry, "period", "price_data", "tax_rates")
    return {"discounts": [], **entry, "period": {"start": {"type": "phase_start"}, "end": {"type": "phase_end"}}}
