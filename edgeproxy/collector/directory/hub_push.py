"""`edgeproxy directory push`: replaces the directory in the hub by the content of a file, in one step.

Only changes are sent. Nothing is visible until the last step, so an interrupted push changes nothing. Of two concurrent
pushes the first to finish wins, and the other one fails.
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

from edgeproxy.config.directory import render_removal
from edgeproxy.config.edge import settings as edge_settings
from edgeproxy.config.edge.customer_store import render_lines
from edgeproxy.config.hub_settings import is_local_hub
from edgeproxy.hub import calls
from edgeproxy.hub.bounds import format_invalid_answer
from edgeproxy.hub.cluster import offer_functions, open_link
from edgeproxy.hub.redis import Tls, call_function, format_error
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
    compute_push_time,
    create_part_fetcher,
    format_time,
    format_version,
    parts_key,
)

PART_BYTES = 256 << 10
"""Approximate bytes of a part. A part is one answer of the hub, and other requests may have to wait for it."""
VERSIONS_KEPT = 64
"""Most lines of the log. Beyond that the whole directory is pushed again."""
STAGED_SECONDS = 600
"""Seconds until the parts of an interrupted push expire, counted from its last part."""
READABLE_SECONDS = 600
"""Seconds before unneeded parts are deleted, for edges that are reading them."""
RETRY_SECONDS = 10.0
"""Seconds for an answer."""

LOST_MESSAGE = "the hub has lost what was sent, or this took too long: nothing was changed, push again"


class PushRejectedError(Exception):
    """The push was rejected as a whole. The message says why."""


@dataclass(frozen=True)
class PushResult:
    """The changes of a push, made or planned: names of customers."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    customers: int
    keys: int
    """The numbers of customers and keys after the push."""
    version: int
    """The version after the push."""
    idle: bool = False
    """True if nothing had to change."""
    refused: str | None = None
    """The reason why a dry run's push would be refused without `force`."""


class PushOptions(NamedTuple):
    """Options of a push."""

    force: bool = False
    """Push even if more than half of the customers or keys would disappear."""
    dry: bool = False
    """Change nothing, and report even a push that would be refused."""
    signer: Signer | None = None
    """The signer; None: the push is unsigned, and edges with trusted keys refuse it."""
    back: bool = False
    """Edges accept the push although they know a later version."""


async def push_directory(settings: edge_settings.EdgeFile, options: PushOptions) -> PushResult:
    """Push the customers of a file to its hub. Raises PushRejectedError and HubUnavailableError."""
    if options.signer is None and not options.dry and not is_local_hub(settings.hub.url):
        raise PushRejectedError("edges refuse what is not signed, but from a hub of their own host: say --key FILE")
    link = await open_link(LOG, settings.hub.url, Tls.from_settings(settings.hub.tls), deadline=RETRY_SECONDS)
    try:
        if not options.dry:
            await offer_functions(settings.hub.url, Tls.from_settings(settings.hub.tls))
        return await push_lines(link.ask, render_lines(settings), options)
    except MovedError as error:
        raise PushRejectedError(
            "it is a Redis Cluster: write redis+cluster:// as the hub's URL, or push again"
        ) from error
    except ResponseError as error:
        raise PushRejectedError(f"the hub refuses: {format_error(error)}") from error
    except UnreadableDirectoryError as error:
        raise PushRejectedError(str(error)) from error
    finally:
        await link.close()


