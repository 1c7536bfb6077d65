"""`edgeproxy directory push`: makes the directory in the hub what a file says, in one step.

Only what changed is sent. Until the last step nobody sees anything of it, so a push that is cut off leaves everything
as it was, and of two at once the first that is ready wins, and the other one hears of it.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson
from redis.exceptions import MovedError, ResponseError

from edgeproxy.config import models
from edgeproxy.config.people import lines, removed
from edgeproxy.sync import directory
from edgeproxy.sync.calls import script
from edgeproxy.sync.cluster import link_to
from edgeproxy.sync.directory import LOG, Ask, Unreadable, Version, line_of, log, parts_of
from edgeproxy.sync.redis import Tls, reason

PART = 256 << 10
"""Bytes of a part, or somewhat more: an answer of the hub, for which requests may have to wait."""
VERSIONS = 64
"""Lines of the log, at most; then all is pushed anew."""
STAGED = 600
"""Seconds for which the parts of a push that was cut off stay, after the last of them."""
READABLE = 600
"""Seconds for which parts that are not needed any more can still be read by who has begun to."""
PATIENCE = 10.0
"""Seconds that an answer may take."""


class Refused(Exception):
    """Nothing was pushed; the text says why."""


@dataclass(frozen=True)
class Done:
    """What a push has changed, or would: names of customers."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    customers: int
    keys: int
    """How many there are now, or would be."""
    version: int
    """The one that is so now, or would be."""
    idle: bool = False
    """Everything was so already."""


async def push(settings: models.Written, *, force: bool = False, dry: bool = False) -> Done:
    """Push the people of a file to its hub. Raises Refused, and Away.

    With `force` also where more than half of the customers or keys would be gone; `dry`: nothing is changed.
    """
    link = await link_to(LOG, settings.hub.url, Tls.of(settings.hub.tls), deadline=PATIENCE)
    try:
        return await change(link.ask, lines(settings), force=force, dry=dry)
    except MovedError as elsewhere:
        raise Refused("it is a Redis Cluster: write redis+cluster:// as the hub's URL, or push again") from elsewhere
    except ResponseError as no:
        raise Refused(f"the hub refuses: {reason(no)}") from no
    except Unreadable as why:
        raise Refused(str(why)) from why
    finally:
        await link.close()


async def change(ask: Ask, wanted: Mapping[str, bytes], *, force: bool = False, dry: bool = False) -> Done:
    """`push` of these lines, by customer."""
    there, before = await _read(ask)
    gone = [name for name in before if name not in wanted]
    added = [name for name in wanted if name not in before]
    changed = [name for name, line in wanted.items() if name in before and before[name] != line]
    keys = {name: _keys(line) for name, line in wanted.items()}
    number = there[-1].number if there else 0
    count = sum(map(len, keys.values()))
    done = Done(added, changed, gone, len(wanted), count, number + 1)
    if there and not (added or changed or gone) and len(before) == there[-1].customers:
        return replace(done, version=number, idle=True)
    if there and not force:
        _guard(there[-1], before, wanted, keys)
    if dry:
        return done
    news = [wanted[name] for name in (*added, *changed)] + [removed(name) for name in gone]
    size = sum(map(len, news))
    # What there is to read for those who have nothing must not become much more than what there is to know.
    whole = not before or len(there) >= VERSIONS or size + sum(one.size for one in there[1:]) > there[0].size
    await _write(ask, there, list(wanted.values()) if whole else news, whole, done)
    return done


def _keys(line: bytes) -> set[str]:
    """The SHA-256 of each key of a customer."""
    return set(orjson.loads(line)["keys"])


def _guard(
    last: Version, before: Mapping[str, bytes], wanted: Mapping[str, bytes], keys: Mapping[str, set[str]]
) -> None:
    """Raise Refused where it looks as if the file were another one than was meant."""
    had = {digest for line in before.values() for digest in _keys(line)}
    lost = len(had.difference(*keys.values())) if before else last.keys - sum(map(len, keys.values()))
    gone = sum(name not in wanted for name in before) if before else last.customers - len(wanted)
    for what, less, of in (("customers", gone, last.customers), ("keys", lost, last.keys)):
        if less * 2 > of:
            raise Refused(f"{less} of {of} {what} would be gone; if that is meant, say --force")


async def _read(ask: Ask) -> tuple[list[Version], dict[str, bytes]]:
    """The log, and the line of each customer; none of these where some part is lost: then all are pushed anew."""
    there = await log(ask)
    known: dict[str, bytes] = {}
    try:
        for version in there:
            if version.whole:
                known.clear()
            # Whether they are what was pushed is known at their end.
            for line in [line async for part in directory.parts(ask, version) for line in part]:
                said = orjson.loads(line)
                known.pop(said["name"], None)
                if "customer" in said:
                    known[said["name"]] = line
    except Unreadable:
        if [one.token for one in await log(ask)] != [one.token for one in there]:
            raise Refused("somebody else has pushed meanwhile: nothing was changed, push again") from None
        return there, {}
    return there, known


async def _write(ask: Ask, there: list[Version], told: Sequence[bytes], whole: bool, done: Done) -> None:
    """Bring the parts into the hub, then have all see them at once. Raises Refused where another push came between."""
    token, digest = secrets.token_hex(16), hashlib.sha256()
    here, number, size = parts_of(token), 0, 0
    for part in _parts(told):
        number, size = number + 1, size + len(part)
        digest.update(part)
        await ask("EVAL", script("stage"), 1, here, STAGED, part)
    version = Version(
        done.version, token, whole, number, size, digest.hexdigest(), done.customers, done.keys, time.time()
    )
    leaving = [parts_of(one.token) for one in there] if whole else []
    keys = [LOG, here, *leaving]
    before = line_of(there[-1]) if there else b""
    answer = await ask("EVAL", script("commit"), len(keys), *keys, before, line_of(version), number, READABLE)
    if answer == 0:
        raise Refused("somebody else has pushed meanwhile: nothing was changed, push again")
    if answer < 0:
        raise Refused("the hub has lost what was sent, or this took too long: nothing was changed, push again")


def _parts(told: Sequence[bytes]) -> Iterator[bytes]:
    """The lines, joined to parts."""
    part: list[bytes] = []
    size = 0
    for line in told:
        part.append(line)
        size += len(line) + 1
        if size >= PART:
            yield b"\n".join(part)
            part, size = [], 0
    if part:
        yield b"\n".join(part)


def run(settings: models.Written, *, force: bool, dry: bool) -> Done:
    """`push` for those who have no loop."""
    return asyncio.run(push(settings, force=force, dry=dry))
