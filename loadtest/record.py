"""What became of each request, a row of 32 bytes, and HDR histograms of many.

Workers report rows, not histograms: an `HdrHistogram` holds 137 KiB, and encoding the sixty of a second would stop the
generator for 25 ms. The master only joins what it gets, so nothing is lost in merging, and whatever the judge asks is
asked of every single request.
"""

import base64
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter

ROW = struct.Struct("<dfffBBBBHHH2x")
HIGHEST_US = 120_000_000
"""Longer times are recorded as this."""
UNREACHABLE, BROKEN, TIMED_OUT, UNFINISHED = 0, 1, 2, 3
"""In place of a status: no region took the connection; the connection broke after the request was sent; no answer in
time; the run was over before there was one."""
NO_REGION = 255
"""In place of a region: the upstream was asked itself."""


class Request(NamedTuple):
    """A request. Times are seconds; `due` counts from the beginning of the run, warm-up included.

    `response`: from when it was due to the last byte of its answer (of slow readers: the first); `service`: from when
    it was started to the same; `lag`: how late the generator was. `home` and `asked` are the numbers of regions,
    `kind` that of a kind, `worker` that of a process of the generator, `request` that of a name of the workload's own
    requests, from 1; 0: the usual one.
    """

    due: float
    response: float
    service: float
    lag: float
    worker: int
    home: int
    asked: int
    kind: int
    person: int
    status: int
    request: int = 0

    @property
    def sent(self) -> float:
        """When it was really started."""
        return self.due + self.response - self.service

    @property
    def end(self) -> float:
        """When its answer was there."""
        return self.due + self.response

    def packed(self) -> bytes:
        """The row, for `unpacked`."""
        return ROW.pack(*self)


def unpacked(rows: bytes) -> Iterator[Request]:
    """The requests of rows one behind the other."""
    return map(Request._make, ROW.iter_unpack(rows))


def new_histogram() -> HdrHistogram:
    """1 µs to two minutes with three significant digits."""
    return HdrHistogram(1, HIGHEST_US, 3)


class Times:
    """A histogram of seconds."""

    def __init__(self, histogram: HdrHistogram | None = None) -> None:
        self.histogram = new_histogram() if histogram is None else histogram

    def add(self, seconds: float) -> None:
        """Record one."""
        self.histogram.record_value(min(max(int(seconds * 1e6), 1), HIGHEST_US))

    def merge(self, other: "Times") -> None:
        """Record all that `other` has; nothing is lost by it."""
        self.histogram.add(other.histogram)

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self.histogram.get_total_count())

    def percentile(self, percent: float) -> float:
        """Seconds that so many per cent do not exceed; NaN of none."""
        return self.histogram.get_value_at_percentile(percent) / 1e6 if self.count else float("nan")

    def encoded(self) -> str:
        """In the format of HdrHistogram V2, which Java, C and JavaScript read too: zlib and base64."""
        text: str = self.histogram.encode().decode()
        return text

    @classmethod
    def decoded(cls, text: str) -> "Times":
        """What was `encoded`."""
        base64.b64decode(text, validate=True)
        return cls(HdrHistogram.decode(text.encode()))


def write_hdr(file: Path, times: Times, begin: float, seconds: float, comment: str) -> None:
    """Write a histogram log of one interval, values in microseconds; `begin`: Unix seconds."""
    with file.open("w") as stream:
        log = HistogramLogWriter(stream)
        log.output_comment(f"[{comment}; values are microseconds]")
        log.output_log_format_version()
        log.output_legend()
        log.output_interval_histogram(times.histogram, begin, begin + seconds, 1000.0)


def read_hdr(file: Path) -> Times:
    """All intervals of a histogram log in one."""
    total = Times()
    log = HistogramLogReader(str(file), new_histogram())
    while (interval := log.get_next_interval_histogram()) is not None:
        total.histogram.add(interval)
    log.close()
    return total


class PerSecond:
    """Times by the second in which their requests were due."""

    def __init__(self) -> None:
        self._seconds: dict[int, array[float]] = {}

    def add(self, due: float, seconds: float) -> None:
        """Record one."""
        second = int(due)
        if second not in self._seconds:
            self._seconds[second] = array("f")
        self._seconds[second].append(seconds)

    def percentile(self, second: int, percent: float) -> float:
        """Of one second; NaN where nothing was due."""
        return quantile(self._seconds.get(second, ()), percent)

    def count(self, second: int) -> int:
        """How many."""
        return len(self._seconds.get(second, ()))

    def above(self, percent: float, threshold: float) -> tuple[int, int] | None:
        """From which second to the end of which the percentile was above a threshold; None where it never was."""
        found = [second for second in self._seconds if self.percentile(second, percent) > threshold]
        return (min(found), max(found) + 1) if found else None

    def between(self, begin: int, end: int) -> list[float]:
        """All times of these seconds, the last one not included."""
        return [time for second in range(begin, end) for time in self._seconds.get(second, ())]


def quantile(values: Iterable[float], percent: float) -> float:
    """The smallest that at least so many per cent do not exceed; NaN of none."""
    ordered: Sequence[float] = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100), 1).__int__() - 1] if ordered else float("nan")
