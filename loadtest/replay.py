"""An access log as a schedule of its requests: faster, without idle times, and without personal data.

The log has the combined format or edgeproxy's own.
"""

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from loadtest.schedule import Recorded

LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "([A-Z]+) (\S*)[^"]*" (\d+) (\d+|-)')
"""Common and combined log format."""
PATH = re.compile(r"/[!-~]*")
TIME = "%d/%b/%Y:%H:%M:%S %z"
LARGEST = 256 << 10
"""Bytes. Requests for larger answers ask for this, or a few downloads would dominate the measurement."""
SAFE = frozenset(("GET", "HEAD"))
"""Methods that are repeated. Others would change something, and logs lack their bodies."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Logged(NamedTuple):
    """A line of a log: Unix seconds, the sender (a number made of the customer or address), method, bytes of the
    answer, its status, and the path with its query. The path is empty if the request cannot be repeated.
    """

    at: float
    person: int
    method: str
    size: int
    status: int
    path: str


def person(address: str, key: object) -> int:
    """Return a number of 63 bits that stands for an address. Without the key it does not reveal the address."""
    digest = hashlib.blake2b(address.encode(), key=str(key).encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def logged(lines: Iterable[str], key: object) -> Iterator[Logged]:
    """Yield the parsed lines of edgeproxy's own log or of the combined format; other lines are skipped."""
    for line in lines:
        found = _of_json(line) if line.startswith("{") else LINE.match(line)
        if found is None:
            continue
        who, time, method, path, status, size = found if isinstance(found, tuple) else found.groups()
        try:
            moment = datetime.fromisoformat(time) if "T" in time else datetime.strptime(time, TIME)  # noqa: DTZ007
        except ValueError:
            continue
        if method in METHODS:
            length = min(0 if size == "-" else int(size), LARGEST)
            asked = path if PATH.fullmatch(path) and "#" not in path else ""
            yield Logged(moment.astimezone(UTC).timestamp(), person(who, key), method, length, int(status), asked)


def _of_json(line: str) -> tuple[str, str, str, str, str, str] | None:
    """Return these fields of a line of edgeproxy's access log; None for another line, or a request without an
    answer.
    """
    try:
        row = orjson.loads(line)
        who = row.get("customer", "-")
        who = row["client"] if who == "-" else who
        return who, row["time"], row["method"], row["path"], str(row["status"]), str(row["bytes_out"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def is_repeatable(one: Logged) -> bool:
    """Return whether a request can be repeated: it changes nothing, and succeeded."""
    return bool(one.path) and one.method in SAFE and one.status < 400


def recorded(lines: Iterable[str], key: object, *, speed: float, longest_gap: float, paths: bool = False) -> Recorded:
    """Return the requests of a log, `speed` times as fast, with gaps of at most `longest_gap` seconds.

    With `paths` these are the repeatable requests, with their paths. Logs have whole seconds, in the order in which
    answers ended. So lines are sorted, and the requests of one second are spread evenly over it.
    """
    ordered = sorted(logged(lines, key), key=lambda one: one.at)
    if paths:
        ordered = [one for one in ordered if is_repeatable(one)]
    together = Counter(one.at for one in ordered)
    requests: list[tuple[float, int, str, int, str]] = []
    nth: Counter[float] = Counter()
    at = before = 0.0
    for number, one in enumerate(ordered):
        moment = one.at + nth[one.at] / together[one.at]
        nth[one.at] += 1
        if number:
            at += min((moment - before) / speed, longest_gap)
        before = moment
        requests.append((at, one.person, one.method, one.size, one.path if paths else ""))
    return Recorded(at + 1 / max(speed, 1.0), requests)


def read(log: Path) -> list[str]:
    """Return the lines of a log, gzipped or not; raises OSError."""
    content = log.read_bytes()
    text = gzip.decompress(content) if log.suffix == ".gz" else content
    return text.decode("latin-1").splitlines()
