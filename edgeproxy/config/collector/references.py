"""Checks across the parts of a collector.yaml. Those shared with edge.yaml are in config/references.py."""

from collections.abc import Collection, Iterator, Mapping

from pydantic_core import PydanticCustomError

from edgeproxy.config import meter_faults, references, tracing_faults
from edgeproxy.config.check import Kind
from edgeproxy.config.collector import listeners, pages, residencies
from edgeproxy.config.collector.alerts import find_alert_faults
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan, get_plan_name, get_plan_tier
from edgeproxy.config.collector.currency_units import CHARGE_MAX, format_with_code, get_least_charge
from edgeproxy.config.collector.regions import find_measured_faults
from edgeproxy.config.collector.rotation import find_rotation_faults
from edgeproxy.config.collector.settings import CollectorFile, Retention, read_retention
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Table
from edgeproxy.config.units import DAY_SECONDS

ROLES = ("edge", "beacon", "service", "aggregates", "read", "support", "billing", "admin")
A_ROLE = f"write role: {', '.join(ROLES[:-1])} or {ROLES[-1]}, or customer: NAME"


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions between the parts of a collector.yaml."""
    yield from references.find_faults(tree)
    yield from meter_faults.find_faults(tree)
    yield from listeners.find_faults(tree)
    yield from _find_retention_faults(tree)
    yield from _find_residency_faults(tree)
    yield from residencies.find_faults(tree)
    yield from find_measured_faults(tree)
    yield from find_alert_faults(tree)
    yield from pages.find_faults(tree)
    yield from find_rotation_faults(tree)
    yield from tracing_faults.find_faults(tree)
    yield from references.find_token_faults(references.list_members(tree, "tokens"))
    for path, token in references.list_members(tree, "tokens"):
        given = token.get("sha256")
        if isinstance(given, list) and len(given) > 1 and token.get("name") is None:
            yield Fault(
                (*path, "sha256"), "has several secrets, and the token no name", "write name: what edges are bound to"
            )
        if "sensitive" in token and token.get("name") is None:
            yield Fault((*path, "sensitive"), "needs the token's name", "write name: what the audit log calls it")
        if ("role" in token) == ("customer" in token):
            what = "has a role and a customer" if "role" in token else "has neither a role nor a customer"
            yield Fault(path, what, A_ROLE)
        for bound in ("edge", "region"):
            if bound in token and token.get("role") != "edge":
                yield Fault((*path, bound), "binds those who ship usage", "write it beside role: edge, or leave it out")


ADDABLE = ("sum", "average")
"""Aggregates whose value is the sum of their values by dimension."""
PERIOD_SECONDS_MAX = 31 * DAY_SECONDS
METERS_SECONDS = 62 * DAY_SECONDS
"""Minimum retention of minutes with `collection: meters`, in seconds.

