"""`edgeproxy directory push`: makes the directory in the hub what a file says, in one step.

Only what changed is sent. Until the last step nobody sees anything of it, so a push that is cut off leaves everything
as it was, and of two at once the first that is ready wins, and the other one hears of it.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson
from redis.exceptions import MovedError, ResponseError

from edgeproxy.config import models
from edgeproxy.config.directory import lines, removed
from edgeproxy.directory import versions
from edgeproxy.directory.versions import LOG, Ask, Unreadable, Version, line_of, log, parts_of
from edgeproxy.hub.bounds import no_answer
from edgeproxy.hub.calls import script
from edgeproxy.hub.cluster import link_to
from edgeproxy.hub.redis import Tls, reason

PART_BYTES = 256 << 10
"""Bytes of a part, or somewhat more: an answer of the hub, for which requests may have to wait."""
VERSIONS_KEPT = 64
"""Lines of the log, at most; then all is pushed anew."""
STAGED_SECONDS = 600
"""Seconds for which the parts of a push that was cut off stay, after the last of them."""
READABLE_SECONDS = 600
"""Seconds for which parts that are not needed any more can still be read by who has begun to."""
RETRY_SECONDS = 10.0
"""Seconds that an answer may take."""

LOST = "the hub has lost what was sent, or this took too long: nothing was changed, push again"


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
    refused: str | None = None
    """Why it would be refused without `force`, where it was only tried."""


async def push(settings: models.Written, *, force: bool = False, dry: bool = False) -> Done:
    """Push the customers of a file to its hub. Raises Refused, and Away.

    With `force` also where more than half of the customers or keys would be gone; `dry`: nothing is changed, and what
    would be refused is told as what it would change.
    """
    link = await link_to(LOG, settings.hub.url, Tls.of(settings.hub.tls), deadline=RETRY_SECONDS)
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
    there = await log(ask)
    before = await _read(ask, there, wanted)
    gone = [name for name in before if name not in wanted]
    added = [name for name in wanted if name not in before]
    changed = [name for name, line in wanted.items() if before.get(name, line) != line]
    number = there[-1].number if there else 0
    done = Done(added, changed, gone, len(wanted), sum(len(_keys(line)) for line in wanted.values()), number + 1)
    if there and not (added or changed or gone) and len(before) == there[-1].customers:
        return replace(done, version=number, idle=True)
    why = _doubt(there[-1], before, wanted, done) if there and not force else None
    if dry:
        return replace(done, refused=why)
    if why is not None:
        raise Refused(why)
    news = [wanted[name] for name in (*added, *changed)] + [removed(name) for name in gone]
    size = sum(map(len, news))
    # What there is to read for those who have nothing must not become much more than what there is to know.
    whole = not before or len(there) >= VERSIONS_KEPT or size + sum(one.size for one in there[1:]) > there[0].size
    await _write(ask, there, list(wanted.values()) if whole else news, whole, done)
    return done


def _keys(line: bytes) -> Collection[str]:
    """The SHA-256 of each key of a customer."""
    keys: dict[str, object] = orjson.loads(line)["keys"]
    return keys.keys()


def _doubt(last: Version, before: Mapping[str, bytes], wanted: Mapping[str, bytes], done: Done) -> str | None:
    """Why it looks as if the file were another one than was meant; None where it does not."""
    if before:
        # A key that is lost was one of these, and is with none of those: all others keep theirs.
        had = {digest for name in (*done.changed, *done.removed) for digest in _keys(before[name])}
        has = {digest for name in (*done.added, *done.changed) for digest in _keys(wanted[name])}
        gone, lost = len(done.removed), len(had - has)
    else:
        gone, lost = last.customers - done.customers, last.keys - done.keys
    for what, less, of in (("customers", gone, last.customers), ("keys", lost, last.keys)):
        if less * 2 > of:
            return f"{less} of {of} {what} would be gone; if that is meant, say --force"
    return None


async def _read(ask: Ask, there: list[Version], wanted: Mapping[str, bytes]) -> dict[str, bytes]:
    """The line of each customer in these versions, `wanted`'s own where they are alike; no line at all where some part
    is lost: then all are pushed anew."""
    known: dict[str, bytes] = {}
    try:
        for version in there:
            if version.whole:
                known.clear()
            async for part in versions.parts(ask, version):
                _take(known, part, wanted)
    except Unreadable:
        if [one.token for one in await log(ask)] != [one.token for one in there]:
            raise Refused("somebody else has pushed meanwhile: nothing was changed, push again") from None
        return {}
    return known


def _take(known: dict[str, bytes], lines: Iterable[bytes], wanted: Mapping[str, bytes]) -> None:
    """Take in what these lines say; raises Unreadable where one is none. Whether they are what was pushed is known at
    their version's end."""
    for line in lines:
        try:
            said = orjson.loads(line)
            name, is_gone = said["name"], "customer" not in said
            known.pop(name, None)
        except (ValueError, LookupError, TypeError) as odd:
            raise Unreadable(f"a line of the directory is not understood: {odd!r}") from odd
        if not is_gone:
            known[name] = line if wanted.get(name) != line else wanted[name]


async def _write(ask: Ask, there: list[Version], told: Sequence[bytes], whole: bool, done: Done) -> None:
    """Bring the parts into the hub, then have all see them at once. Raises Refused where another push came between."""
    token, digest = secrets.token_hex(16), hashlib.sha256()
    here, number, size = parts_of(token), 0, 0
    for part in _parts(told):
        number, size = number + 1, size + len(part)
        digest.update(part)
        if await ask("EVAL", script("stage"), 1, here, STAGED_SECONDS, part) != number:
            raise Refused(LOST)
    version = Version(
        done.version, token, whole, number, size, digest.hexdigest(), done.customers, done.keys, time.time()
    )
    leaving = [parts_of(one.token) for one in there] if whole else []
    keys = [LOG, here, *leaving]
    before = line_of(there[-1]) if there else b""
    answer = await ask("EVAL", script("commit"), len(keys), *keys, before, line_of(version), number, READABLE_SECONDS)
    if answer == 0:
        raise Refused("somebody else has pushed meanwhile: nothing was changed, push again")
    if answer == -1:
        raise Refused(LOST)
    if answer != 1:
        raise Refused(no_answer(answer, "the last step"))


def _parts(told: Sequence[bytes]) -> Iterator[bytes]:
    """The lines, joined to parts."""
    part: list[bytes] = []
    size = 0
    for line in told:
        part.append(line)
        size += len(line) + 1
        if size >= PART_BYTES:
            yield b"\n".join(part)
            part, size = [], 0
    if part:
        yield b"\n".join(part)


def run(settings: models.Written, *, force: bool, dry: bool) -> Done:
    """`push` for those who have no loop."""
    return asyncio.run(push(settings, force=force, dry=dry))
