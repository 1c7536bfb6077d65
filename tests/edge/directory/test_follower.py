"""The directory of one supervisor and its messages to workers, with faults of the hub, the disk and the files."""

import asyncio
import hashlib
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from redis.exceptions import ResponseError

from edgeproxy.collector.directory import hub_push
from edgeproxy.collector.directory.hub_push import PushOptions, push_lines
from edgeproxy.config import key_list
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.directory import cache, follower
from edgeproxy.edge.directory.cache import FILE, CacheError, DirectoryCache
from edgeproxy.edge.directory.directories import Directories
from edgeproxy.edge.messages import ForgetCustomers, KeysLookedUp, LookUpKeys
from edgeproxy.hub.errors import HubRefusalError, HubUnavailableError
from edgeproxy.hub.redis import Link, format_error
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from edgeproxy.wire.directory_versions import LOG, TIME, format_time, parse_line
from loadtest.testbed.redis import SERVER
from loadtest.testbed.waiting import turned
from tests.support.logs import capture_logs

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

Message = dict[str, Any]


def hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def line(name: str, tier: str = "t") -> bytes:
    return orjson.dumps({"name": name, "customer": {"tier": tier}, "keys": {hashed(name).hex(): {}}})


class Room:
    """An edge's state directory, its hub, and the messages to its workers."""

    def __init__(self, folder: Path, ask: Callable[..., Awaitable[Any]]) -> None:
        self.folder = folder
        self.hub = ask
        self.is_away = False
        self.looks = 0
        """The number of commands to the hub."""
        self.told: list[ForgetCustomers] = []
        self.replies: list[KeysLookedUp] = []
        self.people = Directories(self.settings(), self.ask, self.told.append)

    def settings(self, more: str = "directory: {from: hub}\n") -> EdgeSettings:
        file = self.folder / "edge.yaml"
        file.write_text(
            f"state: {self.folder}\nhub: redis://127.0.0.1:1\ntiers: {{t: {{}}}}\n"
            "upstreams: {u: {endpoints: ['http://a']}}\nroutes: [{path: /*, upstream: u}]\n" + more
        )
        return load_edge(file, {})

    async def ask(self, *command: Any) -> Any:
        if self.is_away:
            raise HubUnavailableError("cut off")
        self.looks += 1
        try:
            return await self.hub(*command)
        except ResponseError as error:  # HubReader converts it alike.
            raise HubRefusalError(format_error(error)) from error

    async def pushes(self, *lines: bytes) -> None:
        await push_lines(self.hub, {orjson.loads(line)["name"]: line for line in lines}, PushOptions(force=True))

    async def asks(self, *names: str) -> KeysLookedUp:
        """Look up these names as a worker does. Return the answer."""
        self.people.queue_lookup(LookUpKeys([hashed(name) for name in names]), self.replies.append)
        return await turned(lambda: self.replies and self.replies.pop(), "there is an answer")

    def said(self) -> Message:
        report = self.people.report()
        assert report is not None
        return report

    async def knows(self, version: int) -> None:
        await turned(
            lambda: self.said()["version"] == version and self.said()["state"] == "current", f"it has {version}"
        )


