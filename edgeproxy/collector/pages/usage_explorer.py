"""The usage explorer: a customer's usage of a meter in a time, by step and by group, beside the time before."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict
from urllib.parse import urlencode

from aiohttp import web

from edgeproxy.collector.languages.meter_display import MeterDisplay, find_display
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.ledger.detail import find_detail_start
from edgeproxy.collector.ledger.queries import ROWS_MAX as CSV_ROWS_MAX
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.pages import keys, usage_periods
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.overview import INVOICE_READERS
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.pages.usage_periods import Period
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.meters import KEY, MEASURES, Meter

ROWS_MAX = 20_000
"""Rows of steps and groups that are read; where there are more, the chart has no groups."""
SERIES_MAX = 3
"""Groups that the chart shows by themselves, the most used ones; all others are one more."""
GROUPS_MAX = 100
"""Groups in the table, the most used ones."""
SPLIT_ROWS_MAX = 1000
"""Rows by which the field is chosen that usage is grouped by at first sight."""
FIELDS = ("route", "region")
Query = dict[str, str]
"""Parameters of `GET /v1/usage`."""
CONSOLE, PORTAL = "/console/customers/{customer}/usage", "/account/usage"


class UsageCounts(NamedTuple):
    """Usage of a time: by step and by group, and by both unless there are too many rows."""

    steps: list[int]
    groups: Counter[str]
    split: Mapping[str, list[int]] | None

    @property
    def total(self) -> int:
        """Return the usage of the whole time."""
        return sum(self.steps)


class UsageGroup(NamedTuple):
    """A group's usage in a time and in the one before it; None where that one is not known."""

    value: str
    used: int
    before: int | None


class UsageSeries(NamedTuple):
    """What a chart draws: a group's value, None for all others, and its usage by step."""

    value: str | None
    css: str
    steps: Sequence[int]


class MeterChoice(NamedTuple):
    """A meter that can be chosen."""

    meter: str
    used: int
    """Its usage in the period."""
    is_of_refusals: bool
    is_priced: bool
    """Whether a plan has a price for it."""
    display: MeterDisplay


class ExplorerView(TypedDict):
    """The values of the page."""

    period: Period
    meters: list[MeterChoice]
    meter: MeterChoice | None
    fields: list[str]
    by: str
    where: tuple[str, str] | None
    counts: UsageCounts
    before: UsageCounts | None
    series: list[UsageSeries]
    groups: list[UsageGroup]
    cost: JsonDocument | None
    group_costs: Mapping[str, int]
    steps: list[str]
    key_labels: Mapping[str, str]
    is_shortened: bool
    api_path: str
    chosen: Query
    """What the form of a reader's own days sends along."""


def list_pages() -> list[Page]:
    """Return the explorer's page in the console and in the portal."""
    return [
        Page("GET", CONSOLE, "operator", show_for_operator),
        Page("GET", PORTAL, "customer", show_for_customer),
    ]


async def show_for_operator(visit: Visit) -> web.Response:
    """Show the usage of a customer to an operator."""
    names = {"customer": visit.path_parameter("customer")}
    customer = await visit.fetch("GET", "/v1/customers/{customer}", names=names)
    return await show_explorer(visit, customer["name"], None)


async def show_for_customer(visit: Visit) -> web.Response:
    """Show a customer its own usage, as far back as its tier says."""
    body = await visit.fetch("GET", "/v1/customers/{customer}", names={"customer": visit.customer})
    tier = visit.site.tiers.get(body["tier"])
    return await show_explorer(visit, visit.customer, None if tier is None else tier.analytics)


async def show_explorer(visit: Visit, customer: str, detail_seconds: float | None) -> web.Response:
    """Show the usage of a customer, or send it as CSV; `detail_seconds`: how far back it is shown; None: always."""
    now = time.time()
    earliest = None if detail_seconds is None else find_detail_start(detail_seconds, now)
    parameters, settings = visit.request.query, visit.site.settings_now()
    period = usage_periods.choose_period(parameters, now, earliest)
    used = await _fetch(visit, _build_query(customer, (period.since, period.until), "meter"))
    meters = list_meters(used["rows"], settings.meters, list_priced_meters(settings.plans.values()))
    meter = choose_meter(parameters.get("meter", ""), meters)
    fields = list_fields(None if meter is None else settings.meters.get(meter.meter))
    by, where = choose_groups(parameters, fields)
    query = _build_query(customer, (period.since, period.until), "")
    query |= ({} if meter is None else {"meter": meter.meter}) | ({} if where is None else {"where": ":".join(where)})
    by = await fetch_split_field(visit, query, where, fields) if by is None else by
    query["by"] = ",".join(filter(None, (api_step(period), by)))
    if parameters.get("format") == "csv":
        return await send_csv(visit, query)
    counts, before = await fetch_both(visit, query, by, period, earliest)
    cost = None if meter is None or meter.is_of_refusals else await fetch_cost(visit, customer, query, by)
    groups = compute_groups(counts, before)[:GROUPS_MAX] if by else []
    view = ExplorerView(
        period=period,
        meters=meters,
        meter=meter,
        fields=fields,
        by=by,
        where=where,
        counts=counts,
        before=before,
        series=compute_series(counts),
        groups=groups,
        cost=cost,
        group_costs={one["value"]: one["amount"] for one in (cost or {}).get("groups", ())},
        steps=usage_periods.list_steps(period.until - period.since),
        key_labels=await keys.fetch_labels(visit, customer, list_usage_keys(by, where, groups)),
        is_shortened=period.since > usage_periods.choose_period(parameters, now).since,
        chosen={name: parameters[name] for name in ("meter", "by", "where") if name in parameters},
        api_path=format_api_path(visit, query),
    )
    return visit.render("usage_explorer.html", customer=customer, **view)


