"""Reports as calls of the hub's functions, and parsers of their answers. Pure.

loadtest/testbed/memory_hub.py implements the functions in Python. redis.py sends the calls.
"""

import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, TypeAlias

from edgeproxy.base.clock import EPOCH
from edgeproxy.hub.bounds import format_invalid_answer
from edgeproxy.hub.report import Gauge, GaugeTotal, Period, PeriodTotal, Report, ReportAnswer

KEY_RETENTION_SECONDS = 60
"""Seconds before an irrelevant key is deleted."""
DAY_SECONDS = 86400
COUNT_MAX = 1 << 53
"""The largest number that Lua, with its doubles, represents exactly."""
LEVEL_MAX = 1 << 50
"""Larger than any level of a bucket and any time. The map has room for it."""
HOSTS_MAX = 1_000_000
"""Maximum hosts that a hub may report. More indicate a wrong answer."""
DAY_NUMBER_MIN = 1 << 19
"""Numbers of calendar days (base/calendar.py) are larger, numbers of longer periods are smaller."""
UNIX_SECONDS_MAX = EPOCH + (1 << 30)
"""The latest plausible time of a hub's clock, in Unix seconds.

In 2059 the ticks of levels end (edge/limits/levels.py).
"""
JUMP_SECONDS = 5.0
"""Seconds. Times further in the future were written before a clock was set back (scripts/rate.lua)."""
ROUNDING_SECONDS = 0.001
"""Maximum rounding error of a time that was written as text and read back, in seconds."""

Argument = bytes | str | float
RedisAnswer: TypeAlias = Any
"""An answer from the library's parser: bytes, numbers, None, and lists of these. The functions below check it."""

RATE, PERIOD, GAUGE, HEARTBEAT = "rate", "period", "gauge", "heartbeat"
EDGE_SCRIPTS = (RATE, PERIOD, GAUGE, HEARTBEAT)
"""The scripts that edges call."""
STAGE, COMMIT, TIME, COUNTED = "stage", "commit", "time", "counted"
DIRECTORY_SCRIPTS = (STAGE, COMMIT, TIME, COUNTED)
"""The scripts that write the directory, and the counts of the ledger, to the hub."""
SCRIPTS = (*EDGE_SCRIPTS, *DIRECTORY_SCRIPTS)
PREAMBLE = "preamble"
"""Name of the scripts' shared code."""


def read_script(name: str) -> bytes:
    """Return the text of a script, or of PREAMBLE."""
    return files("edgeproxy.hub").joinpath(f"scripts/{name}.lua").read_bytes()


def key_prefix(key: bytes) -> bytes:
    """Return the prefix of all Redis keys of a row's key, which puts them into one slot of a cluster.

    Redis uses the text in braces unless it is empty, and a digest may begin with the closing brace.
    """
    return b"rl:{%b}" % (b"%" + key if key.startswith(b"}") else key)


def build_rate_call(report: Report) -> tuple[list[bytes], list[Argument]]:
    """Build the keys and arguments of rate.lua."""
    window, bucket = report.window, report.bucket
    retention_seconds = math.ceil(report.span * 1.1) + KEY_RETENTION_SECONDS
    arguments: list[Argument] = [
        report.instance,
        report.seq,
        report.born,
        _format_exact(report.now),
        _format_exact(report.span),
    ]
    arguments += [report.cum, report.spent, report.want, retention_seconds]
    arguments += (0, 0, 0) if window is None else (window.limit, window.cells, window.cell)
    arguments += (0, 0, 0, 0) if bucket is None else (bucket.depth, *map(_format_exact, bucket[1:]))
    if window is not None:
        for cell in window.changed:
            arguments += cell
    prefix = key_prefix(report.key)
    return [b"%b:total" % prefix, b"%b:host:%d" % (prefix, report.instance)], arguments