async def push_lines(ask: CallHub, expected: Mapping[str, bytes], options: PushOptions = PushOptions()) -> PushResult:  # noqa: B008
    """Push these lines, by customer."""
    log = await directory_versions.fetch_lines(ask)
    versions = [line.version for line in log]
    if options.signer is None and versions and versions[-1].form == SIGNED:
        raise PushRejectedError("what is there is signed, and edges may refuse what is not: say --key FILE")
    before = await _read_customers(ask, versions, expected)
    gone = [name for name in before if name not in expected]
    added = [name for name in expected if name not in before]
    changed = [name for name, line in expected.items() if before.get(name, line) != line]
    number = versions[-1].number if versions else 0
    result = PushResult(
        added, changed, gone, len(expected), sum(len(_list_keys(line)) for line in expected.values()), number + 1
    )
    must_rewrite = options.back or (bool(log) and not _is_signed_by(log[-1], options.signer))
    if versions and not (added or changed or gone or must_rewrite) and len(before) == versions[-1].customers:
        if options.signer is not None and not options.dry:
            await _renew_time(ask, log[-1], options.signer)
        return replace(result, version=number, idle=True)
    doubt = _find_doubt(versions[-1], before, expected, result) if versions and not options.force else None
    if options.dry:
        return replace(result, refused=doubt)
    if doubt is not None:
        raise PushRejectedError(doubt)
    news = [expected[name] for name in (*added, *changed)] + [render_removal(name) for name in gone]
    size = sum(map(len, news))
    # A new reader's data must not become much larger than the directory itself.
    whole = must_rewrite or not before or len(versions) >= VERSIONS_KEPT
    whole = whole or size + sum(version.size for version in versions[1:]) > versions[0].size
    await _write_version(ask, log, list(expected.values()) if whole else news, whole, result, options)
    return result


def _is_signed_by(line: Line, signer: Signer | None) -> bool:
    """Return True if a line has this signer's signature. All lines of a log must have one signature."""
    if signer is None:
        return line.version.form == UNSIGNED
    try:
        TrustedKeys([signer.public_key]).verify(LineKind.VERSION, line.raw)
    except UntrustedLineError:
        return False
    return True


async def _renew_time(ask: CallHub, newest: Line, signer: Signer) -> None:
    """Sign that this is the newest version now. Raises PushRejectedError if it is not."""
    signed = format_time(newest, time.time(), signer)
    if await call_function(ask, calls.TIME, [LOG, TIME], [newest.raw, signed]) != 1:
        raise PushRejectedError("somebody else has pushed meanwhile: nothing was changed, push again")


def _list_keys(line: bytes) -> Collection[str]:
    """Return the SHA-256 of each key of a customer."""
    keys: dict[str, object] = orjson.loads(line)["keys"]
    return keys.keys()


def _find_doubt(
    last: Version, before: Mapping[str, bytes], expected: Mapping[str, bytes], result: PushResult
) -> str | None:
    """Return the reason why the file looks like a mistake, or None."""
    if before:
        # A lost key was one of these before, and is not among them after. All other customers keep their keys.
        had = {digest for name in (*result.changed, *result.removed) for digest in _list_keys(before[name])}
        has = {digest for name in (*result.added, *result.changed) for digest in _list_keys(expected[name])}
        gone, lost = len(result.removed), len(had - has)
    else:
        gone, lost = last.customers - result.customers, last.keys - result.keys
    for what, less, of in (("customers", gone, last.customers), ("keys", lost, last.keys)):
        if less * 2 > of:
            return f"{less} of {of} {what} would be gone; if that is meant, say --force"
    return None


