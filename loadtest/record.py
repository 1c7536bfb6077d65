"""The result of each request as a row of 32 bytes, and HDR histograms of many requests.

Workers report rows, not histograms: an `HdrHistogram` holds 137 KiB, and encoding the sixty of a second would stop
the generator for 25 ms. The master only joins rows, so merging loses nothing, and the judge can check every single
request.
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
"""In place of a status: no region accepted the connection; the connection broke after the request was sent; no answer
in time; the run ended before the answer.
"""
NO_REGION = 255
"""In place of a region: the request went to the upstream directly."""


class Request(NamedTuple):
    """A request. Times are seconds; `due` counts from the beginning of the run, warm-up included.

    `response` runs from the due time, and `service` from the start, to the last byte of the answer (the first byte
    for slow readers). `lag` is the generator's delay. `home` and `asked` are numbers of regions, `kind` is the
    number of a kind, and `worker` that of a process of the generator. `request` is the number of a name of the
    workload's own requests, from 1; 0 is the usual request.
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
        """When the request started."""
        return self.due + self.response - self.service

    @property
    def end(self) -> float:
        """When its answer was complete."""
        return self.due + self.response

    def packed(self) -> bytes:
        """Return the row for `unpacked`."""
        return ROW.pack(*self)


def unpacked(rows: bytes) -> Iterator[Request]:
    """Yield the requests of consecutive rows."""
    return map(Request._make, ROW.iter_unpack(rows))


def new_histogram() -> HdrHistogram:
    """Return a histogram of 1 µs to two minutes with three significant digits."""
    return HdrHistogram(1, HIGHEST_US, 3)


class Times:
    """A histogram of seconds."""

    def __init__(self, histogram: HdrHistogram | None = None) -> None:
        self.histogram = new_histogram() if histogram is None else histogram

    def add(self, seconds: float) -> None:
        """Record one time."""
        self.histogram.record_value(min(max(int(seconds * 1e6), 1), HIGHEST_US))

    def merge(self, other: "Times") -> None:
        """Add all times of `other`, without loss."""
        self.histogram.add(other.histogram)

    @property
    def count(self) -> int:
        """The number of recorded times."""
        return int(self.histogram.get_total_count())

    def percentile(self, percent: float) -> float:
        """Return the percentile in seconds; NaN if there are no times."""
        return self.histogram.get_value_at_percentile(percent) / 1e6 if self.count else float("nan")

    def encoded(self) -> str:
        """Return the histogram in the format of HdrHistogram V2, which Java, C and JavaScript read too: zlib and
        base64.
        """
        text: str = self.histogram.encode().decode()
        return text

    @classmethod
    def decoded(cls, text: str) -> "Times":
        """Decode a text of `encoded`."""
        base64.b64decode(text, validate=True)
        return cls(HdrHistogram.decode(text.encode()))


def write_hdr(file: Path, times: Times, begin: float, seconds: float, comment: str) -> None:
    """Write a histogram log of one interval, values in microseconds; `begin` is in Unix seconds."""
    with file.open("w") as stream:
        log = HistogramLogWriter(stream)
        log.output_comment(f"[{comment}; values are microseconds]")
        log.output_log_format_version()
        log.output_legend()
        log.output_interval_histogram(times.histogram, begin, begin + seconds, 1000.0)


def read_hdr(file: Path) -> Times:
    """Return all intervals of a histogram log as one."""
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
        """Record one time."""
        second = int(due)
        if second not in self._seconds:
            self._seconds[second] = array("f")
        self._seconds[second].append(seconds)

    def percentile(self, second: int, percent: float) -> float:
        """Return the percentile of one second; NaN if no request was due."""
        return quantile(self._seconds.get(second, ()), percent)

    def count(self, second: int) -> int:
        """Return the number of times in a second."""
        return len(self._seconds.get(second, ()))

    def above(self, percent: float, threshold: float) -> tuple[int, int] | None:
        """Return the first second and the end of the last second with a percentile above a threshold, or None."""
        found = [second for second in self._seconds if self.percentile(second, percent) > threshold]
        return (min(found), max(found) + 1) if found else None

    def between(self, begin: int, end: int) -> list[float]:
        """Return all times of these seconds, the last one not included."""
        return [time for second in range(begin, end) for time in self._seconds.get(second, ())]


def quantile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed; NaN if there are none."""
    ordered: Sequence[float] = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100), 1).__int__() - 1] if ordered else float("nan")
