"""An access log as a schedule: its requests at their moments, faster, without idle times, and without its people."""

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from loadtest.schedule import Recorded

LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "([A-Z]+) [^"]*" (?:\d+) (\d+|-)')
"""Common and combined log format."""
TIME = "%d/%b/%Y:%H:%M:%S %z"
LARGEST = 256 << 10
"""Bytes: larger answers are asked for as this, or a few downloads would be all that is measured."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Logged(NamedTuple):
    """A line of a log: Unix seconds, who asked (a number made of the address), how, and the bytes of the answer."""

    at: float
    person: int
    method: str
    size: int


def person(address: str, key: object) -> int:
    """A number of 63 bits that stands for an address; nobody finds that again who does not have the key."""
    digest = hashlib.blake2b(address.encode(), key=str(key).encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def logged(lines: Iterable[str], key: object) -> Iterator[Logged]:
    """What the lines say; those of another form are left out."""
    for line in lines:
        if found := LINE.match(line):
            address, time, method, size = found.groups()
            if method in METHODS:
                at = datetime.strptime(time, TIME).astimezone(UTC).timestamp()
                yield Logged(at, person(address, key), method, min(0 if size == "-" else int(size), LARGEST))


def recorded(lines: Iterable[str], key: object, *, speed: float, longest_gap: float) -> Recorded:
    """The requests of a log, `speed` times as fast, no two further apart than `longest_gap` seconds.

    Logs have whole seconds, in the order in which answers ended: they are sorted, and the requests of one second are
    spread evenly over it.
    """
    ordered = sorted(logged(lines, key), key=lambda one: one.at)
    together = Counter(one.at for one in ordered)
    requests: list[tuple[float, int, str, int]] = []
    nth: Counter[float] = Counter()
    at = before = 0.0
    for number, one in enumerate(ordered):
        moment = one.at + nth[one.at] / together[one.at]
        nth[one.at] += 1
        if number:
            at += min((moment - before) / speed, longest_gap)
        before = moment
        requests.append((at, one.person, one.method, one.size))
    return Recorded(at + 1 / max(speed, 1.0), requests)


def read(log: Path) -> list[str]:
    """The lines of a log, gzipped or not; raises OSError."""
    content = log.read_bytes()
    text = gzip.decompress(content) if log.suffix == ".gz" else content
    return text.decode("latin-1").splitlines()
