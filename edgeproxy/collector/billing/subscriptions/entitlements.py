"""Entitlements: the usage that plans allow, as quotas at the edges in addition to the tier's quotas.

A hard cap refuses usage above it. A soft cap only marks it. If the plan has a grace, a soft cap serves a limited amount
for a limited time, whichever ends first, and then acts as a hard cap.
"""

import time
from collections.abc import Iterator, Mapping
from typing import TypedDict
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import customers, documents, list_figures
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber, find_live, get_subscriber
from edgeproxy.collector.database.quota_tables import entitlements, quota_passes
from edgeproxy.config.collector.catalog import Plan, get_plan_name
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.limits import Entitlement
from edgeproxy.config.meters import Meter

UPGRADE = "The grace of this plan is over: an upgrade is required"
"""The reason in responses at the end of a grace."""
COUNTABLE = ("sum", "max", "unique")
"""Aggregates that never shrink within a period. For other aggregates the reported level is capped."""
UTC = ZoneInfo("UTC")


class _Named(TypedDict):
    """The requests that a quota applies to."""

    routes: tuple[str, ...]
    scopes: tuple[str, ...]


def get_quota_period(anchor: int | None) -> str:
    """Return the period whose end restarts the counts of a subscription. Its months are counted from `anchor`."""
    return "month" if anchor is None else f"month@{anchor}"


def period_number(anchor: int | None, now: float) -> int:
    """Return the number of the period of a subscription at a Unix second."""
    return period_of(now - EPOCH, get_quota_period(anchor), UTC).number


def build_quotas(
    plan: Plan, anchor: int | None, meters: Mapping[str, Meter], passed: Mapping[str, int], now: float
) -> Iterator[Entitlement]:
    """Yield the quotas of a plan at a Unix second.

    `passed` has, by meter, the Unix second when its soft cap was exceeded in this period.
    """
    for name, price in plan.meters.items():
        meter = meters.get(name)
        if price.cap is None or price.included is None or meter is None:
            continue
        # A level can fall again, so no period begins its count anew.
        is_level = meter.count == "holdings" or meter.aggregate not in COUNTABLE
        per = None if is_level else get_quota_period(anchor)
        named: _Named = {"routes": price.routes, "scopes": price.scopes}
        # Units beyond the included ones that have a price are sold, and need no grace.
        included, grace = price.included, None if price.price is not None or price.tiers else plan.grace
        if price.cap == "hard" or grace is None or (is_level and meter.count != "holdings"):
            yield Entitlement(meter=name, per=per, included=included, cap=price.cap, **named)
        elif name in passed and now >= passed[name] + int(grace.for_):
            yield Entitlement(meter=name, per=per, included=included, cap="hard", why=UPGRADE, **named)
        else:
            yield Entitlement(meter=name, per=per, included=included, grace=int(grace.for_), **named)
            # Whole numbers, because a product of floats may be a unit less.
            most = included + int(included * round(grace.percent * 10**10)) // 10**10
            yield Entitlement(meter=name, per=per, included=most, cap="hard", why=UPGRADE, **named)


async def update_entitlements(
    connection: AsyncConnection,
    customer: Subscriber,
    plan_held: tuple[str, Plan, int | None] | None,
    meters: Mapping[str, Meter],
    now: float | None = None,
) -> bool:
    """Write a customer's entitlements and notify edges of a change. Return whether there was one.

    `plan_held` is a version, its plan and the anchor of its periods, or None for no plan.
    """
    now = time.time() if now is None else now
    condition = entitlements.c.customer == customer.id
    before = (await connection.execute(sa.select(entitlements).where(condition))).one_or_none()
    expected = None
    if plan_held is not None:
        version, plan, anchor = plan_held
        passes = sa.select(quota_passes.c.meter, quota_passes.c.at).where(quota_passes.c.customer == customer.name)
        # Breaches of earlier periods are over, whether or not their rows are deleted yet.
        passes = passes.where(quota_passes.c.period == period_number(anchor, now))
        passed = {row.meter: row.at for row in await connection.execute(passes)}
        quotas = build_quotas(plan, anchor, meters, passed, now)
        serialized = [quota.model_dump(mode="json", exclude_defaults=True) for quota in quotas]
        expected = (version, orjson.dumps(serialized).decode())
    # Edges need no message about an unchanged row.
    if expected == (None if before is None else (before.plan_version, before.quotas)):
        return False
    await list_figures.record_plan(connection, customer.id, None if expected is None else get_plan_name(expected[0]))
    values = {} if expected is None else {"plan_version": expected[0], "quotas": expected[1]}
    if expected is None:
        await connection.execute(sa.delete(entitlements).where(condition))
    elif before is None:
        await connection.execute(sa.insert(entitlements), [{"customer": customer.id, **values}])
    else:
        await connection.execute(sa.update(entitlements).where(condition).values(**values))
    await documents.enqueue_changes(connection, "customer", [customer.name])
    return True


async def refresh_entitlements(connection: AsyncConnection, customer: str, settings: CollectorSettings) -> None:
    """Write the current caps of a customer's plan, by customer id, for example after a meter was added."""
    row = await find_live(connection, customer)
    if row is not None:
        plan = (await plan_versions.fetch_plans(connection, {row.plan_version}))[row.plan_version]
        subscriber = await get_subscriber(connection, row.customer)
        await update_entitlements(connection, subscriber, (row.plan_version, plan, row.anchor), settings.meters)


async def list_breached_customers(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Return the names of customers with a grace, or the period of one, that is over by this Unix second."""
    columns = quota_passes.c
    over, ended = (columns.due <= now) & (columns.is_over == 0), columns.until <= now
    due = sa.select(columns.customer).distinct().where(over | ended).limit(limit)
    return list(await connection.scalars(due))


async def apply_cap_breaches(connection: AsyncConnection, name: str, settings: CollectorSettings, now: float) -> None:
    """Apply caps to a customer, by name, whose grace is over, and delete the breaches of past periods."""
    columns = quota_passes.c
    condition = columns.customer == name
    await connection.execute(sa.delete(quota_passes).where(condition, columns.until <= now))
    await connection.execute(
        sa.update(quota_passes).where(condition, columns.due <= now, columns.is_over == 0).values(is_over=1)
    )
    customer = await customers.find_row(connection, name)
    if customer is not None:
        await refresh_entitlements(connection, customer.id, settings)
