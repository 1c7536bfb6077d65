"""The directory on this host's disk: whole versions, by what people are looked up by."""

import base64
import hashlib
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from edgeproxy.config.directory import render_removal
from edgeproxy.config.edge.directory_settings import CacheKey
from edgeproxy.edge.directory import cache
from edgeproxy.edge.directory.cache import (
    FILE,
    CachedVersion,
    DirectoryCache,
    OutdatedVersionError,
    Survey,
    is_damage_error,
)
from edgeproxy.edge.directory.seal import EncryptedSeal, KeyUnavailableError, PlainSeal, load_seal
from tests.support.program import Program


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def line(name: str, tier: str = "t", *keys: str, **said: Any) -> bytes:
    """A customer with these keys."""
    found = {digest(key).hex(): {"scopes": [key]} for key in keys}
    return orjson.dumps({"name": name, "customer": {"tier": tier, **said}, "keys": found})


def held(number: int) -> CachedVersion:
    return CachedVersion(f"token {number}", number, 1000.0, 2000.0, 0, 0)


def write(there: DirectoryCache, number: int, *lines: bytes, whole: bool = False) -> set[str] | None:
    """A version with these lines; the customers whose lines they were."""
    writing = there.begin_version(f"token {number - 1}" if number > 1 else None)
    if whole:
        writing.begin_whole()
    writing.write_lines(lines)
    if whole:
        writing.end_whole()
    writing.commit(held(number))
    return None if writing.changed is None else writing.changed.names


def who(there: DirectoryCache, key: str) -> str | None:
    """Return the name of a key's owner."""
    person = there.find_owners([digest(key)])[digest(key)]
    return None if person is None else person.name


@pytest.fixture
def there(tmp_path: Path) -> DirectoryCache:
    return DirectoryCache(tmp_path)


def test_version_changes_only_the_customers_that_it_names(there: DirectoryCache) -> None:
    write(there, 1, line("a", "t", "a1", "a2"), line("b", "t", "b1"), line("c", "t", "c1"))
    write(there, 2, line("a", "t", "a2", "a3"), render_removal("b"))
    assert [who(there, key) for key in ("a1", "a2", "a3", "b1", "c1")] == [None, "a", "a", None, "c"]
    assert there.find_customer("b") is None


@pytest.mark.parametrize("first", ["a", "b"])
def test_key_moves_between_customers_in_either_order(there: DirectoryCache, first: str) -> None:
    write(there, 1, line("a", "t", "k"), line("b"))
    news = [line("a"), line("b", "t", "k")]
    write(there, 2, *(news if first == "a" else news[::-1]))
    assert who(there, "k") == "b"


