"""Subscription schedules: a subscription that changes by itself, phase by phase."""

from collections.abc import Sequence

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import subscription_cancellation, subscription_renewal
from stripe_sandbox.objects import subscriptions as subscription_calls
from stripe_sandbox.objects.fields import get_customer, merge_metadata, require_supported
from stripe_sandbox.objects.schedule_phases import OTHERS, SETTINGS, build_item, parse_phases
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price
from stripe_sandbox.objects.subscription_state import ENDED
from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

KIND = "subscription_schedule"
OPEN = ("not_started", "active")


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a schedule from phases or from an existing subscription."""
    require_supported(params, "pause_schedules", "customer_account")
    if params.get("billing_mode", {}).get("type") == "classic":
        raise unsupported("the billing mode classic", "billing_mode[type]")
    if "from_subscription" in params:
        return _create_from_subscription(tx, params)
    customer = get_customer(tx, params)
    if not params.get("phases"):
        raise invalid_request("Missing required param: phases.", "phases", "parameter_missing")
    now = tx.get_time(customer.get("test_clock"))
    start = params.get("start_date", "now")
    start = now if start == "now" else start
    _check_start(start, now, "start_date")
    schedule = _build(tx, customer["id"], customer.get("test_clock"), now)
    _set_parameters(schedule, params)
    schedule["phases"] = parse_phases(tx, params["phases"], start)
    tx.insert(schedule)
    tx.record_event("subscription_schedule.created", schedule)
    if start > now:
        tx.set_timer(start, "advance_schedule", schedule["id"], schedule["test_clock"])
        return schedule
    return _start(tx, schedule)


def _check_start(start: int, now: int, param: str) -> None:
    if start < now:
        raise unsupported("a start_date in the past", param)


def _build(tx: Transaction, customer: str, clock: str | None, now: int) -> Body:
    return {
        "id": generate_id("sub_sched"),
        "object": KIND,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": now},
        "created": now,
        "customer": customer,
        "default_settings": {
            "automatic_tax": {"enabled": False},
            "billing_cycle_anchor": "automatic",
            "collection_method": "charge_automatically",
            "invoice_settings": {"issuer": {"type": "self"}},
        },
        "end_behavior": "release",
        "livemode": tx.live,
        "metadata": {},
        "pause_schedules": [],
        "phases": [],
        "status": "not_started",
        "test_clock": clock,
        "_phase": 0,
    }


def _create_from_subscription(tx: Transaction, params: Parameters) -> Body:
    """Create a schedule with one phase: the current period of a subscription."""
    for name in ("customer", "default_settings", "end_behavior", "phases", "start_date"):
        if name in params:
            raise invalid_request(f"You cannot set `{name}` if `from_subscription` is set.", name)
    subscription = _get_unscheduled(tx, params["from_subscription"])
    now = tx.get_time(subscription["test_clock"])
    schedule = _build(tx, subscription["customer"], subscription["test_clock"], now)
    merge_metadata(schedule, params)
    schedule["default_settings"].update(
        automatic_tax={"enabled": subscription["automatic_tax"]["enabled"]},
        collection_method=subscription["collection_method"],
        default_payment_method=subscription.get("default_payment_method"),
        description=subscription.get("description"),
    )
    schedule["default_settings"]["invoice_settings"]["days_until_due"] = subscription.get("days_until_due")
    items = fetch_items(tx, subscription)
    schedule["phases"] = [
        {
            "add_invoice_items": [],
            "currency": subscription["currency"],
            "discounts": [{"discount": id} for id in subscription["discounts"]],
            "end_date": max(item["current_period_end"] for item in items),
            "items": [build_item(item["price"], item) for item in items],
            "metadata": {},
            "proration_behavior": "create_prorations",
            "start_date": min(item["current_period_start"] for item in items),
            "trial_end": subscription.get("trial_end") if subscription["status"] == "trialing" else None,
        }
    ]
    schedule.update(status="active", subscription=subscription["id"])
    tx.insert(schedule)
    tx.save({**subscription, "schedule": schedule["id"]})
    tx.record_event("subscription_schedule.created", schedule)
    _schedule_next(tx, schedule)
    return schedule


def _get_unscheduled(tx: Transaction, id: str) -> Body:
    """Return a subscription that has not ended and has no schedule."""
    subscription = tx.get("subscription", id, "from_subscription")
    if subscription["status"] in (*ENDED, "incomplete"):
        raise invalid_request(
            f"You cannot migrate a subscription that is {subscription['status']}.", "from_subscription"
        )
    if subscription.get("schedule"):
        raise invalid_request(
            f"You cannot migrate a subscription that is already attached to a schedule: {subscription['id']}.",
            "from_subscription",
        )
    return subscription


def _set_parameters(schedule: Body, params: Parameters) -> None:
    if params.get("end_behavior") in ("none", "renew"):
        raise unsupported("this end_behavior", "end_behavior")
    schedule["end_behavior"] = params.get("end_behavior", schedule["end_behavior"])
    merge_metadata(schedule, params)
    settings = params.get("default_settings", {})
    require_supported(settings, *OTHERS)
    schedule["default_settings"].update({name: settings[name] or None for name in SETTINGS if name in settings})
    schedule["default_settings"]["invoice_settings"].update(settings.get("invoice_settings", {}))


# ---- as time passes


def due_to_advance(tx: Transaction, id: str) -> None:
    """Begin a schedule, or its next phase. After the last phase its subscription continues without it."""
    schedule = tx.find(KIND, id)
    if schedule is None or schedule["status"] not in OPEN:
        return
    if schedule["status"] == "not_started":
        _start(tx, schedule)
    elif schedule["_phase"] + 1 < len(schedule["phases"]):
        schedule["_phase"] += 1
        _enter(tx, schedule, _get_phase(schedule)["proration_behavior"])
        tx.record_event("subscription_schedule.updated", schedule)
    else:
        _release(tx, schedule, preserve_cancel_date=False)


def _get_phase(schedule: Fields) -> Body:
    phase: Body = schedule["phases"][schedule["_phase"]]
    return phase


def _start(tx: Transaction, schedule: Body) -> Body:
    """Begin a schedule with a new subscription, whose first invoice is finalized in an hour."""
    phase = _get_phase(schedule)
    items = [{"price": item["price"], **_list_fields(item)} for item in phase["items"]]
    request = {"customer": schedule["customer"], "items": items, **_list_settings(schedule, phase)}
    subscription = subscription_calls.create(tx, {}, request, schedule["id"])
    schedule.update(status="active", subscription=subscription["id"])
    tx.save(schedule)
    tx.record_event("subscription_schedule.updated", schedule, {"status": "not_started", "subscription": None})
    _schedule_next(tx, schedule)
    return schedule


def _enter(tx: Transaction, schedule: Body, behavior: str) -> None:
    """Change the subscription to the current phase. If it begins with a period, the renewal charges its fees."""
    phase, subscription = _get_phase(schedule), tx.get("subscription", schedule["subscription"])
    at, items = tx.get_time(schedule["test_clock"]), fetch_items(tx, subscription)
    anchor = phase.get("billing_cycle_anchor") or schedule["default_settings"]["billing_cycle_anchor"]
    change: Body = {**_list_settings(schedule, phase), "proration_behavior": behavior}
    change["items"] = _list_changes(phase, items)
    prices = [tx.get("price", item["price"]) for item in phase["items"]]
    if anchor == "phase_start" or _list_intervals(prices) != _list_intervals([get_price(tx, item) for item in items]):
        if all(item["current_period_end"] == at for item in items):
            tx.save({**subscription, "billing_cycle_anchor": at})
        else:
            change["billing_cycle_anchor"] = {"type": "now"}
    subscription_calls.update(tx, {"id": subscription["id"]}, change)
    tx.save(schedule)
    _schedule_next(tx, schedule)


def _list_intervals(prices: Sequence[Fields]) -> set[tuple[str, int]]:
    return {(price["recurring"]["interval"], price["recurring"]["interval_count"]) for price in prices}


def _list_changes(phase: Fields, items: Sequence[Fields]) -> list[Body]:
    """Return the changes of items: items with a price of the phase stay, the others are removed."""
    there = {item["price"]: item["id"] for item in items}
    changes = []
    for item in phase["items"]:
        id = there.pop(item["price"], None)
        changes.append({**({"price": item["price"]} if id is None else {"id": id}), **_list_fields(item)})
    return [*changes, *({"id": id, "deleted": True} for id in there.values())]


def _list_fields(item: Fields) -> Body:
    return {name: item[name] for name in ("discounts", "metadata", "quantity") if item.get(name)}


def _list_settings(schedule: Fields, phase: Fields) -> Body:
    """Return the parameters of a subscription in a phase."""
    settings = {name: phase.get(name) or schedule["default_settings"].get(name) for name in SETTINGS}
    settings.pop("billing_cycle_anchor")
    invoice_settings = phase.get("invoice_settings") or schedule["default_settings"]["invoice_settings"]
    settings["days_until_due"] = invoice_settings.get("days_until_due")
    added = [{name: entry[name] for name in entry if name != "period"} for entry in phase["add_invoice_items"]]
    settings.update(add_invoice_items=added, metadata=phase["metadata"], trial_end=phase["trial_end"])
    return {**{name: value for name, value in settings.items() if value}, "discounts": phase["discounts"] or ""}


def _schedule_next(tx: Transaction, schedule: Body) -> None:
    """Set the timers of the next phase, which runs before a renewal at that time, and of the subscription's end."""
    tx.cancel_timer("advance_schedule", schedule["id"])
    subscription = tx.get("subscription", schedule["subscription"])
    ends = schedule["end_behavior"] == "cancel"
    if not ends or schedule["_phase"] + 1 < len(schedule["phases"]):
        end = _get_phase(schedule)["end_date"]
        tx.set_timer(end, "advance_schedule", schedule["id"], schedule["test_clock"])
    tx.save({**subscription, "cancel_at": schedule["phases"][-1]["end_date"] if ends else None})
    subscription_renewal.schedule_renewal(tx, tx.get("subscription", subscription["id"]))


