"""The directory: customers and their keys, in versions, each of which comes whole or not at all.

It is a log with a line for each version, the last of which is what is so. The first is `whole`: all customers; each of
the others has what changed with it. The lines of a version's customers (config/directory.py) are its parts, which never
change once the version is in the log. So a change of any size becomes visible by one line, and what reads meanwhile
reads a version that was. The token names a version for good: a log that was lost and begins again has other ones.

In the hub `dir:{people}:log` is the list of lines, `dir:{people}:parts:TOKEN` that of a version's parts, and
`dir:{people}:time` has one line: when which version was last known to be the newest. Lines are
signed (directory_signatures.py).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import orjson

from edgeproxy.wire.directory_signatures import LineKind, Signer, split_signature

LOG = b"dir:{people}:log"
TIME = b"dir:{people}:time"
NEWS = b"dir:{people}:news"
"""The channel on which it is published that there is another version."""
FOLLOWER_FIELD = "Edge-Follower"
"""The field with which an edge names itself where it fetches the directory from the collector: its region, a dot and
eight digits that are new with each connection."""
UNSIGNED, SIGNED = 1, 2
"""The form of lines: what earlier versions of edgeproxy read too, and what says which line it follows. Another one is
for a later version to read."""

CallHub = Callable[..., Awaitable[Any]]
"""Sends the hub a command, such as `ask("LINDEX", LOG, -1)`; raises HubUnavailableError or ResponseError."""


class UnreadableDirectoryError(Exception):
    """The directory cannot be read, or not any more; the text says why."""


class Version(NamedTuple):
    """A line of the log."""

    number: int
    token: str
    whole: bool
    """Whether its parts have all customers, not only changes."""
    parts: int
    size: int
    """Bytes of all parts."""
    sha256: str
    """Over the bytes of all parts, in hex."""
    customers: int
    keys: int
    """Number of keys as of this version."""
    at: float
    """Unix time in seconds of its push, later than that of the line before it (compute_push_time)."""
    form: int = UNSIGNED
    before: str = ""
    """The SHA-256 of the line before it, in hex; empty where there is none."""
    back: bool = False
    """Whether it is meant to be less than, or differ from, edges' own."""


FIELD_TYPES: tuple[type | tuple[type, ...], ...] = (
    int,
    str,
    bool,
    int,
    int,
    str,
    int,
    int,
    (int, float),
    int,
    str,
    bool,
)
"""Type of each field of a line, for anyone who may write to the hub may have written to the log."""

TIME_FIELD_TYPES: tuple[type | tuple[type, ...], ...] = ((int, float), int, str)


class Line(NamedTuple):
    """A line of the log, and the version that it is about."""

    version: Version
    raw: bytes

    @property
    def hash(self) -> str:
        """SHA-256 that the next line repeats."""
        return compute_line_hash(self.raw)


class Time(NamedTuple):
    """A statement that the newest version at Unix second `at` was `number`, with a line of hash `hash`."""

    at: float
    number: int
    hash: str


CLOCK_STEP_SECONDS_MAX = 86400.0
"""Seconds by which a signer's clock may be behind its last push, and the next one be dated after that still."""
PUSH_STEP_SECONDS = 0.001
"""Seconds between two pushes at least."""
LINES_MAX = 4096
"""Lines of a log (scripts/commit.lua)."""
LINE_BYTES_MAX = 65536
"""Bytes of a line (scripts/preamble.lua)."""
INTEGER_MAX = 1 << 53
"""Exclusive bound of a line's integers."""


def parts_key(token: str) -> bytes:
    """Return the key of the parts of a version."""
    return b"dir:{people}:parts:%b" % token.encode()


def compute_line_hash(line: bytes) -> str:
    """Return the SHA-256 of a line, in hex."""
    return hashlib.sha256(line).hexdigest()


def format_version(version: Version, signer: Signer | None = None) -> bytes:
    """Format a version as a line of the log."""
    fields = version._asdict()
    if version.form == UNSIGNED:
        del fields["before"], fields["back"]
    payload = orjson.dumps(fields)
    return payload if signer is None else signer.sign(LineKind.VERSION, payload)


