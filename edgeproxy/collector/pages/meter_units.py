"""The units in which pages write what a meter has counted. Pure."""

from collections.abc import Mapping

from edgeproxy.config.meters import CountName, Meter

UNITS: Mapping[CountName, str] = {
    "requests": "requests",
    "refusals": "requests",
    "bytes_in": "bytes",
    "bytes_out": "bytes",
    "input_tokens": "tokens",
    "cached_tokens": "tokens",
    "uncached_tokens": "tokens",
    "output_tokens": "tokens",
    "total_tokens": "tokens",
}
"""The unit of what a meter counts, where there is a word for it."""


def find_unit(meters: Mapping[str, Meter], name: str) -> str:
    """Return the unit of a configured meter; empty where there is no word for it."""
    return UNITS.get(meters[name].count, "") if name in meters else ""
