"""The usage explorer: a customer's usage of a meter by step and by group, compared with the preceding time."""

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
from edgeproxy.collector.pages.navigation import INVOICE_READERS
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.pages.usage_periods import Period
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.meters import KEY, MEASURES, Meter

ROWS_MAX = 20_000
"""Most rows of steps and groups to read. If there are more, the chart has no groups."""
SPLIT_GROUPS_MAX = 500
"""Most groups to read by step. If there are more, the chart has no groups either: their rows take too long."""
SERIES_MAX = 3
"""Groups with their own series in the chart, the most used ones. One more series sums up the others."""
GROUPS_MAX = 100
"""Groups in the table, the most used ones."""
SPLIT_ROWS_MAX = 1000
"""Rows to read for the choice of the first grouping."""
FIELDS = ("route", "region")
Query = dict[str, str]
"""Parameters of `GET /v1/usage`."""
CONSOLE, PORTAL = "/console/customers/{customer}/usage", "/account/usage"


class UsageCounts(NamedTuple):
    """Usage by step and by group. `split` has usage by both, unless there are too many rows."""

    steps: list[int]
    groups: Counter[str]
    split: Mapping[str, list[int]] | None

    @property
    def total(self) -> int:
        """Return the total usage."""
        return sum(self.steps)


class UsageGroup(NamedTuple):
    """A group's usage in a time, and in the preceding time if known."""

    value: str
    used: int
    before: int | None


class UsageSeries(NamedTuple):
    """A series of a chart: a group's value, or None for all others, with its usage by step."""

    value: str | None
    css: str
    steps: Sequence[int]


class MeterChoice(NamedTuple):
    """A selectable meter."""

    meter: str
    used: int
    """Its usage in the period."""
    is_of_refusals: bool
    is_priced: bool
    """True if a plan has a price for it."""
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
    """Hidden fields of the form for a custom period."""


def list_pages() -> list[Page]:
    """Return the explorer's pages for the console and the portal."""
    return [
        Page("GET", CONSOLE, "operator", show_for_operator),
        Page("GET", PORTAL, "customer", show_for_customer),
    ]


async def show_for_operator(visit: Visit) -> web.Response:
    """Show the usage of a customer to an operator."""
    customer = await visit.fetch("GET", "/v1/customers/{customer}")
    return await show_explorer(visit, customer["name"], None)


async def show_for_customer(visit: Visit) -> web.Response:
    """Show a customer its own usage, as far back as its tier permits."""
    body = await visit.fetch("GET", "/v1/customers/{customer}")
    tier = visit.site.tiers.get(body["tier"])
    return await show_explorer(visit, visit.customer, None if tier is None else tier.analytics)


async def show_explorer(visit: Visit, customer: str, detail_seconds: float | None) -> web.Response:
    """Show the usage of a customer, or send it as CSV. Usage older than `detail_seconds` is hidden; None: no limit."""
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
    """Return the API path of a query. A customer's own token needs no customer name."""
    is_operator = visit.signed_in.who.customer is None
    return "/v1/usage?" + urlencode({name: v for name, v in query.items() if is_operator or name != "customer"})


async def fetch_split_field(visit: Visit, query: Query, where: tuple[str, str] | None, fields: Sequence[str]) -> str:
    """Return the default field for grouping, if the reader has chosen none; empty: no field."""
    others = [field for field in fields if where is None or field != where[0]]
    split = {"by": ",".join(others), "limit": str(SPLIT_ROWS_MAX)}
    return find_split_field((await visit.fetch("GET", "/v1/usage", query=query | split))["rows"], others)


async def fetch_both(
    visit: Visit, query: Query, by: str, period: Period, earliest: float | None
) -> tuple[UsageCounts, UsageCounts | None]:
    """Fetch the usage of a period and of the preceding one, or None if that is hidden or no longer stored."""
    counts = await fetch_counts(visit, query, by, period.list_starts())
    since, until = period.before
    if earliest is not None and since < earliest:
        return counts, None
    earlier = query | {"from": format_time(max(since, 0)), "to": format_time(max(until, 0))}
    try:
        return counts, await fetch_counts(visit, earlier, by, period.list_starts(period.shift))
    except PageError as error:
        if error.status != 400:  # It is no longer stored in such short steps.
            raise
        return counts, None


