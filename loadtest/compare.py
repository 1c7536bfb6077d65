"""Comparison with an earlier run of an equal workload: quotients of percentiles, and significant slowdowns. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import quantiles
from typing import Any, NamedTuple

from loadtest.record import Times

PERCENTILES = (50.0, 95.0, 99.0)
BLOCK = 5
"""Seconds of a block. Each has its own percentiles, whose quartiles show how much a run varies."""


class Different(Exception):
    """The two runs cannot be compared; the text gives the reason."""


class Compared(NamedTuple):
    """A region and a tier: the percentiles now over the earlier ones, and whether it is significantly slower."""

    region: str
    tier: str
    quotients: tuple[float, ...]
    slower: bool


def same_workload(now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raise Different unless both figures are of one workload."""
    mine, its = now["workload"], before.get("workload")
    if not isinstance(its, dict):
        raise Different("the file has no workload: it is no figures.json of a load test")
    fields = sorted(name for name in {*mine, *its} if mine.get(name) != its.get(name))
    if fields:
        raise Different(f"the workloads differ in {', '.join(fields)}")


def quartiles(blocks: Sequence[float]) -> tuple[float, float]:
    """The first and the third; of fewer than two blocks nothing can be said, so everything."""
    if len(blocks) < 2:
        return float("-inf"), float("inf")
    first, _, third = quantiles(blocks, n=4, method="inclusive")
    return first, third


def compared(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Compared]:
    """Each region and tier that both have. `now` and `before` are figures as `report` writes them."""
    same_workload(now, before)
    theirs = {(one["region"], one["tier"]): one for one in before["latency"]}
    for one in now["latency"]:
        other = theirs.get((one["region"], one["tier"]))
        if other is None:
            continue
        mine, its = Times.decoded(one["histogram"]), Times.decoded(other["histogram"])
        if not mine.count or not its.count:
            continue
        ratios = tuple(mine.percentile(p) / its.percentile(p) for p in PERCENTILES)
        slower = quartiles(one["blocks_p95_ms"])[0] > quartiles(other["blocks_p95_ms"])[1]
        yield Compared(one["region"], one["tier"], ratios, slower)
