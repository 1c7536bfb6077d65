"""A customer's refused requests of the last 24 hours by limit and by hour, for the customer."""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import Visit
from edgeproxy.collector.pages.usage_explorer import (
    ROWS_MAX,
    UsageCounts,
    UsageSeries,
    compute_counts,
    compute_series,
    rank_groups,
)
from edgeproxy.config.allowance import compute_allowance
from edgeproxy.config.limits import CREDITS
from edgeproxy.config.meters import LIMIT, MEASURES
from edgeproxy.config.tiers import Tier

HOURS = 24
LIMITS_MAX = 12
"""Limits shown, the ones with most refusals."""
CONCURRENCY = "concurrency"
"""Edges' name for the limit of concurrent requests."""
KEY_BUDGET = "key-budget"
"""Edges' name for the budgets of keys."""
LimitKind = Literal["rate", "concurrency", "quota", "budget", "credits", "former", "other"]
"""The kind of a limit; `former`: from a plan or tier that the customer no longer has."""


class RefusingLimit(NamedTuple):
    """A limit that refused requests of the customer."""

    name: str
    kind: LimitKind
    refused: int
    recent: int
    """Refusals in the last five minutes."""
    last_at: str
    terms: JsonDocument | None
    """The rate or quota, from `GET /v1/customers/CUSTOMER/limits` or `/quotas`; None for other limits."""


class OwnRefusals(NamedTuple):
    """Refused requests of the last 24 hours."""

    limits: Sequence[RefusingLimit]
    """Limits, most refusals first."""
    hours: Sequence[int]
    """The Unix seconds when the hours begin, including the current hour."""
    counts: UsageCounts
    series: Sequence[UsageSeries]
    meter: str
    former: int
    """Refusals of limits that no longer apply. The other fields do not count them."""

    @property
    def recent(self) -> int:
        """Return the number of refusals in the last five minutes."""
        return sum(limit.recent for limit in self.limits)


async def fetch_own_refusals(
    visit: Visit, customer: str, limits: JsonDocument, quotas: Sequence[JsonDocument]
) -> OwnRefusals | None:
    """Return refusals, given the customer's limits and quotas, or None if refusals are not counted."""
    meters = visit.site.settings_now().meters.items()
    meter = next((name for name, one in meters if MEASURES[one.count].is_of_refusals), None)
    if meter is None or not limits["is_counted"]:
        return None
    now = int(time.time())
    hours = list_hours(now)
    query = {"customer": customer, "meter": meter, "by": f"hour,{LIMIT}", "limit": str(ROWS_MAX)}
    span = {"from": format_time(hours[0]), "to": format_time(now // 60 * 60 + 60)}
    answer = await visit.call("GET", "/v1/usage", query=query | span)
    rows = answer.body["rows"] if answer.is_success else []  # The plan may hide hourly usage.
    limits_of_tiers = _list_names(visit.site.tiers.values())
    refusing = compute_limits(limits["refusals"], limits["limits"], quotas, limits_of_tiers, limits["concurrency"])
    former = sum(limit.refused for limit in refusing if limit.kind == "former")
    refusing = [limit for limit in refusing if limit.kind != "former"]
    named = {limit.name for limit in refusing}
    counts = compute_counts([row for row in rows if row[LIMIT] in named], LIMIT, hours)
    return OwnRefusals(refusing[:LIMITS_MAX], hours, counts, compute_series(counts), meter, former)


def _list_names(tiers: Iterable[Tier]) -> set[str]:
    """Return the names of all rates and quotas of these tiers."""
    names: set[str] = set()
    for allowance in (compute_allowance(tier, None) for tier in tiers):
        names |= {limit.name for limit in allowance.limits} | {quota.name for quota in allowance.quotas}
    return names


def list_hours(now: int) -> list[int]:
    """Return the Unix seconds when the last 24 hours begin, including the current hour."""
    current = now // HOUR * HOUR
    return list(range(current - (HOURS - 1) * HOUR, current + 1, HOUR))


def compute_limits(
    groups: Sequence[JsonDocument],
    rates: Sequence[JsonDocument],
    quotas: Sequence[JsonDocument],
    limits_of_tiers: Collection[str],
    concurrency: int | None,
) -> list[RefusingLimit]:
    """Compute the refusing limits from refusals by limit, route and region, most refusals first.

    `limits_of_tiers` has the names of limits in all tiers. If the customer lacks such a limit, it is a former one.
    """
    by_rate = {str(rate["limit"]): rate for rate in rates}
    by_quota = {str(quota["quota"]): quota for quota in quotas}
    by_name: dict[str, list[JsonDocument]] = {}
    for group in groups:
        by_name.setdefault(str(group["limit"]), []).append(group)
    totals = {name: sum(one["refused"] for one in some) for name, some in by_name.items()}
    refusing = []
    for name, refused in rank_groups(totals):
        kind: LimitKind = "former" if name in limits_of_tiers else "other"
        if name == CONCURRENCY:
            kind = "former" if concurrency is None else "concurrency"
        elif name in by_rate or name in by_quota or name == KEY_BUDGET:
            kind = "rate" if name in by_rate else "quota" if name in by_quota else "budget"
        elif name == CREDITS:
            kind = "credits"
        recent = sum(one["recent"] for one in by_name[name])
        last_at = max(one["last_at"] for one in by_name[name])
        terms = by_rate.get(name) or by_quota.get(name)
        refusing.append(RefusingLimit(name, kind, refused, recent, last_at, terms))
    return refusing
