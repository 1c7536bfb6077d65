"""What a report is as a call of a script, and how the scripts' answers read. Pure.

What the scripts do, memory.py says in Python; which node is asked, and how, is redis.py's.
"""

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from edgeproxy.sync.report import Gauge, GaugeTold, Period, PeriodTold, Report, Told

KEPT_LONGER = 60
"""Seconds for which a key outlives what it says."""
DAY = 86400

Argument = bytes | str | float

RATE, PERIOD, GAUGE, HEARTBEAT = "rate", "period", "gauge", "heartbeat"
SCRIPTS = (RATE, PERIOD, GAUGE, HEARTBEAT)


def script(name: str) -> bytes:
    """The text of a script."""
    return files("edgeproxy.sync").joinpath(f"scripts/{name}.lua").read_bytes()


def named_by(key: bytes) -> bytes:
    """What the names begin with of all that the hub has of a row's key, which puts it into one slot of a cluster.

    What is within the braces does, if it is something; and a digest may begin with the one that closes.
    """
    return b"rl:{%b}" % (b"%" + key if key.startswith(b"}") else key)


def rate_call(said: Report) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of rate.lua."""
    window, bucket = said.window, said.bucket
    kept = math.ceil(said.span * 1.1) + KEPT_LONGER
    given: list[Argument] = [said.instance, said.seq, said.born, _exact(said.now), _exact(said.span)]
    given += [said.cum, said.spent, said.want, kept]
    given += (0, 0, 0) if window is None else (window.limit, window.cells, window.cell)
    given += (0, 0, 0, 0) if bucket is None else (bucket.depth, *map(_exact, bucket[1:]))
    if window is not None:
        for cell in window.changed:
            given += cell
    named = named_by(said.key)
    return [b"%b:t" % named, b"%b:h:%d" % (named, said.instance)], given


def rate_told(answer: Sequence[Any]) -> Told:
    """What rate.lua says."""
    known, hosts, in_hand, foreign, claims, level, now = answer[:7]
    return Told(
        bool(known),
        hosts,
        in_hand,
        dict(zip(foreign[::2], foreign[1::2], strict=True)),
        dict(zip(claims[::3], claims[1::3], strict=True)),
        {cell: settled for cell, settled in zip(claims[::3], claims[2::3], strict=True) if settled},
        float(level),
        float(now),
    )


def period_call(said: Period) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of period.lua; kept for longer than the longest month."""
    return [b"%b:q" % named_by(said.key)], [said.instance, said.period, said.amount, 35 * DAY]


def period_told(answer: Sequence[Any]) -> PeriodTold:
    """What period.lua says."""
    return PeriodTold(answer[0], answer[1])


def gauge_call(said: Gauge) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of gauge.lua."""
    kept = math.ceil(said.until - said.now) + KEPT_LONGER
    return [b"%b:g" % named_by(said.key)], [said.instance, said.amount, _exact(said.now), _exact(said.until), kept]


def gauge_told(answer: Sequence[Any]) -> GaugeTold:
    """What gauge.lua says."""
    return GaugeTold(answer[0], answer[1])


def clock_of(answer: Sequence[Any]) -> float:
    """The hub's clock in an answer of any script, Unix seconds."""
    return int(answer[-2]) + int(answer[-1]) / 1e6


def _exact(number: float) -> str:
    return repr(float(number))
