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
from typing import NamedTuple

import orjson
from redis.exceptions import MovedError, ResponseError

from edgeproxy.config import models
from edgeproxy.config.directory import render_lines, render_removal
from edgeproxy.config.parsers import is_local_hub
from edgeproxy.hub.bounds import format_invalid_answer
from edgeproxy.hub.calls import read_script
from edgeproxy.hub.cluster import offer_functions, open_link
from edgeproxy.hub.redis import Tls, format_error
from edgeproxy.wire import directory_versions
from edgeproxy.wire.directory_signatures import LineKind, Signer, TrustedKeys, UntrustedLineError
from edgeproxy.wire.directory_versions import (
    LOG,
    NEWS,
    SIGNED,
    TIME,
    UNSIGNED,
    CallHub,
    Line,
    UnreadableDirectoryError,
    Version,
    create_part_fetcher,
    format_time,
    format_version,
    parts_key,
)

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


class Options(NamedTuple):
    """How it is pushed."""

    force: bool = False
    """Also where more than half of the customers or keys would be gone."""
    dry: bool = False
    """Nothing is changed, and what would be refused is told as what it would change."""
    signer: Signer | None = None
    """Who signs; None: nobody, and edges that trust somebody refuse it."""
    back: bool = False
    """Edges take it in though they know a later version."""


async def push(settings: models.EdgeFile, options: Options) -> Done:
    """Push the customers of a file to its hub. Raises Refused, and Away."""
    if options.signer is None and not options.dry and not is_local_hub(settings.hub.url):
        raise Refused("edges refuse what is not signed, but from a hub of their own host: say --key FILE")
    link = await open_link(LOG, settings.hub.url, Tls.from_settings(settings.hub.tls), deadline=RETRY_SECONDS)
    try:
        done = await change(link.ask, render_lines(settings), options)
        if not options.dry:
            await offer_functions(settings.hub.url, Tls.from_settings(settings.hub.tls))
        return done
    except MovedError as elsewhere:
        raise Refused("it is a Redis Cluster: write redis+cluster:// as the hub's URL, or push again") from elsewhere
    except ResponseError as no:
        raise Refused(f"the hub refuses: {format_error(no)}") from no
    except UnreadableDirectoryError as why:
        raise Refused(str(why)) from why
    finally:
        await link.close()


async def change(ask: CallHub, wanted: Mapping[str, bytes], options: Options = Options()) -> Done:  # noqa: B008
    """`push` of these lines, by customer."""
    log = await directory_versions.fetch_lines(ask)
    there = [line.version for line in log]
    if options.signer is None and there and there[-1].form == SIGNED:
        raise Refused("what is there is signed, and edges may refuse what is not: say --key FILE")
    before = await _read(ask, there, wanted)
    gone = [name for name in before if name not in wanted]
    added = [name for name in wanted if name not in before]
    changed = [name for name, line in wanted.items() if before.get(name, line) != line]
    number = there[-1].number if there else 0
    done = Done(added, changed, gone, len(wanted), sum(len(_keys(line)) for line in wanted.values()), number + 1)
    anew = options.back or (bool(log) and not _is_own(log[-1], options.signer))
    if there and not (added or changed or gone or anew) and len(before) == there[-1].customers:
        if options.signer is not None and not options.dry:
            await _renew(ask, log[-1], options.signer)
        return replace(done, version=number, idle=True)
    why = _doubt(there[-1], before, wanted, done) if there and not options.force else None
    if options.dry:
        return replace(done, refused=why)
    if why is not None:
        raise Refused(why)
    news = [wanted[name] for name in (*added, *changed)] + [render_removal(name) for name in gone]
    size = sum(map(len, news))
    # What there is to read for those who have nothing must not become much more than what there is to know.
    whole = anew or not before or len(there) >= VERSIONS_KEPT
    whole = whole or size + sum(one.size for one in there[1:]) > there[0].size
    await _write(ask, log, list(wanted.values()) if whole else news, whole, done, options)
    return done


def _is_own(line: Line, signer: Signer | None) -> bool:
    """Whether a line is signed as this one would sign: who reads all of a log finds one signature on all of it."""
    if signer is None:
        return line.version.form == UNSIGNED
    try:
        TrustedKeys([signer.public_key]).verify(LineKind.VERSION, line.raw)
    except UntrustedLineError:
        return False
    return True


