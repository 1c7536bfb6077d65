"""Versions of plans as they were sold. Once somebody has one it is never edited: invoices are rated by what is here."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.database.billing_tables import plan_versions, segments, subscriptions
from edgeproxy.config.catalog import Plan


class Edited(Exception):
    """A version says something else than what was sold: a sentence for who wrote it."""


def written(plan: Plan) -> str:
    """Write a version as it is kept."""
    return plan.model_dump_json(by_alias=True, exclude_defaults=True)


async def record(connection: AsyncConnection, plans: Mapping[str, Plan]) -> None:
    """Keep what is sold; raises Edited where a version that somebody has, or had, says something else by now."""
    kept = {row.version: row.settings for row in await connection.execute(sa.select(plan_versions))}
    changed = {version for version, plan in plans.items() if kept.get(version, written(plan)) != written(plan)}
    sold = {version for version in changed if await _is_sold(connection, version)}
    if sold:
        first = min(sold)
        raise Edited(f"{first} was edited, and customers have it as it was: write {first.partition('@')[0]}@N anew")
    new = [
        {"version": version, "settings": written(plan), "created_at": now_ms()}
        for version, plan in plans.items()
        if version not in kept
    ]
    if new:
        await connection.execute(sa.insert(plan_versions), new)
    for version in changed:
        statement = sa.update(plan_versions).where(plan_versions.c.version == version)
        await connection.execute(statement.values(settings=written(plans[version])))


async def _is_sold(connection: AsyncConnection, version: str) -> bool:
    for table in (segments, subscriptions):
        statement = sa.select(table.c.plan_version).where(table.c.plan_version == version).limit(1)
        if (await connection.execute(statement)).first() is not None:
            return True
    return False


async def versions(connection: AsyncConnection, wanted: Iterable[str]) -> dict[str, Plan]:
    """Return these versions as they were sold."""
    rows = await connection.execute(sa.select(plan_versions).where(plan_versions.c.version.in_(set(wanted))))
    return {row.version: Plan.model_validate_json(row.settings) for row in rows}