def format_api_path(visit: Visit, query: Query) -> str:
    """Return the path of the API for a query: a customer's own token names no customer."""
    is_operator = visit.signed_in.who.customer is None
    return "/v1/usage?" + urlencode({name: v for name, v in query.items() if is_operator or name != "customer"})


async def fetch_split_field(visit: Visit, query: Query, where: tuple[str, str] | None, fields: Sequence[str]) -> str:
    """Fetch by which field usage of a query is grouped where the reader has not said; empty: by none."""
    others = [field for field in fields if where is None or field != where[0]]
    split = {"by": ",".join(others), "limit": str(SPLIT_ROWS_MAX)}
    return find_split_field((await visit.fetch("GET", "/v1/usage", query=query | split))["rows"], others)


async def fetch_both(
    visit: Visit, query: Query, by: str, period: Period, earliest: float | None
) -> tuple[UsageCounts, UsageCounts | None]:
    """Fetch the usage of a period and of the one before it; None where that one is not shown, or not kept."""
    counts = await fetch_counts(visit, query, by, period.list_starts())
    since, until = period.before
    if earliest is not None and since < earliest:
        return counts, None
    earlier = query | {"from": format_time(max(since, 0)), "to": format_time(max(until, 0))}
    try:
        return counts, await fetch_counts(visit, earlier, by, period.list_starts(period.shift))
    except PageError as error:
        if error.status != 400:  # It is not kept so finely any more.
            raise
        return counts, None


async def fetch_cost(visit: Visit, customer: str, query: Query, by: str) -> JsonDocument | None:
    """Fetch what the usage of a query costs by itself, and what that of each value of the field `by`, if any.

    None where it costs nothing, or the visitor is not to know.
    """
    visitor, billing = visit.signed_in.who, visit.site.settings_now().billing
    if billing is None or not (visitor.pays if visitor.customer is not None else visitor.roles & INVOICE_READERS):
        return None
    whole = {"customer": customer} | {name: value for name, value in query.items() if name != "by"}
    if by:
        whole["by"] = by
    response = await visit.call("GET", "/v1/usage/value", query=whole)
    return response.body if response.is_success and response.body["amount"] is not None else None


async def send_csv(visit: Visit, query: Query) -> web.Response:
    """Send the rows of a query as CSV; raises PageError where they are more than one file has."""
    response = await visit.require("GET", "/v1/usage", query=query | {"format": "csv", "limit": str(CSV_ROWS_MAX)})
    if "Link" in response.fields:
        raise PageError(422, "there are more rows than a file has: choose a shorter time or longer steps")
    return visit.send_file(response)


async def fetch_counts(visit: Visit, query: Query, by: str, starts: Sequence[int]) -> UsageCounts:
    """Fetch the usage of a query by the steps that begin at `starts` and by the field `by`, if any."""
    answer = await _fetch(visit, query)
    if "next" not in answer:
        return compute_counts(answer["rows"], by, starts)
    by_step = await _fetch(visit, query | {"by": query["by"].partition(",")[0]})
    by_group = await _fetch(visit, query | {"by": by})
    groups = compute_counts(by_group["rows"], by, [0]).groups
    return UsageCounts(compute_counts(by_step["rows"], "", starts).steps, groups, None)


async def _fetch(visit: Visit, query: Query) -> JsonDocument:
    return await visit.fetch("GET", "/v1/usage", query=query | {"limit": str(ROWS_MAX)})


def _build_query(customer: str, span: tuple[int, int], by: str, **more: str) -> Query:
    return {"customer": customer, "from": format_time(span[0]), "to": format_time(span[1]), "by": by, **more}


def api_step(period: Period) -> str:
    """Return the API's field for the steps of a period: it has no months."""
    return "day" if period.step == "month" else period.step


# ---- pure


