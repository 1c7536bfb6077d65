"""An edge accepts a directory only if a trusted key signed it and it follows the edge's version."""

import base64
import stat
from pathlib import Path

import pytest

from edgeproxy.edge.directory.cache import CachedVersion
from edgeproxy.edge.directory.lineage import RejectedVersionError, accept_news
from edgeproxy.edge.directory.transport import News
from edgeproxy.wire import directory_signatures, directory_versions
from edgeproxy.wire.directory_signatures import InvalidSigningKeyError, LineKind, Signer, TrustedKeys
from edgeproxy.wire.directory_versions import (
    SIGNED,
    Line,
    Version,
    compute_push_time,
    format_time,
    format_version,
    parse_line,
)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, Signer]:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        directory_signatures.create_key_file(folder / name)
    return Signer.load(folder / "ours"), Signer.load(folder / "theirs")


@pytest.fixture
def ours(signers: tuple[Signer, Signer]) -> Signer:
    return signers[0]


@pytest.fixture
def theirs(signers: tuple[Signer, Signer]) -> Signer:
    return signers[1]


def made(number: int, before: Line | None, signer: Signer | None, *, whole: bool = False, back: bool = False) -> Line:
    """A line, at the Unix second of its number in hundreds."""
    version = Version(
        number, f"t{number}", whole, 1, 1, "0" * 64, 1, 1, 100.0 * number, SIGNED, before.hash if before else "", back
    )
    return parse_line(format_version(version, signer))


def chain(signer: Signer, numbers: range) -> list[Line]:
    """Versions with these numbers, the first of them whole."""
    lines: list[Line] = []
    for number in numbers:
        lines.append(made(number, lines[-1] if lines else None, signer, whole=not lines))
    return lines


def held(line: Line) -> CachedVersion:
    """As an edge has it that has read this version."""
    version = line.version
    return CachedVersion(version.token, version.number, version.at, 0.0, 1, 1, line.hash, version.at, True)


def news(*lines: Line, follows: bool = False, time: bytes | None = None) -> News:
    return News(tuple(line.raw for line in lines), follows, time)


def numbers(had: Line | None, found: News, signer: Signer) -> list[int]:
    accepted = accept_news(None if had is None else held(had), found, TrustedKeys([signer.public_key]))
    return [version.number for version in accepted.versions]


def why(had: Line | None, found: News, signer: Signer) -> str:
    with pytest.raises(RejectedVersionError) as rejected:
        numbers(had, found, signer)
    return str(rejected.value)


def test_lineage_accepts_children_of_the_current_version_and_a_later_full_log(ours: Signer) -> None:
    log = chain(ours, range(1, 6))
    assert numbers(None, news(*log), ours) == [1, 2, 3, 4, 5]
    assert numbers(log[2], news(*log[3:], follows=True), ours) == [4, 5]
    assert numbers(log[4], news(follows=True), ours) == []
    assert numbers(log[4], news(made(6, log[4], ours, whole=True)), ours) == [6]
    assert numbers(log[1], news(made(6, log[4], ours, whole=True)), ours) == [6], "the ones between are not there"


def test_version_without_a_trusted_signature_is_refused(ours: Signer, theirs: Signer) -> None:
    (first,) = chain(ours, range(1, 2))
    assert why(first, news(made(2, first, None), follows=True), ours) == "version 2 is not signed"
    forged = "version 2 has no signature of a key that is trusted here"
    assert why(first, news(made(2, first, theirs), follows=True), ours) == forged
    right = made(2, first, ours)
    altered = parse_line(right.raw.replace(b'"keys":1', b'"keys":7'))
    assert why(first, news(altered, follows=True), ours) == forged
    moved = parse_line(ours.sign(LineKind.TIME, right.raw.rpartition(b" ")[0]))
    assert why(first, news(moved, follows=True), ours) == forged, "signed as something else"
    assert why(None, news(*chain(theirs, range(1, 3))), ours).startswith("version 1 has no signature")
    both = TrustedKeys([theirs.public_key, ours.public_key])
    assert accept_news(held(first), news(made(2, first, theirs), follows=True), both).hash, (
        "while one replaces the other"
    )


