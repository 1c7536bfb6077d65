"""The directory in the hub: customers and their keys, in versions, each of which comes whole or not at all.

`dir:{people}:log` is a list with a line for each version, the last of which is what is so. The first is `whole`: all
customers; each of the others has what changed with it. The lines of a version's customers (config/customers.py) are in
`dir:{people}:parts:TOKEN`, a list of parts that never changes once the version is in the log. So a push of any size
becomes visible by one line, and what reads meanwhile reads a version that was. The token names a version for good: a
hub that has lost some, or all, and counts again from there gives other ones.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import orjson

LOG = b"dir:{people}:log"
FORM = 1
"""Of lines and parts; another one is for a later version of edgeproxy to read."""

Ask = Callable[..., Awaitable[Any]]
"""Asks the hub a command, such as `ask("LINDEX", LOG, -1)`; raises redis.Away, or ResponseError."""


class Unreadable(Exception):
    """What is in the hub cannot be read, or not any more; the text says why."""


class Version(NamedTuple):
    """A line of the log."""

    number: int
    token: str
    whole: bool
    """Its parts have all customers, not only those that changed."""
    parts: int
    size: int
    """Bytes of all parts."""
    sha256: str
    """Over the bytes of all parts, in hex."""
    customers: int
    keys: int
    """How many there are from this version on."""
    at: float
    """When it was pushed, in Unix seconds."""
    form: int = FORM


KINDS: tuple[type | tuple[type, ...], ...] = (int, str, bool, int, int, str, int, int, (int, float), int)
"""What each part of a line has to be: anybody may have written to the log who may write to the hub."""


INTEGER_MAX = 1 << 53
"""Of what a line counts."""


def parts_of(token: str) -> bytes:
    """Where the parts of a version are."""
    return b"dir:{people}:parts:%b" % token.encode()


def line_of(version: Version) -> bytes:
    """A version as a line of the log."""
    return orjson.dumps(version._asdict())


def version_of(line: bytes) -> Version:
    """The version that a line of the log is about; raises Unreadable."""
    try:
        version = Version(**orjson.loads(line))
    except (ValueError, TypeError):
        version = None
    if version is None or not all(_is(said, kind) for said, kind in zip(version, KINDS, strict=True)):
        raise Unreadable(f"{LOG.decode()} has a line that this version of edgeproxy cannot read")
    if version.form != FORM:
        raise Unreadable("the directory was pushed by a later version of edgeproxy, which this one cannot read")
    return version


def _is(said: Any, kind: Any) -> bool:
    """Whether a part of a line is of this kind; nobody has pushed what cannot be counted, or kept in a file."""
    return isinstance(said, kind) and (kind is not int or 0 <= said < INTEGER_MAX)


async def last(ask: Ask) -> Version | None:
    """What is so; None where nothing was pushed to this hub, or it has forgotten all."""
    line = await ask("LINDEX", LOG, -1)
    return None if line is None else version_of(line)


async def log(ask: Ask) -> list[Version]:
    """All versions that are still needed to know what is so."""
    return [version_of(line) for line in await ask("LRANGE", LOG, 0, -1)]


def after(versions: list[Version], token: str | None) -> list[Version]:
    """Those that somebody has to read, in this order, who has read the one of this token; all where it is not there."""
    tokens = [version.token for version in versions]
    return versions[tokens.index(token) + 1 :] if token in tokens else versions


async def parts(ask: Ask, version: Version) -> AsyncIterator[list[bytes]]:
    """The lines of a version, part by part. Raises Unreadable at the first that is not as it was pushed, or at the
    end: then nothing of it counts."""
    digest = hashlib.sha256()
    for place in range(version.parts):
        part = await ask("LINDEX", parts_of(version.token), place)
        if part is None:
            raise Unreadable(f"version {version.number} of the directory has left the hub, or lost a part there")
        digest.update(part)
        yield part.split(b"\n")
    if digest.hexdigest() != version.sha256:
        raise Unreadable(f"version {version.number} of the directory is not what was pushed")
