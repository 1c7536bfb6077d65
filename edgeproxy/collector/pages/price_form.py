"""The form of prices: the amounts of all sold plans, and the new versions that changes create. Pure."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import yaml

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.config.collector.catalog import find_version_owner, get_plan_name, get_version_number

AMOUNTS = frozenset(("fee", "minimum", "threshold", "price", "included"))
"""Terms that the form can change, as well as all amounts below `prices`."""
Path = tuple[str, ...]


class Amount(NamedTuple):
    """A field of the form."""

    name: str
    text: str
    """The amount in force, in the form of plans.yaml."""


class PriceRow(NamedTuple):
    """A term with its amount in each plan, in the order of the plans; None if a plan lacks it."""

    meter: str
    """The meter; empty for terms of a whole plan."""
    term: str
    """The last name of the term, for example `fee`, `included` or `price`."""
    value: str
    """The dimension value with its own price, or the tier number from 1; empty for most terms."""
    currency: str
    """The currency code, if there are several."""
    amounts: list[Amount | None]


def select_sold(versions: Sequence[JsonDocument]) -> list[JsonDocument]:
    """Return the versions sold to everyone, lowest fee first. Prices of single customers are left out."""
    sold = [
        version for version in versions if version["state"] == "sold" and find_version_owner(version["version"]) is None
    ]
    return sorted(sold, key=lambda version: (version["fee"], version["version"]))


def list_rows(sold: Sequence[JsonDocument]) -> list[PriceRow]:
    """Return all amounts of sold versions, terms of a whole plan first, then meter by meter."""
    amounts = [dict(list_amounts(one["terms"])) for one in sold]
    paths = dict.fromkeys(path for own in amounts for path in own)
    meters = list(dict.fromkeys(path[1] for path in paths if path[0] == "meters"))
    ordered = sorted(paths, key=lambda path: meters.index(path[1]) + 1 if path[0] == "meters" else 0)
    return [
        PriceRow(
            path[1] if path[0] == "meters" else "",
            *describe_term(path),
            [
                Amount(name_field(one["version"], path), own[path]) if path in own else None
                for one, own in zip(sold, amounts, strict=True)
            ],
        )
        for path in ordered
    ]


def list_amounts(terms: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each amount of a plan."""
    if isinstance(terms, Mapping):
        for name, inner in terms.items():
            yield from list_amounts(inner, (*path, str(name)))
    elif isinstance(terms, list):
        for number, inner in enumerate(terms):
            yield from list_amounts(inner, (*path, str(number)))
    elif AMOUNTS & {*path[-2:]} or "prices" in path[-3:-1]:
        yield path, str(terms)


def describe_term(path: Path) -> tuple[str, str, str]:
    """Return the term, the dimension value or tier number, and the currency from an amount's path."""
    if "prices" in path:
        value, *rest = path[path.index("prices") + 1 :]
        return "price", value, "".join(rest)
    if "tiers" in path:
        place = path.index("tiers")
        return "tier", str(int(path[place + 1]) + 1), "".join(path[place + 3 :])
    return (path[-1], "", "") if path[-1] in AMOUNTS else (path[-2], "", path[-1])


def name_field(version: str, path: Path) -> str:
    """Return the name of an amount's form field."""
    return "/".join((version, *path))


def write_plans(versions: Sequence[JsonDocument], form: Mapping[str, str]) -> str:
    """Return the text of a plans.yaml with a new version of each plan with amounts changed in the form.

    Without a change, the text has the sold versions and changes nothing.
    """
    sold = select_sold(versions)
    plans = {one["version"]: one["terms"] for one in sold}
    changed = {}
    for one in sold:
        terms = copy.deepcopy(one["terms"])
        for path, text in list_amounts(one["terms"]):
            written = form.get(name_field(one["version"], path), text).strip()
            if written != text:
                put(terms, path, written)
        if terms != one["terms"]:
            changed[find_next_version(one["version"], versions)] = terms
    currency = sold[0]["currency"] if sold else "usd"
    head = {} if currency == "usd" else {"currency": currency}
    return yaml.safe_dump({**head, "plans": changed or plans}, sort_keys=False, allow_unicode=True, width=120)


def put(terms: JsonDocument, path: Path, text: str) -> None:
    """Set the amount at a path."""
    section = terms
    for name in path[:-1]:
        section = section[int(name) if isinstance(section, list) else name]
    section[path[-1]] = text


def find_next_version(version: str, versions: Sequence[JsonDocument]) -> str:
    """Return the version of a plan that follows all recorded versions."""
    plan = get_plan_name(version)
    numbers = [
        get_version_number(version["version"]) for version in versions if get_plan_name(version["version"]) == plan
    ]
    return f"{plan}@{max(numbers) + 1}"


class ChangedAmount(NamedTuple):
    """A term of the API, displayed as money, as a unit price or as a number."""

    kind: Literal["money", "unit", "count"]
    term: str
    """The last name of the term."""
    meter: str = ""
    value: str = ""
    """The dimension value with its own price."""


def read_term(term: str) -> ChangedAmount | None:
    """Return the display of a term of the API, for example `meters.tokens.price`; None: display it unchanged."""
    if term in ("fee", "year_fee", "minimum", "threshold"):
        return ChangedAmount("money", term)
    parts = term.split(".", 2)
    if parts[0] != "meters" or len(parts) < 3:
        return None
    _, meter, rest = parts
    if rest in ("price", "included"):
        return ChangedAmount("unit" if rest == "price" else "count", rest, meter)
    before, prices, value = rest.partition("by.prices.")
    return ChangedAmount("unit", "price", meter, value) if prices and not before else None
