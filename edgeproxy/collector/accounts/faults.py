"""What is wrong with the settings of a customer beside others, as `edgeproxy check` would say of a file."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeproxy.config import references
from edgeproxy.config.allowance import COST
from edgeproxy.config.collector import Settings
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.problems import format_path
from edgeproxy.config.tree import Items, Table, Value

Faults = list[tuple[str, str]]
"""The field, and what is wrong with it."""


def of_customer(settings: Mapping[str, Any], known: Settings) -> Faults:
    """Find what cannot be in the settings of a customer; tiers and meters must be among those that are known."""
    found = list(_of_part("customers", settings))
    for name in settings.get("networks") or ():
        if name.endswith("_file"):
            found.append((f"networks.{name}", "names a file, which edges read of their own disk, write the networks"))
    tier = settings.get("tier")
    # A collector need not know tiers: who names none leaves them to the edges.
    if known.tiers and tier not in known.tiers:
        hint = format_suggestion(str(tier), known.tiers, "define it in tiers of collector.yaml")
        found.append(("tier", f"there is no tier {tier}, {hint}"))
    for index, quota in enumerate(settings.get("quotas") or ()):
        if quota["meter"] not in known.meters:
            hint = format_suggestion(quota["meter"], known.meters, "define it in meters of collector.yaml")
            found.append((f"quotas.{index}.meter", f"there is no meter {quota['meter']}, {hint}"))
        elif (known.meters[quota["meter"]].count == "holdings") != (quota.get("per") is None):
            what = (
                "is missing, write day or month" if quota.get("per") is None else "is not of what exists, leave it out"
            )
            found.append((f"quotas.{index}.per", what))
    if caps := settings.get("caps"):
        cost = known.meters.get(COST)
        wrong = references.find_caps_fault(cost is not None, None if cost is None else cost.count, "session" in caps)
        if wrong is not None:
            found.append(("caps", ", ".join(wrong)))
    return found


def of_key(limits: list[dict[str, Any]] | None) -> Faults:
    """Find what cannot be in the limits of a key."""
    return list(_of_part("keys", {"limits": limits}))


def _of_part(section: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tree = Table({section: Table({"it": _tree(settings)})})
    for fault in references.find_faults(tree):
        what = fault.what
        if fault.first is not None:
            what += f" {format_path(fault.first[2:])}"
        yield format_path(fault.path[2:]), f"{what}, {fault.hint}"


def _tree(value: Any) -> Value:
    """Write JSON as files are read: every scalar is text."""
    if isinstance(value, Mapping):
        return Table({name: _tree(one) for name, one in value.items() if one is not None})
    if isinstance(value, list | tuple):
        return Items(_tree(one) for one in value)
    return str(value)