def test_cache_commit_returns_changed_names_up_to_a_bound(
    there: DirectoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = [line(f"c{n}", "t", f"k{n}") for n in range(5)]
    write(there, 1, *crowd)
    assert write(there, 2, *crowd, line("d"), render_removal("e")) == {"d", "e"}
    scoped = orjson.dumps({"name": "c1", "customer": {"tier": "t"}, "keys": {digest("k1").hex(): {}}})
    assert write(there, 3, *crowd[:1], scoped, line("c2", "t", "k2", priority=1)) == {"c1", "c2"}
    monkeypatch.setattr(cache, "CHANGED_NAMES_MAX", 4)
    assert write(there, 4, *(line(f"n{n}") for n in range(4))) == {f"n{n}" for n in range(4)}
    assert write(there, 5, *(line(f"m{n}") for n in range(5))) is None


def test_incomplete_version_is_invisible_to_readers(there: DirectoryCache, tmp_path: Path) -> None:
    write(there, 1, line("a", "t", "k"))
    writing = there.begin_version("token 1")
    writing.write_lines([line("b", "t", "k"), render_removal("a")])
    another = DirectoryCache(tmp_path)
    for each in (there, another):
        assert (who(each, "k"), each.fetch_version()) == ("a", held(1))
    writing.commit(held(2))
    for each in (there, another):
        assert (who(each, "k"), each.fetch_version()) == ("b", held(2))
    writing = there.begin_version("token 2")
    writing.begin_whole()
    writing.end_whole()
    writing.discard()
    assert (who(another, "k"), another.fetch_version()) == ("b", held(2))


def test_a_writer_that_is_killed_leaves_the_version_before(there: DirectoryCache, tmp_path: Path) -> None:
    crowd = [line(f"c{n}", "t", f"k{n}") for n in range(500)]
    write(there, 1, *crowd)
    begins = (
        "import sys, time; from pathlib import Path; from edgeproxy.edge.directory.cache import DirectoryCache\n"
        "writing = DirectoryCache(Path(sys.argv[1])).begin_version('token 1')\n"
        "writing.begin_whole(); writing.end_whole()\n"
        "print('written', flush=True); time.sleep(60)"
    )
    with Program("-c", begins, tmp_path) as writer:
        assert writer.heard() == "written"
        assert who(there, "k7") == "c7"
        writer.kill()
    assert (who(there, "k7"), there.fetch_version()) == ("c7", held(1))
    assert write(DirectoryCache(tmp_path), 2, render_removal("c7")) == {"c7"}
    assert who(there, "k7") is None


class HeldUp(list[bytes]):
    """Lines or digests whose iteration blocks until `go_on` is set."""

    def __init__(self, *given: bytes) -> None:
        super().__init__(given)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for one in super().__iter__():
            yield one
            self.begun.set()
            assert self.go_on.wait(10)


@pytest.mark.parametrize("ends", ["discard", "close", "recreate"])
def test_closing_waits_for_threads_that_use_the_cache(there: DirectoryCache, ends: str) -> None:
    """Closing the database under a thread would end the process, as threads outlive their cancelled awaits."""
    write(there, 1, line("a", "t", "k"))
    writing = there.begin_version("token 1")
    given = HeldUp(*([line("b"), line("c")] if ends == "discard" else [digest("k"), digest("x")]))
    uses: Callable[[Any], Any] = writing.write_lines if ends == "discard" else there.find_owners
    end: Callable[[], None] = writing.discard if ends == "discard" else getattr(there, ends)
    with ThreadPoolExecutor(2) as threads:
        used = threads.submit(uses, given)
        assert given.begun.wait(10)
        ended = threads.submit(end)
        with pytest.raises(TimeoutError):
            ended.result(0.1)
        given.go_on.set()
        used.result(10)
        ended.result(10)


def test_version_with_another_parent_raises_outdated_version_error(there: DirectoryCache, tmp_path: Path) -> None:
    write(there, 1, line("a"))
    for token in (None, "another"):
        with pytest.raises(OutdatedVersionError):
            there.begin_version(token)
    write(DirectoryCache(tmp_path), 2, line("b"))
    with pytest.raises(OutdatedVersionError):
        there.begin_version("token 1")


@pytest.mark.parametrize(
    "odd",
    [b"?", b"[]", b"{}", b'{"name":"a","customer":{}}', b'{"name":"a","customer":{"tier":"t"},"keys":{"zz":{}}}',
     b'{"name":"../a","customer":{"tier":"t"},"keys":{}}', b'{"name":5,"customer":{"tier":"t"},"keys":{}}',
     b'{"name":5}', b'{"name":"a","customer":{"tier":18446744073709551615},"keys":{}}',
     b'{"name":"a","customer":{"tier":"t"},"keys":{"00":{}}}'],
)  # fmt: skip
def test_invalid_line_invalidates_the_directory_version(there: DirectoryCache, odd: bytes) -> None:
    writing = there.begin_version(None)
    with pytest.raises(ValueError, match="a line of the directory"):
        writing.write_lines([line("a"), odd])
    writing.discard()
    assert there.fetch_version() is None


def test_survey_returns_known_names_known_keys_and_missing_tiers(there: DirectoryCache) -> None:
    write(there, 1, line("a", "gold", "a1"), line("b", "tin", "b1"), line("c", "tin"))
    assert there.survey(["b", "x"], [digest("a1"), digest("x1")], {"gold"}) == (["b"], [digest("a1")], {"tin": 2})


@pytest.mark.parametrize("whole", [False, True])
def test_survey_applies_only_the_changes_of_each_version(there: DirectoryCache, whole: bool) -> None:
    files = (["a", "b", "x"], [digest("a1"), digest("k")], {"gold"})
    write(there, 1, line("a", "gold", "a1"), line("b", "tin", "b1"), line("c", "tin", "k"), line("d", "gold"))
    survey = there.survey(*files)
    versions = [
        [line("a", "tin", "k"), line("c", "tin")],
        [render_removal("b"), line("x", "gold", "a1"), line("a", "tin", "k")],
        [line("a", "lead"), line("a", "gold"), line("b", "lead", "k")],
        [render_removal("x"), render_removal("never"), line("d", "tin", "k")],
    ]
    for number, lines in enumerate(versions, 2):
        writing = there.begin_version(f"token {number - 1}")
        if whole:
            writing.begin_whole()
        writing.write_lines(lines)
        if whole:
            writing.end_whole()
        writing.commit(held(number))
        changes = writing.changed
        assert changes is not None
        overlap = there.find_overlap(
            [name for name in files[0] if name in changes.names], [key for key in files[1] if key in changes.digests]
        )
        survey = survey.follow(changes, overlap, files[2])
        expected = there.survey(*files)
        assert (sorted(survey.names), sorted(survey.keys)) == (sorted(expected.names), sorted(expected.keys))
        assert survey.tiers == expected.tiers


def test_changed_customer_with_too_many_keys_is_not_listed(
    there: DirectoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHANGED_KEYS_MAX", 2)
    assert write(there, 1, line("a", "t", "1", "2")) == {"a"}
    assert write(there, 2, line("a", "t", "1", "2", "3")) is None


def test_the_log_of_a_large_version_leaves_the_disk(
    there: DirectoryCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "JOURNAL_BYTES", 64 << 10)
    write(there, 1, *(line(f"c{n}", "t", f"k{n}", message="x" * 1000) for n in range(5000)), whole=True)
    journal = tmp_path / f"{FILE}-wal"
    assert journal.stat().st_size > 4 << 20
    write(there, 2, line("c1", "u", "k1"))
    assert journal.stat().st_size <= 64 << 10
    assert who(there, "k4999") == "c4999"


def test_cache_files_have_mode_0600(there: DirectoryCache, tmp_path: Path) -> None:
    write(there, 1, line("a"))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_invalid_cache_file_is_recreated(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    there = DirectoryCache(tmp_path)
    assert there.fetch_version() is None
    write(there, 1, line("a", "t", "k"))
    assert who(there, "k") == "a"


def test_cache_file_of_another_layout_is_recreated(there: DirectoryCache, tmp_path: Path) -> None:
    write(there, 1, line("a"))
    there.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"PRAGMA user_version = {cache.LAYOUT_VERSION + 1}")
    db.close()
    assert DirectoryCache(tmp_path).fetch_version() is None


def test_damaged_cache_raises_an_error_and_can_be_recreated(there: DirectoryCache, tmp_path: Path) -> None:
    write(there, 1, *(line(f"c{n}", "t", f"k{n}") for n in range(3000)))
    there.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    content[24576:] = b"\x5a" * (len(content) - 24576)
    (tmp_path / FILE).write_bytes(content)
    there = DirectoryCache(tmp_path)
    with pytest.raises(cache.CacheError) as raised:
        there.find_owners([digest(f"k{n}") for n in range(3000)])
    assert is_damage_error(raised.value)
    there.recreate()
    assert there.fetch_version() is None
    write(there, 1, line("a", "t", "k"))
    assert who(there, "k") == "a"


def test_missing_cache_directory_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        DirectoryCache(tmp_path / "gone")


def test_encrypted_cache_file_contains_no_customer_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, other = bytes(range(32)), bytes(32)
    there = DirectoryCache(tmp_path, EncryptedSeal(key))
    acme = line("acme-limited", "gold-tier", "k1", "k2")
    assert write(there, 1, acme, line("zed", "t", "z1"), whole=True) == {"acme-limited", "zed"}
    assert write(there, 2, acme, line("zed", "t", "z2")) == {"zed"}, "an unchanged customer is not listed"
    assert [who(there, name) for name in ("k1", "z1", "z2")] == ["acme-limited", None, "zed"]
    assert there.find_customer("acme-limited") == ('{"tier":"gold-tier"}', [digest("k1"), digest("k2")])
    assert there.survey(["zed"], [digest("k1")], {"t"}) == Survey(["zed"], [digest("k1")], {"gold-tier": 1})
    assert write(there, 3, acme, whole=True) == {"zed"}
    there.close()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for secret in (b"acme-limited", b"gold-tier", b"zed", digest("k1"), b"scopes"):
        assert secret not in written
    assert who(DirectoryCache(tmp_path, EncryptedSeal(key)), "k2") == "acme-limited"
    # A value that was moved to another row is none there.
    with sqlite3.connect(tmp_path / FILE) as db:
        one, two = db.execute("SELECT digest, said FROM keys").fetchall()
        db.execute("UPDATE keys SET said = ? WHERE digest = ?", (one[1], two[0]))
    moved = DirectoryCache(tmp_path, EncryptedSeal(key))
    with pytest.raises(sqlite3.DatabaseError, match="not encrypted with this key") as odd:
        moved.find_owners([digest("k1"), digest("k2")])
    assert is_damage_error(odd.value), "which is read anew from the hub or the collector"
    for seal in (EncryptedSeal(other), PlainSeal()):
        assert DirectoryCache(tmp_path, seal).fetch_version() is None, "another key, or none any more: made anew"


def test_the_key_comes_from_the_configuration_a_file_or_a_program(tmp_path: Path) -> None:
    text = base64.b64encode(bytes(range(32))).decode()
    file = tmp_path / "key"
    file.write_text(text + "\n")
    expected = EncryptedSeal(bytes(range(32))).index(b"x")
    for said in ({"key": text}, {"key": bytes(range(32)).hex()}, {"file": file}, {"command": ("cat", str(file))}):
        assert load_seal(CacheKey(**said), []).index(b"x") == expected
    file.write_text("short")
    for said in ({"file": file}, {"file": tmp_path / "none"}, {"command": ("false",)}, {"command": ("cat", str(file))}):
        with pytest.raises(KeyUnavailableError, match="cache_key: ") as why:
            load_seal(CacheKey(**said), [])
        assert "short" not in str(why.value)
