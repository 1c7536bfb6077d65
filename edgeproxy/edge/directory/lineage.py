"""The rules for accepting a version: it is signed by a trusted key, and is a child of the edge's version. Pure.

An attacker who can write to the hub, or stands between it and an edge, cannot create or alter a version, or bring back
an earlier one. It can only withhold news, and that shows in the signed time, which then gets old.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from edgeproxy.edge.directory.cache import CachedVersion
from edgeproxy.edge.directory.transport import News
from edgeproxy.wire.directory_signatures import LineKind, TrustedKeys, UntrustedLineError
from edgeproxy.wire.directory_versions import Line, Version, parse_line, parse_time


class RejectedVersionError(Exception):
    """A version of the log must not be served here; the text names it and the reason."""


class OversizedLogError(RejectedVersionError):
    """The log is longer than any push leaves it; reading it often would burden the hub."""


class AcceptedNews(NamedTuple):
    """The versions to read, and the newest signed time (Unix seconds; 0: none is known)."""

    versions: list[Version]
    hash: str
    """Hash of the newest line afterwards."""
    signed_at: float


def accept_news(held: CachedVersion | None, news: News, trust: TrustedKeys | None) -> AcceptedNews:
    """Decide which news an edge with `held` reads. Raises RejectedVersionError, and UnreadableDirectoryError.

    `trust`: None if the directory is not signed; then every version in the log is accepted.
    """
    lines = [parse_line(raw) for raw in news.lines]
    versions = [line.version for line in lines]
    newest = lines[-1].hash if lines else held.hash if held is not None else ""
    if trust is None:
        return AcceptedNews(versions, newest, 0.0)
    for line in lines:
        check_signature(line, trust)
    for before, line in pairwise(lines):
        _check_child(before.hash, before.version.number, line)
    if lines:
        _check_descent(held, lines)
    number = lines[-1].version.number if lines else held.number if held is not None else 0
    pushed_at = lines[-1].version.at if lines else held.pushed_at if held is not None else 0.0
    # The time is signed after the version, and it alone counts: it corrects a version signed by a wrong clock.
    return AcceptedNews(versions, newest, _find_signed_time(news.time, number, newest, trust) or pushed_at)


def check_signature(line: Line, trust: TrustedKeys | None) -> None:
    """Raise RejectedVersionError if a line is not signed by a trusted key; without `trust` none need be."""
    if trust is None:
        return
    try:
        trust.verify(LineKind.VERSION, line.raw)
    except UntrustedLineError as error:
        raise RejectedVersionError(f"version {line.version.number} {error}") from error


def create_lineage_error(line: Line, number: int) -> RejectedVersionError:
    """Return the error that a line does not follow the version of this number."""
    return RejectedVersionError(f"version {line.version.number} is not a child of version {number}")


def _check_child(before: str, number: int, line: Line) -> None:
    """Raise RejectedVersionError if a line does not follow the line with this hash and number."""
    version = line.version
    if version.before != before or (version.number != number + 1 and not version.back):
        raise create_lineage_error(line, number)


def _check_descent(held: CachedVersion | None, lines: Sequence[Line]) -> None:
    """Raise RejectedVersionError if an edge with `held` must not continue with these lines."""
    first, newest = lines[0], lines[-1].version
    if held is not None and first.version.before == held.hash:
        _check_child(held.hash, held.number, first)
        return
    if not first.version.whole:
        known = "nothing" if held is None else f"version {held.number}"
        raise RejectedVersionError(
            f"version {first.version.number} is not a child of {known}, which is what this edge has"
        )
    if held is None or any(line.version.back and line.version.at > held.pushed_at for line in lines):
        return
    if newest.number <= held.number:
        known = f"version {held.number}, which this edge has"
        what = "older than" if newest.number < held.number else "another one than"
        raise RejectedVersionError(f"version {newest.number} is {what} {known}, and is not signed as going back")
    same = next((line for line in lines if line.version.number == held.number), None)
    if first.version.number == held.number + 1 or (same is not None and same.hash != held.hash):
        raise RejectedVersionError(
            f"version {newest.number} is not a child of version {held.number}, which this edge has"
        )
    if newest.at <= held.pushed_at:
        # Its number is higher because the numbers began again: signers date each push after the previous one.
        raise RejectedVersionError(
            f"version {newest.number} was signed before version {held.number}, which this edge has"
        )


def _find_signed_time(line: bytes | None, number: int, newest: str, trust: TrustedKeys) -> float:
    """Return the Unix second when this was signed as the newest version; 0 if it never was.

    Raises RejectedVersionError.
    """
    if line is None:
        return 0.0
    try:
        trust.verify(LineKind.TIME, line)
    except UntrustedLineError as error:
        raise RejectedVersionError(f"the time of the directory {error}") from error
    time = parse_time(line)
    if time.number > number:
        raise RejectedVersionError(
            f"the log ends with version {number}, and version {time.number} was signed as the newest"
        )
    return time.at if time.hash == newest else 0.0
