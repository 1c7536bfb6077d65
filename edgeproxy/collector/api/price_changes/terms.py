"""Comparison of the terms in two versions of a plan. Pure."""

from collections.abc import Iterator, Mapping

from edgeproxy.collector.api.billing.handlers import plan_to_response
from edgeproxy.collector.api.price_changes.models import ChangedTerm
from edgeproxy.config.collector.catalog import Plan

UNCOMPARED = ("version", "plan")
"""Fields of a plan that differ between all versions, or never."""


MONEY = ("fee", "year_fee", "minimum", "threshold", "price")
"""Final names of terms that are amounts. Terms below `prices` are amounts too."""


def compare_terms(before: tuple[str, Plan], after: tuple[str, Plan], *, has_others: bool = True) -> list[ChangedTerm]:
    """Return the differing terms of two versions, each given with its plan, ordered by name.

    `has_others` includes terms in their other currencies.
    """
    old, new = dict(_list_terms(*before)), dict(_list_terms(*after))
    if has_others:
        old, new = old | dict(_list_amounts(*before)), new | dict(_list_amounts(*after))
    return [
        {"term": term, "before": old.get(term), "after": new.get(term)}
        for term in sorted(old.keys() | new.keys())
        if old.get(term) != new.get(term)
    ]


def _list_terms(version: str, plan: Plan) -> Iterator[tuple[str, str]]:
    fields = {name: value for name, value in plan_to_response(version, plan).items() if name not in UNCOMPARED}
    if plan.grace is not None:
        fields["grace"] = {"percent": round(100 * plan.grace.percent, 8), "seconds": plan.grace.for_}
    yield from _flatten("", fields)


def _list_amounts(version: str, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the amounts of a plan in its other currencies, with the code as a prefix."""
    for code, other in plan.others.items():
        for term, value in _list_terms(version, other):
            if term.rpartition(".")[2] in MONEY or ".prices." in term:
                yield f"{code}.{term}", value


def _flatten(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield each value below a path as text. Unlimited units are `unlimited`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(f"{path}.{index}", inner)
    elif value is not None:
        yield path, str(value)
    elif path.endswith((".included", ".up_to")):
        yield path, "unlimited"