def list_priced_meters(plans: Iterable[Plan]) -> set[str]:
    """Return the meters for which any of these plans has a price."""
    return {name for plan in plans for name, price in plan.meters.items() if price.has_prices}


def list_meters(
    rows: Iterable[JsonDocument], settings: Mapping[str, Meter], priced: Collection[str]
) -> list[MeterChoice]:
    """Return the meters with usage, of rows by meter; meters that are not added up have none here.

    Those that a plan has a price for come first, the most used one before others; those of refusals come last.
    """
    choices = []
    for row in rows:
        name, quantity = row["meter"], row["value"]
        count = settings[name].count if name in settings else None
        is_of_refusals = count is not None and MEASURES[count].is_of_refusals
        choices.append(MeterChoice(name, quantity, is_of_refusals, name in priced, find_display(settings, name)))
    # Quantities of meters without a price have units that differ: requests come before bytes.
    return sorted(
        choices,
        key=lambda one: (
            one.is_of_refusals,
            not one.is_priced,
            not one.is_priced and one.display.unit != "requests",
            -one.used,
            one.meter,
        ),
    )


def choose_meter(name: str, meters: Sequence[MeterChoice]) -> MeterChoice | None:
    """Return the meter of this name, else the first one; None where there is none."""
    return next((choice for choice in meters if choice.meter == name), meters[0] if meters else None)


def list_fields(meter: Meter | None) -> list[str]:
    """Return the fields by which usage of a meter can be grouped and filtered."""
    return [*FIELDS, *(() if meter is None else meter.dimensions)]


def find_split_field(rows: Sequence[Mapping[str, str | int]], fields: Sequence[str]) -> str:
    """Return the field that divides usage, of rows by all of these fields; empty: none has two values.

    Dimensions of the meter come before its routes and regions: somebody has chosen them for this meter.
    """
    own_first = sorted(fields, key=lambda field: field in FIELDS)
    return next((field for field in own_first if len({row[field] for row in rows}) > 1), "")


def choose_groups(query: Mapping[str, str], fields: Sequence[str]) -> tuple[str | None, tuple[str, str] | None]:
    """Return the field to group by and the filter of a page's query.

    The field is empty where the reader wants no groups, and None where they have not said.
    """
    by = query.get("by")
    field, colon, value = query.get("where", "").partition(":")
    return by if by is None or by in fields else "", (field, value) if colon and field in fields else None


def list_usage_keys(by: str, where: tuple[str, str] | None, groups: Iterable[UsageGroup]) -> list[str]:
    """Return the keys, as usage has them, of groups by key or else of a filter."""
    return [one.value for one in groups] if by == KEY else [where[1]] if where and where[0] == KEY else []


def compute_counts(rows: Sequence[Mapping[str, str | int]], by: str, starts: Sequence[int]) -> UsageCounts:
    """Compute the usage by the steps that begin at these Unix seconds, and by the values of the field `by`.

    `rows` are those of `GET /v1/usage`, with a minute, an hour or a day, or without one.
    """
    groups: Counter[str] = Counter()
    split: dict[str, list[int]] = {}
    steps = [0] * len(starts)
    for row in rows:
        written = row.get("minute") or row.get("hour") or row.get("day")
        place = usage_periods.find_step(starts, parse_time(str(written)).timestamp()) if written else 0
        value, used = str(row[by]) if by else "", int(row["value"])
        groups[value] += used
        steps[place] += used
        split.setdefault(value, [0] * len(starts))[place] += used
    return UsageCounts(steps, groups, split)


def compute_series(counts: UsageCounts) -> list[UsageSeries]:
    """Compute what the chart draws: the most used groups, and all others as one."""
    if counts.split is None or len(counts.groups) <= 1:
        return [UsageSeries("", "1", counts.steps)]
    ranked = [value for value, _ in rank_groups(counts.groups)]
    alone = ranked if len(ranked) <= SERIES_MAX + 1 else ranked[:SERIES_MAX]
    series = [UsageSeries(value, str(place), counts.split[value]) for place, value in enumerate(alone, 1)]
    if len(alone) < len(ranked):
        others = [sum(column) for column in zip(*(counts.split[value] for value in ranked[len(alone) :]), strict=True)]
        series.append(UsageSeries(None, str(SERIES_MAX + 1), others))
    return series


def compute_groups(counts: UsageCounts, before: UsageCounts | None) -> list[UsageGroup]:
    """Compute the usage of each group beside the time before, the most used first; those that are gone come last."""
    earlier = before.groups if before is not None else Counter[str]()
    values = [value for value, _ in rank_groups(counts.groups)]
    values += [value for value, _ in rank_groups(earlier) if value not in counts.groups]
    return [UsageGroup(value, counts.groups[value], None if before is None else earlier[value]) for value in values]


def rank_groups(groups: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return groups by their usage, the most used first."""
    return sorted(groups.items(), key=lambda group: (-group[1], group[0]))