def parse_rate_answer(answer: object, report: Report) -> ReportAnswer:
    """Parse the answer of rate.lua to a report. Raises ValueError if it is invalid."""
    known, hosts, in_hand, foreign, claims, level, now = _split_answer(answer, 7, RATE)
    if (
        type(foreign) is not list
        or type(claims) is not list
        or len(foreign) % 2
        or len(claims) % 3
        or not _are_counts([known, hosts, in_hand, *foreign, *claims])
        or not (_is_number(level) and _is_number(now))
        or hosts > HOSTS_MAX
        or not report.now - ROUNDING_SECONDS <= float(now) <= report.now + JUMP_SECONDS + ROUNDING_SECONDS
    ):
        raise ValueError(format_invalid_answer(answer, f"the script {RATE}"))
    return ReportAnswer(
        bool(known),
        hosts,
        in_hand,
        dict(zip(foreign[::2], foreign[1::2], strict=True)),
        dict(zip(claims[::3], claims[1::3], strict=True)),
        {cell: settled for cell, settled in zip(claims[::3], claims[2::3], strict=True) if settled},
        float(level),
        float(now),
    )


def build_period_call(period: Period) -> tuple[list[bytes], list[Argument]]:
    """Build the keys and arguments of period.lua. The keys are stored for longer than the period."""
    key = b"%b:quota:%d" % (key_prefix(period.key), period.period)
    days = 3 if period.period >= DAY_NUMBER_MIN else 35
    arguments: list[Argument] = [period.instance, period.period, period.amount, days * DAY_SECONDS]
    return [key, b"%b:%d" % (key, period.instance)], arguments


def parse_period_answer(answer: object, reported: Period) -> PeriodTotal:
    """Parse the answer of period.lua. Raises ValueError if it is invalid."""
    (others,) = _split_answer(answer, 1, PERIOD)
    # The count of others may be negative, if the hub has lost counts that were given back since.
    if type(others) is not int:
        raise ValueError(format_invalid_answer(answer, f"the script {PERIOD}"))
    return PeriodTotal(reported.period, others)


def build_gauge_call(gauge: Gauge) -> tuple[list[bytes], list[Argument]]:
    """Build the keys and arguments of gauge.lua."""
    retention_seconds = math.ceil(gauge.until - gauge.now) + KEY_RETENTION_SECONDS
    return [b"%b:gauge" % key_prefix(gauge.key)], [
        gauge.instance,
        gauge.amount,
        _format_exact(gauge.now),
        _format_exact(gauge.until),
        retention_seconds,
    ]


def parse_gauge_answer(answer: object) -> GaugeTotal:
    """Parse the answer of gauge.lua. Raises ValueError if it is invalid."""
    others, hosts = _split_answer(answer, 2, GAUGE)
    if not _are_counts([others, hosts]) or hosts > HOSTS_MAX:
        raise ValueError(format_invalid_answer(answer, f"the script {GAUGE}"))
    return GaugeTotal(others, hosts)


def parse_heartbeat_answer(answer: object) -> tuple[int, bool]:
    """Return the number of hosts and whether this host is new, from the answer of heartbeat.lua. Raises ValueError."""
    hosts, is_new = _split_answer(answer, 2, HEARTBEAT)
    if not _are_counts([hosts, is_new]) or not 1 <= hosts <= HOSTS_MAX:
        raise ValueError(format_invalid_answer(answer, f"the script {HEARTBEAT}"))
    return hosts, bool(is_new)


def parse_clock(answer: RedisAnswer) -> float:
    """Return the hub's clock in an answer of any script, in Unix seconds. Raises ValueError if it is implausible."""
    seconds, rest = answer[-2:]
    if not all(type(part) is bytes and part.isdigit() for part in (seconds, rest)):
        raise ValueError(format_invalid_answer(answer, "a script"))
    clock = int(seconds) + int(rest) / 1e6
    if not EPOCH <= clock < UNIX_SECONDS_MAX:
        raise ValueError(f"its clock is wrong: it says {int(clock)}, in Unix seconds")
    return clock


def _split_answer(answer: object, length: int, script: str) -> RedisAnswer:
    """Return the first `length` values of an answer, which ends with the two values of the hub's clock."""
    if type(answer) is not list or len(answer) != length + 2:
        raise ValueError(format_invalid_answer(answer, f"the script {script}"))
    return answer[:length]


def _are_counts(numbers: Iterable[object]) -> bool:
    """Return whether all of these are whole numbers ≥ 0 that doubles represent exactly."""
    return all(type(number) is int and 0 <= number <= COUNT_MAX for number in numbers)


def _is_number(value: object) -> bool:
    """Return whether this is a number ≥ 0 in the format of the scripts."""
    try:
        return type(value) is bytes and 0 <= float(value) < LEVEL_MAX
    except ValueError:
        return False


def _format_exact(number: float) -> str:
    return repr(float(number))