async def _read_customers(ask: CallHub, versions: list[Version], expected: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the line of each customer in these versions, sharing equal lines with `expected`.

    The result is empty if a part is lost. Then the whole directory is pushed.
    """
    current: dict[str, bytes] = {}
    try:
        for version in versions:
            if version.whole:
                current.clear()
            async for part in directory_versions.fetch_parts(create_part_fetcher(ask), version):
                _apply_lines(current, part, expected)
    except UnreadableDirectoryError:
        if [version.token for version in await directory_versions.fetch_versions(ask)] != [
            version.token for version in versions
        ]:
            raise PushRejectedError("somebody else has pushed meanwhile: nothing was changed, push again") from None
        return {}
    return current


def _apply_lines(current: dict[str, bytes], lines: Iterable[bytes], expected: Mapping[str, bytes]) -> None:
    """Apply the lines of a version. Raises UnreadableDirectoryError for an invalid line.

    Their digest is checked at the end of the version.
    """
    for line in lines:
        try:
            document = orjson.loads(line)
            if "flag" in document:
                continue  # A collector's flag. A pushed directory has none.
            name, is_gone = document["name"], "customer" not in document
            current.pop(name, None)
        except (ValueError, LookupError, TypeError) as error:
            raise UnreadableDirectoryError(f"a line of the directory is not understood: {error!r}") from error
        if not is_gone:
            current[name] = line if expected.get(name) != line else expected[name]


async def _write_version(
    ask: CallHub,
    log: Sequence[Line],
    changed_lines: Sequence[bytes],
    whole: bool,
    result: PushResult,
    options: PushOptions,
) -> None:
    """Write the parts into the hub, then make them visible in one step.

    Raises PushRejectedError if another push came between.
    """
    signer, now = options.signer, time.time()
    # A line from someone else must not affect the date that is signed here.
    before = log[-1].version if log and _is_signed_by(log[-1], signer) else None
    parts = list(join_parts(changed_lines))
    version = Version(
        result.version,
        secrets.token_hex(16),
        whole,
        *measure_parts(parts),
        result.customers,
        result.keys,
        compute_push_time(before, now),
        UNSIGNED if signer is None else SIGNED,
        log[-1].hash if log else "",
        # A signed rollback stays one while the log begins with it, because some edges have not read it yet.
        options.back or (whole and any(line.version.back for line in log)),
    )
    newest = directory_versions.parse_line(format_version(version, signer))
    signed = b"" if signer is None else format_time(newest, now, signer)
    await stage_parts(ask, version.token, parts)
    leaving = [line.version.token for line in log] if whole else []
    await commit_version(ask, log[-1].raw if log else b"", newest, signed, leaving)


async def stage_parts(ask: CallHub, token: str, parts: Iterable[bytes]) -> None:
    """Write the parts of a version into the hub without making them visible. Raises PushRejectedError."""
    for number, part in enumerate(parts, 1):
        if await call_function(ask, calls.STAGE, [parts_key(token)], [number, STAGED_SECONDS, part]) != number:
            raise PushRejectedError(LOST_MESSAGE)


async def commit_version(ask: CallHub, before: bytes, newest: Line, signed: bytes, leaving: Iterable[str]) -> None:
    """Publish a version with staged parts. Raises PushRejectedError.

    It follows the line `before` (empty: it is the first). The versions of the tokens `leaving` are removed.
    """
    version = newest.version
    keys = [LOG, TIME, parts_key(version.token), *map(parts_key, leaving)]
    arguments = (before, newest.raw, version.parts, READABLE_SECONDS, signed, NEWS, int(version.whole))
    answer = await call_function(ask, calls.COMMIT, keys, arguments)
    if answer == 0:
        raise PushRejectedError("somebody else has pushed meanwhile: nothing was changed, push again")
    if answer == -1:
        raise PushRejectedError(LOST_MESSAGE)
    if answer != 1:
        raise PushRejectedError(format_invalid_answer(answer, "the last step"))


def join_parts(customer_lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of customers, joined into parts."""
    part: list[bytes] = []
    size = 0
    for line in customer_lines:
        part.append(line)
        size += len(line) + 1
        if size >= PART_BYTES:
            yield b"\n".join(part)
            part, size = [], 0
    if part:
        yield b"\n".join(part)


def measure_parts(parts: Iterable[bytes]) -> tuple[int, int, str]:
    """Return the number of parts, their bytes, and the SHA-256 over them, for the line of a version."""
    number, size, digest = 0, 0, hashlib.sha256()
    for part in parts:
        number, size = number + 1, size + len(part)
        digest.update(part)
    return number, size, digest.hexdigest()


def run_push(settings: edge_settings.EdgeFile, options: PushOptions = PushOptions()) -> PushResult:  # noqa: B008
    """Push a directory from code without an event loop."""
    return asyncio.run(push_directory(settings, options))