They are compared for 60 days (collector/billing/jobs/meter_export.py).
"""


def find_public_usage_faults(written: CollectorFile) -> Iterator[Fault]:
    """Find meters of the status page that do not exist, or do not add up over customers and days."""
    for position, name in enumerate(written.pages.status.usage if written.pages is not None else ()):
        path = ("pages", "status", "usage", position)
        meter = written.meters.get(name)
        if meter is None:
            hint = format_suggestion(name, written.meters, "define it in meters, or name another one")
            yield Fault(path, "is not the name of a meter", hint)
        elif meter.aggregate != "sum" or meter.count == "holdings":
            yield Fault(path, f"is the meter {name}, which does not add up", "name one that counts a sum")


def find_sign_up_faults(written: CollectorFile, plans: Mapping[str, Plan] | None) -> Iterator[Fault]:
    """Find tiers and plans of `sign_up` that do not exist, and plans with costs that do not depend on usage.

    `plans` is None if their file has faults. A collector without tiers leaves the check of tiers to edges.
    """
    sign_up = None if written.pages is None else written.pages.sign_up
    if sign_up is None:
        return
    if written.tiers and sign_up.tier not in written.tiers:
        hint = format_suggestion(sign_up.tier, written.tiers, "define it in tiers, or name another one")
        yield Fault(("pages", "sign_up", "tier"), f"{sign_up.tier} is not the name of a tier", hint)
    path = ("pages", "sign_up", "plan")
    if sign_up.plan is not None and written.billing is None:
        yield Fault(path, "is of no plans", "write billing.plans, or leave it out")
    elif sign_up.plan is not None and plans is not None:
        yield from _find_plan_faults_of_sign_up(path, sign_up.plan, plans)


def _find_plan_faults_of_sign_up(path: tuple[str, ...], name: str, plans: Mapping[str, Plan]) -> Iterator[Fault]:
    versions = [plan for version, plan in plans.items() if get_plan_name(version) == name]
    if not versions:
        hint = format_suggestion(name, {get_plan_name(version) for version in plans}, "name a plan of the file")
        yield Fault(path, f"{name} is not the name of a plan", hint)
    elif any(plan.fee or plan.minimum for plan in versions):
        yield Fault(path, f"{name} has a fee", "name a plan whose fee is 0, or leave it out")


def find_plan_faults(written: CollectorFile, plans: Mapping[str, Plan]) -> Iterator[Fault]:
    """Find plans with unknown tiers or meters, or prices that nothing can add up or charge, and too short retention.

    Invoices need the retained usage. A collector without tiers leaves the check of tiers to edges.
    """
    billing, minutes = written.billing, written.retention.minutes
    assert billing is not None, "it names the plans"
    needed, what = 0.0, "is shorter than invoices need: a month and the freeze after it"
    if billing.mode != "off":
        needed = PERIOD_SECONDS_MAX + billing.freeze
        if billing.collection == "meters":
            needed = METERS_SECONDS
            what = "is shorter than the time for which the ledger is compared with what Stripe was told"
    if minutes is not None and minutes < needed:
        days = -int(-needed // DAY_SECONDS)
        yield Fault(("retention", "minutes"), what, f"keep minutes for {days}day or longer")
    yield from _find_coupon_faults(billing, {get_plan_name(version) for version in plans})
    yield from _find_credit_faults(written, billing)
    for version, plan in plans.items():
        yield from _find_billing_faults(billing, version, plan)
        if billing.collection == "meters" and (reason := plan.find_items_reason()) is not None:
            hint = "write a version without it, take this one out, or write collection: invoice_items"
            yield Fault(
                ("billing", "plans"), f"has {version}, with {reason}, which Stripe's meters cannot charge", hint
            )
        for name, price in plan.meters.items():
            if name not in written.meters and "meters" in written.model_fields_set:
                hint = format_suggestion(name, written.meters, "define it in meters, or name another one in the plan")
                yield Fault(("billing", "plans"), f"has {version}, whose meter {name} is not there", hint)
            meter = written.meters.get(name)
            aggregate = "sum" if meter is None else meter.aggregate
            is_billed = price.price is not None or price.tiers
            if is_billed and aggregate == "sum" and meter is not None and meter.count == "holdings":
                what = f"has {version}, with a price of {name}, which are places that nobody adds up"
                yield Fault(("billing", "plans"), what, f"write aggregate: max or average beside the count of {name}")
            if price.by is not None and aggregate not in ADDABLE:
                by = price.by.dimension
                what = f"has {version}, with prices of {name} by {by}, whose {aggregate} does not add up"
                yield Fault(("billing", "plans"), what, "give it one price, or count a sum")
            if price.by is not None and meter is not None and (by := price.by.dimension) not in meter.dimensions:
                what = f"has {version}, with prices of {name} by {by}, a dimension that {name} does not have"
                add = f"add {by} to meters.{name}.dimensions, here and in the edges' meters"
                yield Fault(("billing", "plans"), what, format_suggestion(by, meter.dimensions, add))
        tier = get_plan_tier(version, plan)
        if written.tiers and tier not in written.tiers:
            hint = format_suggestion(tier, written.tiers, "define it in tiers, or name another one in the plan")
            yield Fault(("billing", "plans"), f"has {version}, whose tier {tier} is not there", hint)


def _find_coupon_faults(billing: Billing, names: Collection[str]) -> Iterator[Fault]:
    """Find plans of coupons that do not exist."""
    for code, coupon in billing.coupons.items():
        for position, name in enumerate(coupon.plans):
            if name not in names:
                hint = format_suggestion(name, names, "name a plan of the file, without its version")
                yield Fault(("billing", "coupons", code, "plans", position), f"{name} is not the name of a plan", hint)


def _find_credit_faults(written: CollectorFile, billing: Billing) -> Iterator[Fault]:
    """Find meters of credits in other currencies that do not exist."""
    for position, foreign in enumerate(() if billing.credits is None else billing.credits.others):
        if foreign.meter not in written.meters and "meters" in written.model_fields_set:
            hint = format_suggestion(foreign.meter, written.meters, "define it in meters, or name another one")
            path = ("billing", "credits", "others", position, "meter")
            yield Fault(path, f"{foreign.meter} is not the name of a meter", hint)


def _find_billing_faults(billing: Billing, version: str, plan: Plan) -> Iterator[Fault]:
    """Find prices in currencies whose minimum charge is unknown, and thresholds that Stripe does not charge."""
    for of_currency in (plan, *plan.others.values()):
        least, threshold, currency = get_least_charge(of_currency.currency), of_currency.threshold, of_currency.currency
        if threshold is not None and not least <= threshold <= CHARGE_MAX:
            what = f"has {version}, whose threshold of {format_with_code(threshold, currency)} cannot be charged"
            bounds = " to ".join(format_with_code(bound, currency) for bound in (least, CHARGE_MAX))
            yield Fault(("billing", "plans"), what, f"write one of {bounds}")
    currencies = (plan.currency, *plan.others) if plan.has_prices else ()
    for currency in currencies if billing.breaker.enabled and billing.mode != "off" else ():
        if currency not in billing.breaker.least:
            codes = ", ".join(f'{code}: "..."' for code in (*billing.breaker.least, currency))
            what = f"has {version}, with prices in {currency}, in which billing.breaker.least has no amount"
            yield Fault(("billing", "plans"), what, f"write least: {{{codes}}}, or breaker: {{enabled: false}}")


def _find_retention_faults(tree: Table) -> Iterator[Fault]:
    """Find hours with a shorter retention than the minutes they are made from."""
    given = tree.get("retention")
    if not isinstance(given, Table):
        return
    try:
        minutes, hours = (
            read_retention(given.get(name, Retention.model_fields[name].default)) for name in ("minutes", "hours")
        )
    except PydanticCustomError:
        return  # This is reported elsewhere.
    if hours is not None and (minutes is None or hours < minutes):
        yield Fault(("retention", "hours"), "is shorter than minutes", "keep hours as long or longer")


def _find_residency_faults(tree: Table) -> Iterator[Fault]:
    """Find a residency that shares customers' names with others: edges of all residencies use these names."""
    privacy = tree.get("privacy")
    pseudonyms = privacy.get("pseudonyms") if isinstance(privacy, Table) else None
    if "residency" in tree and not (isinstance(pseudonyms, str) and references.is_switched_on(pseudonyms)):
        why = "is left by the names of its customers, which edges elsewhere get"
        yield Fault(("residency",), why, "write privacy: {pseudonyms: true}")


KIND = Kind(CollectorFile, find_faults)


def is_collector_file(tree: Table) -> bool:
    """Return whether a file with these sections is a collector.yaml and not an edge.yaml."""
    return bool(tree.keys() & {"database", "tokens", "billing"}) and not tree.keys() & {"upstreams", "routes"}