# ---- calls


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a schedule. Its phases are replaced; changes of the current phase apply at once."""
    require_supported(params, "pause_schedules")
    schedule = _get_open(tx, ids["id"], "update", "updated")
    _set_parameters(schedule, params)
    now, changed = tx.get_time(schedule["test_clock"]), False
    if "phases" in params:
        changed = _replace_phases(tx, schedule, params["phases"], now)
    tx.save(schedule)
    if schedule["status"] == "not_started":
        tx.cancel_timer("advance_schedule", schedule["id"])
        tx.set_timer(schedule["phases"][0]["start_date"], "advance_schedule", schedule["id"], schedule["test_clock"])
    elif changed:
        _enter(tx, schedule, params.get("proration_behavior", "create_prorations"))
    else:
        _schedule_next(tx, schedule)
    tx.record_event("subscription_schedule.updated", schedule)
    return schedule


def _replace_phases(tx: Transaction, schedule: Body, phases: Sequence[Fields], now: int) -> bool:
    """Replace the phases; return whether the current phase has changed."""
    start = phases[0].get("start_date") if phases else None
    if start is None:
        raise invalid_request("The first phase must have a start_date.", "phases[0][start_date]", "parameter_missing")
    parsed = parse_phases(tx, phases, now if start == "now" else start)
    if schedule["status"] == "not_started":
        _check_start(parsed[0]["start_date"], now, "phases[0][start_date]")
        schedule["phases"] = parsed
        return False
    before = _get_phase(schedule)
    current = [place for place, phase in enumerate(parsed) if phase["start_date"] <= now < phase["end_date"]]
    if not current:
        raise invalid_request("The phases must include the current one.", "phases")
    phase = parsed[current[0]]
    if phase["start_date"] not in (before["start_date"], now):
        raise invalid_request("You can not modify the start date of the current phase.", "phases[0][start_date]")
    schedule.update(phases=parsed, _phase=current[0])
    return {**phase, "end_date": before["end_date"]} != before


def _get_open(tx: Transaction, id: str, verb: str, done: str) -> Body:
    schedule = tx.get(KIND, id)
    if schedule["status"] not in OPEN:
        raise invalid_request(
            f"You cannot {verb} a subscription schedule that is currently in the `{schedule['status']}` status. It "
            f"must be in `not_started`, `active` status to be {done}."
        )
    return schedule


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel a schedule with its subscription."""
    schedule = _get_open(tx, ids["id"], "cancel", "canceled")
    if schedule["status"] == "active":
        prorate, invoice_now = params.get("prorate", True), params.get("invoice_now", True)
        subscription = tx.get("subscription", schedule["subscription"])
        subscription_cancellation.end_now(tx, subscription, invoice_now=invoice_now, prorate=prorate)
        return tx.get(KIND, schedule["id"])
    schedule.update(status="canceled", canceled_at=tx.get_time(schedule["test_clock"]))
    tx.cancel_timer("advance_schedule", schedule["id"])
    tx.save(schedule)
    tx.record_event("subscription_schedule.canceled", schedule)
    return schedule