def played(folder: Path, port: int, scene: Callable[[Room], Awaitable[None]], kind: type[Room] = Room) -> None:
    @asynccontextmanager
    async def room() -> AsyncIterator[Room]:
        link = await Link.open(f"redis://127.0.0.1:{port}/0")
        await link.ask("FLUSHALL")
        await link.load_functions()
        created = kind(folder, link.ask)
        try:
            yield created
        finally:
            await created.people.end()
            await link.close()

    async def play() -> None:
        async with room() as created:
            await scene(created)

    asyncio.run(play())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(follower, "FIRST_POLL_SECONDS", 0.02)
    # `begin` returns once the directory was read, even on a busy machine. Tests of its time-out use the fixture `soon`.
    monkeypatch.setattr(follower, "PROGRESS_SECONDS", 20.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Let `begin` give up early."""
    monkeypatch.setattr(follower, "PROGRESS_SECONDS", 0.3)


def test_a_changed_customer_is_taken_over_without_a_look_at_the_others(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[tuple[object, ...]] = []
    survey_all = DirectoryCache.survey

    def survey(there: DirectoryCache, *files: Any) -> cache.Survey:
        surveys.append(files)
        return survey_all(there, *files)

    monkeypatch.setattr(DirectoryCache, "survey", survey)

    async def scene(room: Room) -> None:
        await room.pushes(*(line(f"c{n}") for n in range(20)))
        await room.people.begin()
        await room.knows(1)
        surveys.clear()
        await room.pushes(*(line(f"c{n}", "other" if n == 7 else "t") for n in range(20)))
        await room.knows(2)
        await turned(lambda: room.said()["unknown_tiers"] == {"other": 1}, "the tier is known to lack")
        assert surveys == []
        assert room.told[-1].names == ["c7"]
        room.people._followed[0].follower._surveyed = None
        await room.pushes(*(line(f"c{n}") for n in range(20)))
        await turned(lambda: room.said()["unknown_tiers"] == {}, "the tier is known again")
        assert len(surveys) == 1

    played(tmp_path, redis_port, scene)


def test_a_reload_does_not_wait_for_the_survey(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 100,000 customers in files a survey takes a second."""
    go, survey_all = threading.Event(), DirectoryCache.survey

    def survey(there: DirectoryCache, *files: Any) -> cache.Survey:
        assert go.wait(10.0)
        return survey_all(there, *files)

    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        monkeypatch.setattr(DirectoryCache, "survey", survey)
        await room.people.follow(room.settings("directory: {from: hub}\ncustomers: {a: {tier: t}}\n"))
        assert room.said()["in_files"] == 0
        go.set()
        await turned(lambda: room.said()["in_files"] == 1, "the survey is over")

    played(tmp_path, redis_port, scene)


def test_survey_creates_no_model_of_the_keys_in_files(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "".join(f"  - {{sha256: {hashed(f'c{n}').hex()}, customer: c0}}\n" for n in range(50))
    more = f"directory: {{from: hub}}\ncustomers:\n  c0: {{tier: t}}\nkeys:\n{keys}"

    async def scene(room: Room) -> None:
        room.people = Directories(room.settings(more), room.ask, room.told.append)
        monkeypatch.delattr(key_list, "create_plain_key")
        await room.pushes(line("c0"), line("other"))
        await room.people.begin()
        await room.knows(1)
        await turned(lambda: room.people._followed[0].follower._survey.keys == [hashed("c0")], "the key is found")

    played(tmp_path, redis_port, scene)


def test_reload_or_failure_during_a_version_change_loses_no_change(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"), line("b"))
        await room.people.begin()
        await room.knows(1)
        there = room.people._followed[0].follower
        publish, surveys = there._publish_flags, there._surveys

        async def reload() -> None:
            await there._survey_files()
            await publish()

        monkeypatch.setattr(there, "_publish_flags", reload)
        await room.pushes(line("a", "other"), line("b"))
        await turned(
            lambda: room.said()["unknown_tiers"] == {"other": 1} and there._surveys == surveys + 2,
            "both surveys are over",
        )

        async def fail() -> None:
            monkeypatch.setattr(there, "_publish_flags", publish)
            raise cache.CacheError("locked")

        monkeypatch.setattr(there, "_publish_flags", fail)
        await room.pushes(line("a", "other"), line("b", "other"))
        await turned(lambda: room.said()["unknown_tiers"] == {"other": 2}, "the version is taken over later")

    played(tmp_path, redis_port, scene)


def test_a_repeated_signed_time_far_ahead_counts_once(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker with write access to the hub repeats a time signed by a clock that was ahead."""
    directory_signatures.create_key_file(tmp_path / "key")
    signer = Signer.load(tmp_path / "key")
    clock = SimpleNamespace(time=time.time)
    monkeypatch.setattr(follower, "time", clock)

    async def scene(room: Room) -> None:
        await push_lines(room.hub, {"a": line("a")}, PushOptions(signer=signer))
        newest = parse_line(await room.hub("LINDEX", LOG, -1))
        await room.hub("DEL", TIME)
        await room.hub("RPUSH", TIME, format_time(newest, time.time() + 31_536_000, signer))
        signed = f"directory: {{from: hub, trust: '{signer.public_key}'}}\n"
        room.people = Directories(room.settings(signed), room.ask, room.told.append)
        await room.people.begin()
        await room.knows(1)
        assert room.said()["signed_age_s"] < 60
        clock.time = lambda: time.time() + 3600
        looks = room.looks
        await turned(lambda: room.looks > looks + 2, "the follower has polled again")
        assert room.said()["signed_age_s"] > 3000
        await room.hub("RPUSH", TIME, format_time(newest, clock.time() + 60, signer))
        await turned(lambda: room.said()["signed_age_s"] < 60, "a time slightly ahead is accepted")

    played(tmp_path, redis_port, scene)


def test_follower_accepts_versions_of_a_signer_with_a_clock_set_back(
    tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge was offline. The log it finds no longer contains its own version."""
    directory_signatures.create_key_file(tmp_path / "key")
    options = PushOptions(force=True, signer=Signer.load(tmp_path / "key"))
    assert options.signer is not None
    signed = f"directory: {{from: hub, trust: '{options.signer.public_key}'}}\n"
    monkeypatch.setattr(hub_push, "VERSIONS_KEPT", 1)

    async def scene(room: Room) -> None:
        await push_lines(room.hub, {"a": line("a")}, options)
        for version, ahead in ((3, -3600), (5, 0)):
            room.people = Directories(room.settings(signed), room.ask, room.told.append)
            await room.people.begin()
            await room.knows(version - 2)
            await room.people.end()
            clock = SimpleNamespace(time=lambda ahead=ahead: time.time() + ahead)
            monkeypatch.setattr(hub_push, "time", clock)
            for tier in ("x", "t"):
                await push_lines(room.hub, {"b": line("b", tier + str(version))}, options)
        await room.people.begin()
        await room.knows(5)
        assert abs(room.said()["pushed_at"] - time.time()) < 60, "the clock is right again"

    played(tmp_path, redis_port, scene)


@pytest.mark.usefixtures("soon")
def test_a_missing_right_of_the_edges_redis_user_is_reported(tmp_path: Path, redis_port: int) -> None:
    async def scene(room: Room) -> None:
        await room.hub("ACL", "SETUSER", "without", "on", ">s3cret", "~*", "+@all", "-lindex")
        edges = await Link.open(f"redis://without:s3cret@127.0.0.1:{redis_port}/0")
        room.hub = edges.ask
        await room.people.begin()
        await turned(lambda: re.search("^NOPERM .*lindex", room.said()["why"]), "the report names the missing right")
        await edges.close()

    played(tmp_path, redis_port, scene)


def test_many_changes_make_workers_forget_all_customers(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "CHANGED_NAMES_MAX", 3)

    async def scene(room: Room) -> None:
        crowd = [line(f"c{n}") for n in range(50)]
        await room.pushes(*crowd)
        await room.people.begin()
        for many, version in ((3, 2), (4, 3)):
            crowd[:many] = [line(f"c{n}", f"v{version}") for n in range(many)]
            await room.pushes(*crowd)
            await room.knows(version)
        assert [message.names for message in room.told[1:]] == [["c0", "c1", "c2"], None]

    played(tmp_path, redis_port, scene)


def test_a_lookup_during_a_change_gets_the_new_version(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An old answer that arrives after workers have dropped their cache would be cached again."""
    looked = DirectoryCache.find_owners
    looks = 0
    # The next poll would replace the version of this test by the hub's, during the lookup on a busy machine.
    monkeypatch.setattr(follower, "POLL_SECONDS", 60.0)

    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        loop = asyncio.get_running_loop()

        def find(there: DirectoryCache, digests: Any) -> dict[bytes, Any]:
            nonlocal looks
            looks += 1
            answer = looked(there, digests)
            held = room.people._home._held
            if looks == 1 and held is not None:
                changed = room.people._home._take_over(
                    held._replace(token="another"), cache.Changes({"a"}, set(), Counter())
                )
                asyncio.run_coroutine_threadsafe(changed, loop).result(10)
            return answer

        monkeypatch.setattr(DirectoryCache, "find_owners", find)
        answer = await room.asks("a")
        assert looks == 2
        assert list(answer.known) == [hashed("a")]
        assert room.told[1] == ForgetCustomers(["a"], 2)

    played(tmp_path, redis_port, scene)


@pytest.mark.usefixtures("soon")
def test_lookups_are_untold_before_the_directory_is_read(tmp_path: Path, redis_port: int) -> None:
    async def scene(room: Room) -> None:
        untold = KeysLookedUp({}, [], [hashed("a")])
        assert await room.asks("a") == untold, "before it begins"
        room.is_away = True
        await room.people.begin()
        await turned(lambda: room.said()["why"] == "cut off", "the report says why")
        assert (room.said()["state"], room.said()["version"]) == ("unknown", None)
        assert room.people.describe_lack() == "the directory is not read yet: cut off"
        assert await room.asks("a") == untold
        room.is_away = False
        await turned(lambda: "nobody has pushed" in room.said().get("why", ""), "the hub is empty")
        assert await room.asks("a") == untold
        await room.pushes(line("a"))
        await room.knows(1)
        assert room.people.describe_lack() is None
        assert (await room.asks("a")).known
        await room.people.end()
        assert await room.asks("a") == untold, "after it has ended"
        assert room.people.report() is None
        assert room.people.series() == []

    played(tmp_path, redis_port, scene)


class Slow(Room):
    """A room whose hub delivers each part of a version slowly."""

    seconds = 0.3

    async def ask(self, *command: Any) -> Any:
        if command[0] == "LINDEX" and command[1] not in (LOG, TIME):
            await asyncio.sleep(self.seconds)
        return await super().ask(*command)


def test_begin_waits_for_a_directory_that_is_slow_to_read(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until the directory is read, all of its keys would be refused."""
    monkeypatch.setattr(hub_push, "PART_BYTES", 1)
    monkeypatch.setattr(follower, "PROGRESS_SECONDS", 2.0)

    async def scene(room: Room) -> None:
        await room.pushes(*(line(f"c{n}") for n in range(8)))
        began = asyncio.get_running_loop().time()
        await room.people.begin()
        assert room.said()["version"] == 1
        assert asyncio.get_running_loop().time() - began > follower.PROGRESS_SECONDS
        assert (await room.asks("c7")).known

    played(tmp_path, redis_port, scene, Slow)


class Held(Room):
    """A room whose hub delivers no part of a version until `may` is set."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may = asyncio.Event()

    async def ask(self, *command: Any) -> Any:
        if command[0] == "LINDEX" and command[1] not in (LOG, TIME):
            await self.may.wait()
        return await super().ask(*command)


def test_begin_stops_waiting_after_the_start_time_of_an_edge(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "PROGRESS_SECONDS", 2.0)
    monkeypatch.setattr(follower, "FIRST_READ_SECONDS", 0.0)

    async def scene(room: Room) -> None:
        assert isinstance(room, Held)
        await room.pushes(line("a"))
        await room.people.begin()
        assert (room.said()["version"], room.said()["why"]) == (None, "version 1 is being read")
        assert room.people.describe_lack() is None
        assert (await room.asks("a")).untold
        room.may.set()
        await room.knows(1)

    played(tmp_path, redis_port, scene, Held)


@pytest.mark.usefixtures("soon")
def test_time_before_the_directory_counts_to_the_start_time_of_an_edge(tmp_path: Path, redis_port: int) -> None:
    async def scene(room: Room) -> None:
        room.is_away = True
        await room.people.begin(follower.FIRST_READ_SECONDS - 30.0)
        assert room.people.describe_lack() is not None
        await room.people.end()
        await room.people.begin(follower.FIRST_READ_SECONDS)
        assert room.people.describe_lack() is None

    played(tmp_path, redis_port, scene)


def test_lookups_pending_at_the_end_are_answered(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        begun = asyncio.Event()

        async def never(digests: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(room.people._lookups, "_find_owners", never)
        for name in "ab":
            room.people.queue_lookup(LookUpKeys([hashed(name)]), room.replies.append)
            await begun.wait()
        await room.people.end()
        assert [reply.untold for reply in room.replies] == [[hashed("a")], [hashed("b")]]

    played(tmp_path, redis_port, scene)


def test_a_version_with_lost_parts_leaves_the_former_version(tmp_path: Path, redis_port: int) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"), line("b"))
        await room.people.begin()
        keys = set(await room.hub("KEYS", "dir:*"))
        room.is_away = True
        await room.pushes(line("a"), line("c"))
        (lost,) = set(await room.hub("KEYS", "dir:*")) - keys
        await room.hub("DEL", lost)
        room.is_away = False
        await turned(lambda: "lost a part" in room.said().get("why", ""), "the follower states the fault")
        assert room.said()["version"] == 1
        answer = await room.asks("b", "c")
        assert (list(answer.known), answer.unknown) == ([hashed("b")], [hashed("c")])
        await room.pushes(line("a"), line("c"))
        await room.knows(3)
        assert list((await room.asks("b", "c")).known) == [hashed("c")]

    played(tmp_path, redis_port, scene)


@pytest.mark.parametrize("field", ["number", "token", "parts", "sha256", "customers", "at"])
def test_following_resumes_after_an_invalid_log_line_is_removed(
    tmp_path: Path,
    redis_port: int,
    field: str,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        odd = orjson.loads(await room.hub("LINDEX", LOG, -1)) | {"token": "odd", field: []}
        await room.hub("RPUSH", LOG, orjson.dumps(odd))
        await turned(lambda: "has a line that" in room.said().get("why", ""), "the follower states the fault")
        await room.hub("RPOP", LOG)
        await turned(lambda: room.said()["state"] == "current", "the directory is followed again")
        await room.pushes(line("a"), line("b"))
        await room.knows(2)

    played(tmp_path, redis_port, scene)


def test_unexpected_errors_stop_neither_the_follower_nor_lookups(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        with monkeypatch.context() as broken:

            def fail(*_: Any) -> None:
                raise RuntimeError("unforeseen")

            broken.setattr(DirectoryCache, "find_owners", fail)
            broken.setattr(DirectoryCache, "begin_version", fail)
            await room.pushes(line("a"), line("b"))
            await turned(lambda: "unforeseen" in room.said().get("why", ""), "the report names the failure")
            assert (await room.asks("a")).untold == [hashed("a")]
        await room.knows(2)
        assert set((await room.asks("a", "b")).known) == {hashed("a"), hashed("b")}

    with capture_logs() as said:
        played(tmp_path, redis_port, scene)
    told = [each["event"] for each in said if each["log_level"] == "error"]
    assert sorted(told) == ["keys could not be looked up", "the directory could not be read"]


def test_damage_on_the_disk_is_repaired_from_the_hub(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        looked = DirectoryCache.find_owners

        def broken(there: DirectoryCache, digests: Any) -> dict[bytes, Any]:
            monkeypatch.setattr(DirectoryCache, "find_owners", looked)
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(DirectoryCache, "find_owners", broken)
        assert (await room.asks("a")).untold
        await turned(lambda: len(room.told) == 3, "the directory is read again")
        await room.knows(1)
        assert (await room.asks("a")).known

    played(tmp_path, redis_port, scene)


def test_a_disk_error_does_not_make_a_customer_unknown(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()

        def broken(there: DirectoryCache, name: str) -> Any:
            raise sqlite3.DatabaseError("database disk image is malformed")

        with monkeypatch.context() as patched:
            patched.setattr(DirectoryCache, "find_customer", broken)
            with pytest.raises(CacheError, match="malformed"):
                await room.people.find_customer("a")
        await turned(lambda: len(room.told) == 3, "the directory is read again")
        await room.knows(1)
        assert await room.people.find_customer("a") is not None

    played(tmp_path, redis_port, scene)


def test_a_removed_cache_file_is_created_again(tmp_path: Path, redis_port: int) -> None:
    def removed() -> None:
        for file in tmp_path.glob(f"{FILE}*"):
            file.unlink()

    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()
        removed()
        assert (await room.asks("a")).known
        await room.pushes(line("a"), line("b"))
        await room.knows(2)
        assert set((await room.asks("a", "b")).known) == {hashed("a"), hashed("b")}
        assert DirectoryCache(tmp_path).fetch_version() is not None

    played(tmp_path, redis_port, scene)


def test_a_full_disk_keeps_the_stored_version(
    tmp_path: Path,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"))
        await room.people.begin()

        def full(there: DirectoryCache, token: str | None) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(DirectoryCache, "begin_version", full)
            await room.pushes(line("a"), line("b"))
            await turned(lambda: room.said().get("why") == "database or disk is full", "the report names the full disk")
            assert (room.said()["state"], room.said()["version"]) == ("behind", 1)
            assert list((await room.asks("a", "b")).known) == [hashed("a")]
        await room.knows(2)

    played(tmp_path, redis_port, scene)


def test_customers_in_files_and_directory_are_logged_once_per_change(
    tmp_path: Path,
    redis_port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene(room: Room) -> None:
        await room.pushes(line("a"), line("b"))
        await room.people.begin()
        assert room.said()["in_files"] == 0
        key = f"{{sha256: {hashed('b').hex()}, customer: a}}"
        mine = f"directory: {{from: hub}}\ncustomers: {{a: {{tier: t}}}}\nkeys: [{key}]\n"
        for _ in range(2):
            await room.people.follow(room.settings(mine))
            await turned(lambda: room.said()["in_files"] == 1, "the survey is over")
        await room.people.follow(room.settings())
        await turned(lambda: room.said()["in_files"] == 0, "the survey is over")
        await room.people.follow(room.settings(""))
        assert room.people.report() is None
        await room.people.follow(room.settings())
        await room.knows(1)

    played(tmp_path, redis_port, scene)
    said = capsys.readouterr().err
    assert said.count("customers are in the files and in the directory") == 1
    assert said.count("keys are in the files and in the directory") == 1
