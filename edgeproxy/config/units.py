"""Numbers with units as operators write them: durations, sizes, rates, counts, switches, moments.

Each `read_…` function accepts the text of the file and returns the plain value, or raises `value_error` with the
problem and a hint. It also accepts plain values, so that one set of models also reads a dumped configuration. Files
contain only text (`config/source.py`), so a plain value without its unit cannot come from them.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import PydanticCustomError

from edgeproxy.config.field_codes import INVALID, NOT_A_DATE, NOT_OFFERED, OUT_OF_RANGE, WRONG_TYPE, FieldCode
from edgeproxy.config.forms import Form, build_any_of, build_number, build_text, build_words, written

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0, "d": 86400.0}
BYTES = {"B": 1.0, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}

TIME_SECONDS_MAX = 400 * 86_400.0
"""Seconds: a year and a month, the longest window or time."""
WINDOW_SECONDS_MIN = 0.3
"""Seconds: a window has 28 cells of at least 10 ms (docs/design/limits.md#cells)."""
COUNT_MAX = (1 << 28) - 1
"""The largest count of a cell (docs/design/limits.md#cells)."""

SIZE_BYTES_MAX = 1 << 50
BUFFERED_BYTES = 1 << 30
"""Default of the bytes of bodies that each worker may have on disk at once."""
HELD_BYTES = 56 << 20
"""Default of the bytes that each worker may hold in memory for clients."""
CUSTOMER_BYTES = 940
"""Bytes of a customer on a route, with the name, the key, and all counters. A test measures them
(tests/edge/proxy/routing/test_identity_memory.py). `REMEMBERED_BYTES` has room for 100,000 of them.
"""
FURTHER_ROUTE_BYTES = 320
"""Bytes of a customer on each further route with the same limits."""
REMEMBERED_BYTES = 128 << 20
"""Default of the bytes that each worker may hold in memory for recent customers."""

NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,20})?(?:[eE]\+?[0-9]{1,2})?"
QUANTITY = re.compile(rf"({NUMBER}) ?([A-Za-z]*)")
SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,10})?|100(?:\.0{1,10})?) ?%")
RATE = re.compile(rf"({NUMBER}) ?/ ?({NUMBER} ?)?([A-Za-z]+)")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MOMENT = re.compile(DATE.pattern + r"[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")

A_TIME = "a time such as 250ms, 5s or 2min"
A_SIZE = "a size such as 512B, 64KiB or 10MiB"
A_SHARE = "a share from 0% to 100%, such as 20%"
A_SAMPLE = "a share above 0% such as 1%"
A_RATE = "N/UNIT such as 60/min, 200/s or 100/10s"
A_PAUSE = "403, or 402 where it is about a payment"
A_MOMENT = "a date such as 2027-01-01, or a time such as 2027-01-01T12:00:00Z"

DAY_SECONDS = 86_400.0
TIME_PATTERN = rf"{NUMBER} ?({'|'.join(SECONDS)})"
TIME = build_text("time", TIME_PATTERN, "250ms", "5s", "2min")
SIZE = rf"{NUMBER} ?({'|'.join(BYTES)})"

WORKERS_MAX = 224
"""Each worker uses two of the 448 columns of a table."""

SHOWN_CHARACTERS_MAX = 60
"""Maximum characters of a value in an error."""


def value_error(what: str, hint: str, code: FieldCode = INVALID, **params: str | int) -> PydanticCustomError:
    """Create the error of a value: the problem (`what`), a `hint`, the code of the problem and the figures in it."""
    return PydanticCustomError("wrong", "{what}, {hint}", {"what": what, "hint": hint, "code": code, "params": params})


def format_value(value: str) -> str:
    """Quote a value for an error: in one line of at most SHOWN_CHARACTERS_MAX, without the password of a URL."""
    value = redact_password(value, "…@")
    return repr(value if len(value) <= SHOWN_CHARACTERS_MAX else value[: SHOWN_CHARACTERS_MAX - 1] + "…")


def redact_password(value: str, instead: str = "") -> str:
    """Remove a possible password: from `//`, or from the beginning of USER:PASSWORD@, to the last `@`."""
    return re.sub(r"(//|^(?=[^@/:]*:(?!//))).*@", lambda match: match[1] + instead, value, flags=re.DOTALL)


def read_text(value: object, hint: str) -> str:
    """Return `value` if it is text. Otherwise raise an error with `hint`."""
    if not isinstance(value, str):
        what = "is a mapping" if isinstance(value, dict) else "is not a single value"
        raise value_error(what, hint, WRONG_TYPE)
    return value


