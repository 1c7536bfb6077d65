"""The faults of a customer's settings, as `edgeproxy check` finds them in a file."""

from collections.abc import Iterator, Mapping, Sequence

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.collector.accounts.models import dump_settings
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config import references
from edgeproxy.config.allowance import COST
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer
from edgeproxy.config.field_codes import TIER_UNKNOWN
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.problems import format_path
from edgeproxy.config.tree import Items, Table, Value


def find_customer_faults(customer: Customer, collector_settings: CollectorSettings) -> list[FieldFault]:
    """Return the faults of a customer's settings, given the collector's tiers and meters."""
    settings = dump_settings(customer)
    faults = list(_find_section_faults("customers", settings))
    for name in ("allow_file", "deny_file"):
        if getattr(customer.networks, name, None) is not None:
            why = "names a file, which edges read of their own disk, write the networks"
            faults.append(FieldFault(f"networks.{name}", why))
    tier = customer.tier
    # If a collector has no tiers, only edges know them.
    if collector_settings.tiers and tier not in collector_settings.tiers:
        hint = format_suggestion(tier, collector_settings.tiers, "define it in tiers of collector.yaml")
        faults.append(FieldFault("tier", f"there is no tier {tier}, {hint}", TIER_UNKNOWN))
    for index, quota in enumerate(customer.quotas or ()):
        meter = collector_settings.meters.get(quota.meter)
        if meter is None:
            hint = format_suggestion(quota.meter, collector_settings.meters, "define it in meters of collector.yaml")
            faults.append(FieldFault(f"quotas.{index}.meter", f"there is no meter {quota.meter}, {hint}"))
        elif (meter.count == "holdings" or meter.aggregate in references.FALLING) != (quota.per is None):
            what = "is missing, write day or month" if quota.per is None else "is not of what exists, leave it out"
            faults.append(FieldFault(f"quotas.{index}.per", what))
    if settings.get("caps"):
        cost = collector_settings.meters.get(COST)
        has_session = customer.caps is not None and customer.caps.session is not None
        caps_fault = references.find_caps_fault(cost is not None, None if cost is None else cost.count, has_session)
        if caps_fault is not None:
            faults.append(FieldFault("caps", ", ".join(caps_fault)))
    return faults


def find_key_faults(limits: Sequence[JsonObject]) -> list[FieldFault]:
    """Return the faults of the limits of a key, written as JSON."""
    return list(_find_section_faults("keys", {"limits": limits}))


def _find_section_faults(section: str, settings: JsonObject) -> Iterator[FieldFault]:
    tree = Table({section: Table({"it": _to_tree(settings)})})
    for fault in references.find_faults(tree):
        what = fault.what
        if fault.first is not None:
            what += f" {format_path(fault.first[2:])}"
        yield FieldFault(format_path(fault.path[2:]), f"{what}, {fault.hint}")


def _to_tree(value: JsonValue) -> Value:
    """Return JSON as the tree of a file. Every scalar is text."""
    if isinstance(value, Mapping):
        return Table({name: _to_tree(member) for name, member in value.items() if member is not None})
    if isinstance(value, list | tuple):
        return Items(map(_to_tree, value))
    return str(value)
