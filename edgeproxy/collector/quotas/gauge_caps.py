"""Hard caps of gauges, for example stored gigabytes: a reading that would lift a level above its cap is refused.

The current level counts, and a lower reading is always accepted, so that a customer can shrink to a smaller plan.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.ledger.aggregates import Reading
from edgeproxy.collector.ledger.readings import fetch_latest_readings
from edgeproxy.collector.quotas import customer_quotas
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.wire.batch import UNIX_SECONDS_MAX

GaugeKey = tuple[str, str]
"""A customer and a meter."""


async def find_refused_readings(
    connection: AsyncConnection, reported: Mapping[GaugeKey, Sequence[Reading]], settings: CollectorSettings
) -> dict[GaugeKey, dict[int, str]]:
    """Return the refused new readings by index, with the reasons. Gauges without a hard cap accept any reading."""
    quotas = await customer_quotas.fetch_quotas(connection, {customer for customer, _ in reported}, settings)
    refused: dict[GaugeKey, dict[int, str]] = {}
    for (customer, meter), new in reported.items():
        quota = quotas[customer].find_quota(meter) if customer in quotas else None
        known = settings.meters.get(meter)
        if quota is None or quota.cap != "hard" or known is None:
            continue
        is_split = bool(known.dimensions)
        latest = await fetch_latest_readings(connection, customer, meter, UNIX_SECONDS_MAX, is_split=is_split)
        levels = find_excess(latest, new, quota.included)
        refused[customer, meter] = {
            index: f"value: makes {level} of {meter}, and the plan has a hard cap of {quota.included}"
            for index, level in levels.items()
        }
    return refused


def find_excess(latest: Iterable[Reading], new: Sequence[Reading], included: int) -> dict[int, int]:
    """Return the new readings that would lift the gauge's level above `included`, by index, with the resulting level.

    `latest` are the latest readings of its series. A new reading older than these changes no current level. Pure.
    """
    held = {reading.series: reading for reading in latest}
    total = sum(reading.value for reading in held.values())
    excess = {}
    for index, reading in sorted(enumerate(new), key=lambda item: (item[1].second, item[0])):
        before = held.get(reading.series, Reading(reading.second, reading.series, 0))
        if before.second > reading.second:
            continue
        level = total - before.value + reading.value
        if reading.value > before.value and level > included:
            excess[index] = level
        else:
            held[reading.series], total = reading, level
    return excess