def read_quantity(value: object, units: dict[str, float], hint: str) -> float:
    """Read a number with a unit, in multiples of the unit that counts 1.0."""
    written = read_text(value, hint)
    match = QUANTITY.fullmatch(written)
    if match is None:
        raise value_error(f"{format_value(written)} is not a number with a unit", hint)
    number, unit = match.groups()
    if not unit:
        raise value_error(f"{format_value(written)} lacks a unit", hint)
    if unit not in units:
        raise value_error(f"{format_value(unit)} is not a unit", f"write one of {', '.join(units)}")
    return float(number) * units[unit]


def format_seconds(seconds: float) -> str:
    """Format a time as it would be written, in the largest unit that gives a whole number: `30s`, `7day`."""
    for unit in ("day", "h", "min", "s"):
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.15g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"


def format_share(share: float) -> str:
    """Format a share as it would be written: `20%`."""
    return f"{share * 100:g}%"


@dataclass(frozen=True, slots=True)
class PatternText:
    """The reader of a text that matches `pattern`."""

    title: str
    pattern: re.Pattern[str]
    fault: str
    """The problem of any other text. `{}` stands for that text."""
    hint: str
    examples: tuple[str, ...] = ()
    code: FieldCode = INVALID
    convert: Callable[[str], str] = str
    """Returns the value for a matching text, or raises `value_error`."""
    write: Callable[[str], str | None] = str
    """Returns the written form. None: it cannot be shown."""

    @property
    def form(self) -> Form:
        """The written form."""
        return Form(lambda _: build_text(self.title, self.pattern.pattern, *self.examples), self.write)

    def __call__(self, value: object) -> str:
        text = read_text(value, self.hint)
        if not self.pattern.fullmatch(text):
            raise value_error(self.fault.format(format_value(text)), self.hint, self.code)
        return self.convert(text)


@written(TIME, format_seconds)
def read_wait(value: object) -> float:
    """Read a time in seconds, which may be zero: `30s`, `0s`."""
    if isinstance(value, float):
        return value
    seconds = read_quantity(value, SECONDS, A_TIME)
    if seconds > TIME_SECONDS_MAX:
        raise value_error(f"{format_value(str(value))} is too long", "at most 400day")
    return seconds


@written(TIME, format_seconds)
def read_duration(value: object) -> float:
    """Read a time in seconds, above zero: `250ms`, `5s`, `2min`."""
    seconds = read_wait(value)
    if seconds <= 0:
        raise value_error("is zero", A_TIME)
    return seconds


@dataclass(frozen=True, slots=True)
class Time:
    """The reader of a time of `lowest` to `highest` seconds, both included."""

    lowest: float
    highest: float

    @property
    def form(self) -> Form:
        """The written form."""
        title = f"time from `{format_seconds(self.lowest)}` to `{format_seconds(self.highest)}`"
        return Form(lambda _: build_text(title, TIME_PATTERN, format_seconds(self.lowest)), format_seconds)

    def __call__(self, value: object) -> float:
        seconds = read_wait(value)
        if not self.lowest <= seconds <= self.highest:
            raise value_error(
                f"{format_value(str(value))} is out of range",
                f"from {format_seconds(self.lowest)} to {format_seconds(self.highest)}",
                OUT_OF_RANGE,
            )
        return seconds


@dataclass(frozen=True, slots=True)
class Days:
    """The reader of `lowest` to `highest` whole days, both included, in seconds. Errors add the text `also`."""

    lowest: int
    highest: int
    also: str = ""

    @property
    def form(self) -> Form:
        """The written form."""
        return Form(lambda _: build_text("days", TIME_PATTERN, "90day"), format_seconds)

    def __call__(self, value: object) -> float:
        if isinstance(value, float):
            return value
        hint = f"{self.also}whole days from {self.lowest}day to {self.highest}day"
        days = read_quantity(value, SECONDS, hint) / DAY_SECONDS
        if not days.is_integer() or not self.lowest <= days <= self.highest:
            raise value_error(f"{format_value(str(value))} is out of range", hint, OUT_OF_RANGE)
        return days * DAY_SECONDS


@written(build_text("size", SIZE, "10MiB"))
def read_bytes(value: object) -> int:
    """Read a size in bytes: `64KiB`, `10MiB`."""
    if isinstance(value, int):
        return value
    size = read_quantity(value, BYTES, A_SIZE)
    if not size.is_integer() or size > SIZE_BYTES_MAX:
        raise value_error(f"{format_value(str(value))} is not a whole number of bytes up to 2^50", A_SIZE)
    return int(size)