def parse_version(line: bytes) -> Version:
    """Parse the version of a line, whose signature is not checked; raises UnreadableDirectoryError."""
    payload, _ = split_signature(line)
    try:
        version = Version(**orjson.loads(payload))
    except (ValueError, TypeError):
        version = None
    if version is None or not all(
        _is_valid_field(value, kind) for value, kind in zip(version, FIELD_TYPES, strict=True)
    ):
        raise UnreadableDirectoryError("the directory has a line that this version of edgeproxy cannot read")
    if version.form not in (UNSIGNED, SIGNED):
        raise UnreadableDirectoryError(
            "the directory was pushed by a later version of edgeproxy, which this one cannot read"
        )
    return version


def parse_line(line: bytes) -> Line:
    """Parse a line of the log; raises UnreadableDirectoryError."""
    return Line(parse_version(line), line)


def compute_push_time(before: Version | None, now: float) -> float:
    """Return the Unix second of a push after the version `before`, whose signature was checked; None: there is none.

    It grows from push to push, also while the clock is set back, so that edges can tell a log that somebody brings back
    by its time. A clock that was more than a day ahead is not followed: the next push has the right time again.
    """
    if before is None or before.at - now > CLOCK_STEP_SECONDS_MAX:
        return now
    return max(now, before.at + PUSH_STEP_SECONDS)


def format_time(newest: Line, at: float, signer: Signer) -> bytes:
    """Return the signed line that says that this one was the newest at this Unix second."""
    return signer.sign(LineKind.TIME, orjson.dumps(Time(at, newest.version.number, newest.hash)._asdict()))


def parse_time(line: bytes) -> Time:
    """Parse the time of a line, whose signature is not checked; raises UnreadableDirectoryError."""
    payload, _ = split_signature(line)
    try:
        time = Time(**orjson.loads(payload))
    except (ValueError, TypeError):
        time = None
    if time is None or not all(
        _is_valid_field(value, kind) for value, kind in zip(time, TIME_FIELD_TYPES, strict=True)
    ):
        raise UnreadableDirectoryError("the signed time of the directory cannot be read")
    return time


def _is_valid_field(value: object, kind: type | tuple[type, ...]) -> bool:
    """Return whether a field of a line has this type, and is in the range that can be stored."""
    return isinstance(value, kind) and (kind is not int or (isinstance(value, int) and 0 <= value < INTEGER_MAX))


async def fetch_last_version(call_hub: CallHub) -> Version | None:
    """Return the newest version; None where the hub has no directory."""
    line = await call_hub("LINDEX", LOG, -1)
    return None if line is None else parse_version(line)


async def fetch_raw_lines(call_hub: CallHub) -> list[bytes]:
    """Return the lines of the log as they are. Raises UnreadableDirectoryError where they are too many, or change.

    They are asked for one by one, so that the user that writes the log needs no command that walks all of a long one.
    """
    count = await call_hub("LLEN", LOG)
    if count > LINES_MAX:
        raise UnreadableDirectoryError(f"the directory's log has {count} lines, which no push has written")
    lines = await asyncio.gather(*(call_hub("LINDEX", LOG, place) for place in range(count)))
    if None in lines:
        raise UnreadableDirectoryError("somebody else has pushed meanwhile: nothing was changed, push again")
    return lines


async def fetch_lines(call_hub: CallHub) -> list[Line]:
    """Return the lines of the log."""
    return [parse_line(line) for line in await fetch_raw_lines(call_hub)]


async def fetch_versions(call_hub: CallHub) -> list[Version]:
    """Return the versions of the log."""
    return [line.version for line in await fetch_lines(call_hub)]


FetchPart = Callable[[str, int], Awaitable[bytes | None]]
"""The part of the version with this token at this place; None where it is not there any more."""


def create_part_fetcher(call_hub: CallHub) -> FetchPart:
    """Return a function that fetches parts from the hub."""

    async def fetch_part(token: str, place: int) -> bytes | None:
        part: bytes | None = await call_hub("LINDEX", parts_key(token), place)
        return part

    return fetch_part


async def fetch_parts(fetch_part: FetchPart, version: Version) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a version, part by part.

    Raises UnreadableDirectoryError for a part that is missing, or at the end: then nothing of the version counts.
    """
    digest, size = hashlib.sha256(), 0
    for place in range(version.parts):
        part = await fetch_part(version.token, place)
        if part is None:
            raise UnreadableDirectoryError(
                f"version {version.number} of the directory has left the hub, or lost a part there"
            )
        size += len(part)
        if size > version.size:
            break
        digest.update(part)
        yield part.split(b"\n")
    if digest.hexdigest() != version.sha256:
        raise UnreadableDirectoryError(f"version {version.number} of the directory is not what was pushed")
