"""What is wrong with the settings of a customer beside others, as `edgeproxy check` would say of a file."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeproxy.config import references
from edgeproxy.config.allowance import COST
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.problems import format_path
from edgeproxy.config.tree import Items, Table, Value

FieldFaults = list[tuple[str, str]]
"""The field, and what is wrong with it."""


def find_customer_faults(settings: Mapping[str, Any], collector_settings: CollectorSettings) -> FieldFaults:
    """Find what cannot be in the settings of a customer; tiers and meters must be among those that are known."""
    faults = list(_find_section_faults("customers", settings))
    for name in settings.get("networks") or ():
        if name.endswith("_file"):
            faults.append((f"networks.{name}", "names a file, which edges read of their own disk, write the networks"))
    tier = settings.get("tier")
    # A collector need not know tiers: who names none leaves them to the edges.
    if collector_settings.tiers and tier not in collector_settings.tiers:
        hint = format_suggestion(str(tier), collector_settings.tiers, "define it in tiers of collector.yaml")
        faults.append(("tier", f"there is no tier {tier}, {hint}"))
    for index, quota in enumerate(settings.get("quotas") or ()):
        if quota["meter"] not in collector_settings.meters:
            hint = format_suggestion(quota["meter"], collector_settings.meters, "define it in meters of collector.yaml")
            faults.append((f"quotas.{index}.meter", f"there is no meter {quota['meter']}, {hint}"))
        elif (collector_settings.meters[quota["meter"]].count == "holdings") != (quota.get("per") is None):
            what = (
                "is missing, write day or month" if quota.get("per") is None else "is not of what exists, leave it out"
            )
            faults.append((f"quotas.{index}.per", what))
    if caps := settings.get("caps"):
        cost = collector_settings.meters.get(COST)
        caps_fault = references.find_caps_fault(
            cost is not None, None if cost is None else cost.count, "session" in caps
        )
        if caps_fault is not None:
            faults.append(("caps", ", ".join(caps_fault)))
    return faults


def find_key_faults(limits: list[dict[str, Any]] | None) -> FieldFaults:
    """Find what cannot be in the limits of a key."""
    return list(_find_section_faults("keys", {"limits": limits}))


def _find_section_faults(section: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tree = Table({section: Table({"it": _to_tree(settings)})})
    for fault in references.find_faults(tree):
        what = fault.what
        if fault.first is not None:
            what += f" {format_path(fault.first[2:])}"
        yield format_path(fault.path[2:]), f"{what}, {fault.hint}"


def _to_tree(value: Any) -> Value:
    """Write JSON as files are read: every scalar is text."""
    if isinstance(value, Mapping):
        return Table({name: _to_tree(one) for name, one in value.items() if one is not None})
    if isinstance(value, list | tuple):
        return Items(_to_tree(one) for one in value)
    return str(value)