async def _renew(ask: CallHub, newest: Line, signer: Signer) -> None:
    """Sign that this is the newest version now. Raises Refused where it is not."""
    signed = format_time(newest, time.time(), signer)
    if await ask("EVAL", read_script("time"), 2, LOG, TIME, newest.raw, signed) != 1:
        raise Refused("somebody else has pushed meanwhile: nothing was changed, push again")


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


async def _read(ask: CallHub, there: list[Version], wanted: Mapping[str, bytes]) -> dict[str, bytes]:
    """The line of each customer in these versions, `wanted`'s own where they are alike; no line at all where some part
    is lost: then all are pushed anew."""
    known: dict[str, bytes] = {}
    try:
        for version in there:
            if version.whole:
                known.clear()
            async for part in directory_versions.fetch_parts(create_part_fetcher(ask), version):
                _take(known, part, wanted)
    except UnreadableDirectoryError:
        if [one.token for one in await directory_versions.fetch_versions(ask)] != [one.token for one in there]:
            raise Refused("somebody else has pushed meanwhile: nothing was changed, push again") from None
        return {}
    return known


def _take(known: dict[str, bytes], lines: Iterable[bytes], wanted: Mapping[str, bytes]) -> None:
    """Take in what these lines say; raises Unreadable where one is none. Whether they are what was pushed is known at
    their version's end."""
    for line in lines:
        try:
            said = orjson.loads(line)
            if "flag" in said:
                continue  # A collector's; what is pushed has none.
            name, is_gone = said["name"], "customer" not in said
            known.pop(name, None)
        except (ValueError, LookupError, TypeError) as odd:
            raise UnreadableDirectoryError(f"a line of the directory is not understood: {odd!r}") from odd
        if not is_gone:
            known[name] = line if wanted.get(name) != line else wanted[name]


async def _write(
    ask: CallHub, log: Sequence[Line], told: Sequence[bytes], whole: bool, done: Done, options: Options
) -> None:
    """Bring the parts into the hub, then have all see them at once. Raises Refused where another push came between."""
    signer, now = options.signer, time.time()
    parts = list(joined(told))
    version = Version(
        done.version,
        secrets.token_hex(16),
        whole,
        *measured(parts),
        done.customers,
        done.keys,
        now,
        UNSIGNED if signer is None else SIGNED,
        log[-1].hash if log else "",
        # What was signed as going back stays so while the log begins with it: some edges have still to read it.
        options.back or (whole and any(line.version.back for line in log)),
    )
    newest = directory_versions.parse_line(format_version(version, signer))
    signed = b"" if signer is None else format_time(newest, now, signer)
    await stage(ask, version.token, parts)
    leaving = [line.version.token for line in log] if whole else []
    await commit(ask, log[-1].raw if log else b"", newest, signed, leaving)


async def stage(ask: CallHub, token: str, parts: Iterable[bytes]) -> None:
    """Bring the parts of a version into the hub, where nobody sees them yet. Raises Refused."""
    for number, part in enumerate(parts, 1):
        if await ask("EVAL", read_script("stage"), 1, parts_key(token), STAGED_SECONDS, part) != number:
            raise Refused(LOST)


async def commit(ask: CallHub, before: bytes, newest: Line, signed: bytes, leaving: Iterable[str]) -> None:
    """Have all see a version whose parts were staged; it follows the line `before` (empty: it is the first), and the
    versions of these tokens leave. Raises Refused."""
    version = newest.version
    keys = [LOG, TIME, parts_key(version.token), *map(parts_key, leaving)]
    given = (before, newest.raw, version.parts, READABLE_SECONDS, signed, NEWS)
    answer = await ask("EVAL", read_script("commit"), len(keys), *keys, *given)
    if answer == 0:
        raise Refused("somebody else has pushed meanwhile: nothing was changed, push again")
    if answer == -1:
        raise Refused(LOST)
    if answer != 1:
        raise Refused(format_invalid_answer(answer, "the last step"))


def joined(told: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of customers, joined to parts."""
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


def measured(parts: Iterable[bytes]) -> tuple[int, int, str]:
    """How many parts these are, their bytes, and the SHA-256 over them: what a version says of its own."""
    number, size, digest = 0, 0, hashlib.sha256()
    for part in parts:
        number, size = number + 1, size + len(part)
        digest.update(part)
    return number, size, digest.hexdigest()


def run(settings: models.EdgeFile, options: Options = Options()) -> Done:  # noqa: B008
    """`push` for those who have no loop."""
    return asyncio.run(push(settings, options))