def format_size(size: int) -> str:
    """Format bytes as they would be written, in the largest unit that gives a whole number."""
    unit = max((unit for unit, count in BYTES.items() if size % count == 0), key=BYTES.__getitem__)
    return f"{size / BYTES[unit]:.0f}{unit}"


@written(build_text("share", SHARE.pattern, "20%"), format_share)
def read_share(value: object) -> float:
    """Read a share from 0 to 1: `20%`."""
    if isinstance(value, float):
        return value
    written = read_text(value, A_SHARE)
    match = SHARE.fullmatch(written)
    if match is None:
        raise value_error(f"{format_value(written)} is not a share", A_SHARE)
    return float(match[1]) / 100


@written(build_text("share above `0%`", rf"(?!0+(\.0+)? ?%){SHARE.pattern}", "1%"), format_share)
def read_sample(value: object) -> float:
    """Read a share above zero."""
    share = read_share(value)
    if not share:
        raise value_error("is nothing at all", A_SAMPLE)
    return share


@dataclass(frozen=True, slots=True)
class Size:
    """The reader of a size of `lowest` to `highest` bytes, both included."""

    lowest: int
    highest: int

    @property
    def form(self) -> Form:
        """The written form."""
        title = f"size from `{format_size(self.lowest)}`"
        if self.highest < SIZE_BYTES_MAX:
            title += f" to `{format_size(self.highest)}`"
        return Form(lambda _: build_text(title, SIZE, format_size(self.lowest)), format_size)

    def __call__(self, value: object) -> int:
        size = read_bytes(value)
        if not self.lowest <= size <= self.highest:
            raise value_error(
                f"{format_value(str(value))} is out of range",
                f"from {format_size(self.lowest)} to {format_size(self.highest)}",
                OUT_OF_RANGE,
            )
        return size


@written(
    build_text("`none` or size", f"none|{SIZE}", "none", "10MiB"), lambda size: "none" if size is None else f"{size}B"
)
def read_body(value: object) -> int | None:
    """Read the maximum bytes of a body. `none`: any number."""
    return None if value is None or value == "none" else read_bytes(value)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate: `count` in any `seconds`."""

    count: int
    seconds: float

    def __str__(self) -> str:
        """Format the rate as it would be written: `60/min`, `100/10s`. Reading it gives exactly these seconds."""
        window = format_seconds(self.seconds)
        if read_quantity(window, SECONDS, A_TIME) != self.seconds:
            window = f"{self.seconds!r}s"  # For example, 0.7 is not 700 * 0.001.
        return f"{self.count}/{re.sub('^1(?=[a-z])', '', window)}"


@written(build_text("rate", rf"{NUMBER} ?/ ?({NUMBER} ?)?({'|'.join(SECONDS)})", "60/min", "100/10s"))
def read_rate(value: object) -> Rate:
    """Read a count per window: `60/min`, `100/10s`, `1e6/day`."""
    if isinstance(value, Rate):
        return value
    written = read_text(value, A_RATE)
    match = RATE.fullmatch(written)
    if match is None:
        raise value_error(f"{format_value(written)} is not a rate", A_RATE)
    count, times, unit = match.groups()
    if unit not in SECONDS:
        raise value_error(f"{format_value(unit)} is not a unit", f"write one of {', '.join(SECONDS)}")
    seconds = float(times or 1) * SECONDS[unit]
    if not WINDOW_SECONDS_MIN <= seconds <= TIME_SECONDS_MAX:
        raise value_error(f"the window of {format_value(written)} is {seconds:g} s", "from 300ms to 400day")
    if not float(count).is_integer() or not 1 <= float(count) <= COUNT_MAX:
        raise value_error(f"the count of {format_value(written)} is {count}", f"a whole number from 1 to {COUNT_MAX}")
    return Rate(int(float(count)), seconds)


@written(build_text("date or time", f"{DATE.pattern}|{MOMENT.pattern}", "2027-01-01"))
def read_moment(value: object) -> float:
    """Read a moment as Unix seconds. A date is the beginning of that day in UTC, a date-time is as in RFC 3339."""
    if isinstance(value, float):
        return value
    written = read_text(value, A_MOMENT)
    if not DATE.fullmatch(written) and not MOMENT.fullmatch(written):
        raise value_error(f"{format_value(written)} is not a date", A_MOMENT, NOT_A_DATE)
    try:
        moment = datetime.fromisoformat(written.upper())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise value_error(f"{format_value(written)} is not in the calendar", A_MOMENT, NOT_A_DATE) from None


@written(lambda inner: build_words(True, False, title="switch") if "type" in inner else inner, bool)
def read_switch(value: object) -> bool:
    """Read a switch: `true` or `false`, or YAML's other words for them."""
    if isinstance(value, bool):
        return value
    hint = "write true or false"
    word = read_text(value, hint)
    if word.lower() in ("true", "yes", "on"):
        return True
    if word.lower() in ("false", "no", "off"):
        return False
    raise value_error(f"{format_value(word)} is neither", hint)