def test_older_version_or_version_that_is_no_child_is_refused(ours: Signer) -> None:
    log = chain(ours, range(1, 6))
    other = chain(ours, range(2, 6))
    older = "version 3 is older than version 5, which this edge has, and is not signed as going back"
    assert why(log[4], news(*log[:3]), ours) == older
    assert "another one than version 5" in why(log[4], news(*other), ours)
    assert why(log[4], news(made(6, other[-1], ours, whole=True)), ours).startswith("version 6 is not a child of")
    assert why(log[4], news(made(7, log[4], ours), follows=True), ours) == "version 7 is not a child of version 5"
    assert why(log[1], news(log[2], log[4], follows=True), ours) == "version 5 is not a child of version 3"
    assert why(log[1], news(*log[3:]), ours).startswith("version 4 is not a child of version 2")
    assert why(None, news(*log[3:]), ours).startswith("version 4 is not a child of nothing")
    assert "is not a child of version 3" in why(log[2], news(*other, made(6, other[-1], ours)), ours)


def test_going_back_has_to_be_signed_as_such_and_counts_once(ours: Signer) -> None:
    log = chain(ours, range(1, 6))
    back = made(3, None, ours, whole=True)
    later = parse_line(format_version(back.version._replace(back=True, at=501.0), ours))
    assert numbers(log[4], news(later), ours) == [3]
    after = made(4, later, ours)
    assert numbers(log[4], news(later, after), ours) == [3, 4]
    assert numbers(later, news(after, follows=True), ours) == [4]
    replayed = parse_line(format_version(back.version._replace(back=True, at=499.0), ours))
    assert "is not signed as going back" in why(log[4], news(replayed), ours), "signed before what the edge has"


def test_a_later_log_was_signed_later(ours: Signer) -> None:
    log = chain(ours, range(1, 6))
    back = made(1, None, ours, whole=True)
    anew = parse_line(format_version(back.version._replace(back=True, at=501.0), ours))
    copied = [made(number, log[1], ours, whole=True) for number in (3, 4)]
    before = "version 4 was signed before version 1, which this edge has"
    assert why(anew, news(copied[1]), ours) == before
    assert numbers(None, news(copied[1]), ours) == [4], "an edge that knows nothing cannot tell"


@pytest.mark.parametrize(
    ("before", "now", "at"),
    [
        (None, 50.0, 50.0),
        (100.0, 200.0, 200.0),
        (100.0, 100.0, 100.001),
        (3700.0, 100.0, 3700.001),
        (1e9, 100.0, 100.0),
    ],
)
def test_pushes_are_dated_one_after_the_other(ours: Signer, before: float | None, now: float, at: float) -> None:
    last = None if before is None else made(1, None, ours).version._replace(at=before)
    assert compute_push_time(last, now) == pytest.approx(at, abs=1e-6)


def test_the_signed_time_is_that_of_the_newest_version_alone(ours: Signer, theirs: Signer) -> None:
    log = chain(ours, range(1, 4))
    trust = TrustedKeys([ours.public_key])

    def signed(of: Line, by: Signer = ours) -> float:
        return accept_news(held(log[2]), news(follows=True, time=format_time(of, 9000.0, by)), trust).signed_at

    assert signed(log[2]) == 9000.0
    assert signed(log[1]) == 300.0, "the version itself was signed then"
    with pytest.raises(RejectedVersionError, match="the time of the directory has no signature"):
        signed(log[2], theirs)
    withheld = format_time(made(4, log[2], ours), 9000.0, ours)
    assert why(log[2], news(follows=True, time=withheld), ours) == (
        "the log ends with version 3, and version 4 was signed as the newest"
    )


def test_directory_without_trust_accepts_all_versions_of_the_log(theirs: Signer) -> None:
    log = chain(theirs, range(1, 4))
    assert [version.number for version in accept_news(held(log[2]), news(*log), None).versions] == [1, 2, 3]


def test_private_key_file_is_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key"
    public = directory_signatures.create_key_file(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Signer.load(file).public_key == public
    with pytest.raises(FileExistsError):
        directory_signatures.create_key_file(file)
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        file.write_bytes(content)
        with pytest.raises(InvalidSigningKeyError, match="has no private key"):
            Signer.load(file)
    with pytest.raises(InvalidSigningKeyError, match="cannot be read"):
        Signer.load(tmp_path / "none")


@pytest.mark.parametrize("line", [b"x", b"x y", b"x " + base64.b64encode(b"short")])
def test_a_line_without_a_whole_signature_is_not_signed(line: bytes) -> None:
    assert directory_signatures.split_signature(line) == (line, None)
    with pytest.raises(directory_versions.UnreadableDirectoryError):
        directory_versions.parse_time(line)
