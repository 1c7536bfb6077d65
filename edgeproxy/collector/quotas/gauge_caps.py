"""Hard caps of gauges, such as stored gigabytes: a reading that would lift a level above its cap is refused.

The level counts at any time, and a lower reading always passes: who moved to a smaller plan can shrink to it.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.ledger.aggregates import Reading
from edgeproxy.collector.ledger.readings import fetch_levels
from edgeproxy.collector.quotas import customer_quotas
from edgeproxy.config.collector.settings import CollectorSettings

GaugeKey = tuple[str, str]
"""A customer and a meter."""


async def find_refused_readings(
    connection: AsyncConnection, reported: Mapping[GaugeKey, Sequence[Reading]], settings: CollectorSettings
) -> dict[GaugeKey, dict[int, str]]:
    """Return which new readings are refused, by their index, and why. Gauges without a hard cap take any."""
    quotas = await customer_quotas.fetch_quotas(connection, {customer for customer, _ in reported}, settings)
    refused: dict[GaugeKey, dict[int, str]] = {}
    for (customer, meter), new in reported.items():
        quota = quotas[customer].find_quota(meter) if customer in quotas else None
        if quota is None or quota.cap != "hard":
            continue
        seconds = [reading.second for reading in new]
        before, between = await fetch_levels(connection, customer, meter, (min(seconds), max(seconds) + 1))
        levels = find_excess(before, between, new, quota.included)
        refused[customer, meter] = {
            index: f"value: makes {level} of {meter}, and the plan has a hard cap of {quota.included}"
            for index, level in levels.items()
        }
    return refused


def find_excess(
    before: Mapping[str, int], between: Iterable[Reading], new: Sequence[Reading], included: int
) -> dict[int, int]:
    """Return the new readings, by their index, that would lift the gauge's level above `included`, and to what level.

    `before` has the level of each series at the first of them, `between` the readings since then. Pure.
    """
    levels, excess = dict(before), {}
    steps = [(reading, -1) for reading in between] + [(reading, index) for index, reading in enumerate(new)]
    for reading, index in sorted(steps, key=lambda step: (step[0].second, step[1])):
        held = levels.get(reading.series, 0)
        level = sum(levels.values()) - held + reading.value
        if index >= 0 and reading.value > held and level > included:
            excess[index] = level
        else:
            levels[reading.series] = reading.value
    return excess
