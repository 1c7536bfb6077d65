"""What customers may use by their plans, as their edges are told: quotas beside those of the tier.

A hard cap refuses what is above it. A soft cap marks; where the plan has a grace, so much more is served and for so
long, whichever ends first, and then as little as under a hard one.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import documents
from edgeproxy.collector.database.quota_tables import entitlements, quota_passes
from edgeproxy.config.catalog import Plan
from edgeproxy.config.models import Entitlement, Meter

UPGRADE = "The grace of this plan is over: an upgrade is required"
"""What is said to who is refused at the end of a grace."""
COUNTABLE = ("sum", "max", "unique")
"""What of a meter never shrinks within a period, so that it can be bounded."""
UTC = ZoneInfo("UTC")


def per_of(anchor: int | None) -> str:
    """After which time the counts of a subscription begin anew whose months are counted from `anchor`."""
    return "month" if anchor is None else f"month@{anchor}"


def period_number(anchor: int | None, now: float) -> int:
    """The number of the period of a subscription at a Unix second."""
    return period_of(now - EPOCH, per_of(anchor), UTC).number


def quotas(
    plan: Plan, anchor: int | None, meters: Mapping[str, Meter], passed: Mapping[str, int], now: float
) -> Iterator[Entitlement]:
    """The quotas that a plan makes at a Unix second. `passed`: when, in this period, the soft caps of these meters were
    passed."""
    for name, price in plan.meters.items():
        meter = meters.get(name)
        if price.cap is None or price.included is None or meter is None:
            continue
        is_place = meter.count == "holdings"
        if not is_place and meter.aggregate not in COUNTABLE:
            continue
        per = None if is_place else per_of(anchor)
        included, grace = price.included, None if price.price is not None or price.tiers else plan.grace
        if price.cap == "hard" or grace is None:
            yield Entitlement(meter=name, per=per, included=included, cap=price.cap)
        elif name in passed and now >= passed[name] + int(grace.for_):
            yield Entitlement(meter=name, per=per, included=included, cap="hard", why=UPGRADE)
        else:
            yield Entitlement(meter=name, per=per, included=included, grace=int(grace.for_))
            most = included + int(included * round(grace.percent * 10**10)) // 10**10
            yield Entitlement(meter=name, per=per, included=most, cap="hard", why=UPGRADE)


async def follow(
    connection: AsyncConnection,
    customer: Any,
    held: tuple[str, Plan, int | None] | None,
    meters: Mapping[str, Meter],
    now: float | None = None,
) -> bool:
    """Write what a customer, a row, may use by what it has: a version, its plan and the anchor of its periods; None: no
    plan. Edges are told where that is something else than before, which is returned."""
    now = time.time() if now is None else now
    of = entitlements.c.customer == customer.id
    before = (await connection.execute(sa.select(entitlements).where(of))).one_or_none()
    said = None
    if held is not None:
        version, plan, anchor = held
        passes = sa.select(quota_passes.c.meter, quota_passes.c.at).where(quota_passes.c.customer == customer.name)
        passes = passes.where(quota_passes.c.period == period_number(anchor, now))
        passed = {row.meter: row.at for row in await connection.execute(passes)}
        made = quotas(plan, anchor, meters, passed, now)
        found = [one.model_dump(mode="json", exclude_defaults=True) for one in made]
        said = (version, orjson.dumps(found).decode())
    if said == (None if before is None else (before.plan_version, before.quotas)):
        return False
    values = {} if said is None else {"plan_version": said[0], "quotas": said[1]}
    if said is None:
        await connection.execute(sa.delete(entitlements).where(of))
    elif before is None:
        await connection.execute(sa.insert(entitlements), [{"customer": customer.id, **values}])
    else:
        await connection.execute(sa.update(entitlements).where(of).values(**values))
    await documents.note(connection, "customer", [customer.name])
    return True