@dataclass(frozen=True, slots=True)
class Whole:
    """The reader of a whole number from `lowest` to `highest`, both included. Errors add the text `also`."""

    lowest: int
    highest: int
    also: str = ""

    @property
    def form(self) -> Form:
        """The written form."""
        return Form(lambda _: build_number(self.lowest, self.highest), int)

    def __call__(self, value: object) -> int:
        hint = f"{self.also}a whole number from {self.lowest} to {self.highest}"
        written = str(value) if type(value) is int else read_text(value, hint)
        if not re.fullmatch(r"-?[0-9]{1,18}", written):
            raise value_error(f"{format_value(written)} is not a whole number", hint)
        if not self.lowest <= int(written) <= self.highest:
            raise value_error(f"{int(written)} is out of range", hint, OUT_OF_RANGE)
        return int(written)


some_at_once = Whole(1, COUNT_MAX, also="none, or ")
NONE_OR_COUNT = build_any_of({"const": "none"}, build_number(1, COUNT_MAX))


@written(NONE_OR_COUNT, lambda _: "none")
def read_concurrency(value: object) -> int | None:
    """Read a number of concurrent requests. `none`: any number."""
    return None if value is None or value == "none" else some_at_once(value)


@written(build_any_of(build_words("none"), build_text("time from `1min`", TIME_PATTERN, "24h")), lambda _: None)
def read_age(value: object) -> float | str | None:
    """Read a time of at least a minute, or `none`: any time."""
    return "none" if value == "none" else None if value is None else Time(60.0, TIME_SECONDS_MAX)(value)


some_or_as_requested = Whole(1, COUNT_MAX, also="request, or ")


@written(build_any_of(build_words("request"), build_number(1, COUNT_MAX)), lambda _: None)
def read_reserve(value: object) -> int | str | None:
    """Read a number of units, or `request`: the request tells the number."""
    return "request" if value == "request" else None if value is None else some_or_as_requested(value)


@written(lambda inner: build_any_of({"const": "none"}, build_number(1, COUNT_MAX), inner), lambda _: "none")
def read_concurrency_limit(value: object) -> object:
    """Read a concurrency limit: a plain number, or a mapping with it. `none`: any number."""
    if value is None or value == "none":
        return None
    return {"max": some_at_once(value)} if isinstance(value, str | int | list) else value


@written(lambda inner: build_any_of({"const": "none"}, build_number(1, COUNT_MAX), inner))
def read_own_concurrency(value: object) -> object:
    """Read a concurrency limit like `read_concurrency_limit`, but keep `none`, which removes an inherited limit."""
    return "none" if value == "none" else read_concurrency_limit(value)


analytics_time = Time(DAY_SECONDS, TIME_SECONDS_MAX)


@written(build_text("time from `1day`", TIME_PATTERN, "30day"), lambda _: None)
def read_analytics(value: object) -> float | None:
    """Read a time of at least a day."""
    return None if value is None else analytics_time(value)


@written(lambda inner: inner, int)
def read_pause(value: object) -> int:
    """Read the status of answers to a paused customer."""
    if isinstance(value, int):
        return value
    written = read_text(value, A_PAUSE)
    if written not in ("403", "402"):
        raise value_error(f"{format_value(written)} is not a status for this", A_PAUSE, NOT_OFFERED)
    return int(written)


some_workers = Whole(1, WORKERS_MAX, also="auto, or ")


def count_cores() -> int:
    """Count the cores that this process may use, up to the maximum of workers."""
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


@written(build_any_of({"const": "auto"}, build_number(some_workers.lowest, some_workers.highest)))
def read_workers(value: object) -> int:
    """Read the number of workers. `auto`: one per core."""
    return count_cores() if value == "auto" else some_workers(value)
