"""The directory: customers and their keys in versions. Each version is transferred completely or not at all.

It is a log with one line per version. The last line is the current version. The first is `whole`: it has all customers.
Each of the others has the changes since the one before. The lines of a version's customers (config/directory.py) are
its parts. They never change once the version is in the log. So one line makes a change of any size visible, and
concurrent readers see an earlier version. Tokens of versions are unique for ever: if a log is lost, the new log has
other tokens.

In the hub `dir:{people}:log` is the list of lines, and `dir:{people}:parts:TOKEN` the list of a version's parts.
`dir:{people}:time` has one line, which states that a version was still the newest at a certain time. Lines are signed
(directory_signatures.py).
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
"""The channel for announcements of new versions."""
FOLLOWER_FIELD = "Edge-Follower"
"""The field with an edge's name when it fetches the directory from the collector.

It is the region, a dot, and eight digits that are new for each connection.
"""
UNSIGNED, SIGNED = 1, 2
"""The form of lines: the one that earlier versions of edgeproxy read too, and the one that names the previous line.

Other forms are for later versions.
"""

CallHub = Callable[..., Awaitable[Any]]
"""Sends a command to the hub: `ask("LINDEX", LOG, -1)`. Raises HubUnavailableError or ResponseError."""


class UnreadableDirectoryError(Exception):
    """The directory cannot be read, or not any more. The message says why."""


class Version(NamedTuple):
    """A line of the log."""

    number: int
    token: str
    whole: bool
    """True if its parts have all customers, not only changes."""
    parts: int
    size: int
    """Bytes of all parts."""
    sha256: str
    """SHA-256 of the bytes of all parts, in hex."""
    customers: int
    keys: int
    """Number of keys as of this version."""
    at: float
    """Unix seconds of its push, later than the push of the line before it (compute_push_time)."""
    form: int = UNSIGNED
    before: str = ""
    """The SHA-256 of the line before it, in hex. Empty: there is no such line."""
    back: bool = False
    """True if it may be older than the versions of edges, or differ from them."""


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
"""The type of each field of a line. They are checked because all users who may write to the hub can write the log."""

TIME_FIELD_TYPES: tuple[type | tuple[type, ...], ...] = ((int, float), int, str)


class Line(NamedTuple):
    """A line of the log and its version."""

    version: Version
    raw: bytes

    @property
    def hash(self) -> str:
        """The SHA-256 that the next line repeats."""
        return compute_line_hash(self.raw)


class Time(NamedTuple):
    """A statement that `number` was the newest version at Unix second `at`, with a line of hash `hash`."""

    at: float
    number: int
    hash: str


CLOCK_STEP_SECONDS_MAX = 86400.0
"""Maximum seconds that a signer's clock may be behind its last push. The next push still gets a later time."""
PUSH_STEP_SECONDS = 0.001
"""Minimum seconds between two pushes."""
LINES_MAX = 4096
"""Maximum lines of a log (scripts/commit.lua)."""
LINE_BYTES_MAX = 65536
"""Maximum bytes of a line (scripts/preamble.lua)."""
INTEGER_MAX = 1 << 53
"""Exclusive maximum of integers in a line."""


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
    """Parse the version of a line without checking its signature. Raises UnreadableDirectoryError."""
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
    """Return the Unix second of a push after the version `before`, whose signature is checked. None: there is none.

    It increases with each push even if the clock is set back, so that edges recognise a restored old log. A clock that
    was more than a day ahead is not followed, and the next push has the correct time again.
    """
    if before is None or before.at - now > CLOCK_STEP_SECONDS_MAX:
        return now
    return max(now, before.at + PUSH_STEP_SECONDS)


def format_time(newest: Line, at: float, signer: Signer) -> bytes:
    """Return the signed statement that this line was the newest at this Unix second."""
    return signer.sign(LineKind.TIME, orjson.dumps(Time(at, newest.version.number, newest.hash)._asdict()))


def parse_time(line: bytes) -> Time:
    """Parse the time of a line without checking its signature. Raises UnreadableDirectoryError."""
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
    """Return whether a field of a line has this type and can be stored."""
    return isinstance(value, kind) and (kind is not int or (isinstance(value, int) and 0 <= value < INTEGER_MAX))


async def fetch_last_version(call_hub: CallHub) -> Version | None:
    """Return the newest version. None: the hub has no directory."""
    line = await call_hub("LINDEX", LOG, -1)
    return None if line is None else parse_version(line)


async def fetch_raw_lines(call_hub: CallHub) -> list[bytes]:
    """Return the raw lines of the log. Raises UnreadableDirectoryError if they are too many or change meanwhile.

    They are requested one by one, so that the user who writes the log does not need a command that reads a whole list.
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
"""Fetches the part of the version with this token at this place. None: it no longer exists."""


def create_part_fetcher(call_hub: CallHub) -> FetchPart:
    """Return a function that fetches parts from the hub."""

    async def fetch_part(token: str, place: int) -> bytes | None:
        part: bytes | None = await call_hub("LINDEX", parts_key(token), place)
        return part

    return fetch_part


async def fetch_parts(fetch_part: FetchPart, version: Version) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a version, part by part.

    Raises UnreadableDirectoryError for a missing part, or at the end. Then the whole version is invalid.
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