async def fetch_cost(visit: Visit, customer: str, query: Query, by: str) -> JsonDocument | None:
    """Fetch the cost of the usage of a query, in total and by value of the field `by`, if any.

    Return None if the usage has no price, or if the visitor may not see costs.
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
    """Send the rows of a query as CSV. Raises PageError if there are more rows than one file may have."""
    response = await visit.require("GET", "/v1/usage", query=query | {"format": "csv", "limit": str(CSV_ROWS_MAX)})
    if "Link" in response.fields:
        raise PageError(
            page_codes.ROWS_EXCEEDED, "there are more rows than a file has: choose a shorter time or longer steps"
        )
    return visit.send_file(response)


async def fetch_counts(visit: Visit, query: Query, by: str, starts: Sequence[int]) -> UsageCounts:
    """Fetch the usage of a query by step and, if `by` is set, by group. The steps begin at `starts`."""
    meter = visit.site.settings_now().meters.get(query.get("meter", ""))
    dimension, by_group = None if meter is None else meter.dimensions.get(by), None
    if dimension is not None and dimension.values > SPLIT_GROUPS_MAX:
        by_group = await _fetch(visit, query | {"by": by})
    if by_group is None or len(by_group["rows"]) <= SPLIT_GROUPS_MAX:
        answer = await _fetch(visit, query)
        if "next" not in answer:
            return compute_counts(answer["rows"], by, starts)
    by_group = by_group or await _fetch(visit, query | {"by": by})
    groups = compute_counts(by_group["rows"], by, [0]).groups
    by_step = await _fetch(visit, query | {"by": query["by"].partition(",")[0]})
    return UsageCounts(compute_counts(by_step["rows"], "", starts).steps, groups, None)


async def _fetch(visit: Visit, query: Query) -> JsonDocument:
    return await visit.fetch("GET", "/v1/usage", query=query | {"limit": str(ROWS_MAX)})


def _build_query(customer: str, span: tuple[int, int], by: str, **more: str) -> Query:
    return {"customer": customer, "from": format_time(span[0]), "to": format_time(span[1]), "by": by, **more}


def api_step(period: Period) -> str:
    """Return the API's field for the steps of a period. The API has no months, so days replace them."""
    return "day" if period.step == "month" else period.step


# ---- pure


def list_priced_meters(plans: Iterable[Plan]) -> set[str]:
    """Return the meters that have a price in any of these plans."""
    return {name for plan in plans for name, price in plan.meters.items() if price.has_prices}


def list_meters(
    rows: Iterable[JsonDocument], settings: Mapping[str, Meter], priced: Collection[str]
) -> list[MeterChoice]:
    """Return the meters with usage, from rows by meter. Meters that are not summed have none here.

    Meters with a price come first, ordered by usage. Meters of refusals come last.
    """
    choices = []
    for row in rows:
        name, quantity = row["meter"], row["value"]
        count = settings[name].count if name in settings else None
        is_of_refusals = count is not None and MEASURES[count].is_of_refusals
        choices.append(MeterChoice(name, quantity, is_of_refusals, name in priced, find_display(settings, name)))
    # Meters without a price have different units, so their usage cannot be compared: requests come before bytes.
    return sorted(
        choices,
        key=lambda choice: (
            choice.is_of_refusals,
            not choice.is_priced,
            not choice.is_priced and choice.display.unit != "requests",
            -choice.used,
            choice.meter,
        ),
    )


def choose_meter(name: str, meters: Sequence[MeterChoice]) -> MeterChoice | None:
    """Return the meter of this name, or else the first one; None if the list is empty."""
    return next((choice for choice in meters if choice.meter == name), meters[0] if meters else None)


def list_fields(meter: Meter | None) -> list[str]:
    """Return the fields for grouping and filtering a meter's usage."""
    return [*FIELDS, *(() if meter is None else meter.dimensions)]


def find_split_field(rows: Sequence[Mapping[str, str | int]], fields: Sequence[str]) -> str:
    """Return the first field with at least two values, from rows by all of these fields; empty if there is none.

    Dimensions of the meter come before routes and regions, because an operator has chosen them for this meter.
    """
    own_first = sorted(fields, key=lambda field: field in FIELDS)
    return next((field for field in own_first if len({row[field] for row in rows}) > 1), "")


def choose_groups(query: Mapping[str, str], fields: Sequence[str]) -> tuple[str | None, tuple[str, str] | None]:
    """Return the field for grouping and the filter from a page's query.

    The field is empty if the reader wants no groups, and None if the reader has not chosen.
    """
    by = query.get("by")
    field, colon, value = query.get("where", "").partition(":")
    return by if by is None or by in fields else "", (field, value) if colon and field in fields else None


def list_usage_keys(by: str, where: tuple[str, str] | None, groups: Iterable[UsageGroup]) -> list[str]:
    """Return the keys in usage: the groups if grouped by key, or else the key of a filter."""
    return [group.value for group in groups] if by == KEY else [where[1]] if where and where[0] == KEY else []


def compute_counts(rows: Sequence[Mapping[str, str | int]], by: str, starts: Sequence[int]) -> UsageCounts:
    """Compute usage by step and by value of the field `by`. The steps begin at the Unix seconds `starts`.

    `rows` come from `GET /v1/usage`, with a minute, an hour, a day or no time.
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
    """Compute the series of the chart: the most used groups, and the sum of all others."""
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
    """Compare each group's usage with the preceding time, the most used first. Groups without usage now come last."""
    earlier = before.groups if before is not None else Counter[str]()
    values = [value for value, _ in rank_groups(counts.groups)]
    values += [value for value, _ in rank_groups(earlier) if value not in counts.groups]
    return [UsageGroup(value, counts.groups[value], None if before is None else earlier[value]) for value in values]


def rank_groups(groups: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return groups by usage, the most used first."""
    return sorted(groups.items(), key=lambda group: (-group[1], group[0]))