def release(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Release the subscription of a schedule, which continues unchanged."""
    schedule = _get_open(tx, ids["id"], "release", "released")
    return _release(tx, schedule, preserve_cancel_date=params.get("preserve_cancel_date", False))


def _release(tx: Transaction, schedule: Body, *, preserve_cancel_date: bool) -> Body:
    id = schedule.get("subscription")
    now = tx.get_time(schedule["test_clock"])
    schedule.update(status="released", released_at=now, released_subscription=id, subscription=None)
    tx.cancel_timer("advance_schedule", schedule["id"])
    tx.save(schedule)
    if id is not None:
        subscription = tx.get("subscription", id)
        subscription["schedule"] = None
        if not preserve_cancel_date:
            subscription["cancel_at"] = None
        tx.save(subscription)
        subscription_renewal.schedule_renewal(tx, subscription)
    tx.record_event("subscription_schedule.released", schedule)
    return schedule


def list_schedules(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List schedules."""
    require_supported(params, "customer_account")
    names = ("canceled_at", "completed_at", "created", "customer", "released_at")
    fields = {name: params[name] for name in names if name in params}
    if params.get("scheduled"):
        fields["status"] = "not_started"
    return list_objects(tx, KIND, params, fields)


def view(tx: Transaction, body: Body) -> Body:
    """Return a schedule with its current phase."""
    if body["status"] != "active":
        return body
    phase = _get_phase(body)
    return {**body, "current_phase": {"start_date": phase["start_date"], "end_date": phase["end_date"]}}
