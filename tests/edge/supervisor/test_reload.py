"""Reloads: their decisions, their order, and the change of workers from one configuration to another."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edgeproxy.base.outgoing_proxy import find_proxy
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.trust import stamp_files
from edgeproxy.config.addresses import Address
from edgeproxy.config.customers import Customer
from edgeproxy.config.edge.customer_store import CustomerMap
from edgeproxy.config.edge.load import load_edge, try_load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.limits import Quota
from edgeproxy.config.load import Loaded
from edgeproxy.edge.messages import LoadCertificates, Prepare, SetEndpoints, Start
from edgeproxy.edge.supervisor import sockets
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.changeover import Changeover
from edgeproxy.edge.supervisor.health import ProbeTarget
from edgeproxy.edge.supervisor.ledger_counts import find_sources
from edgeproxy.edge.supervisor.probe import Prober
from edgeproxy.edge.supervisor.reload import ReloadOutcome, Reloads, follow_each, next_problem, plan_reload
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.watch import SettlingFiles, watch_files
from edgeproxy.edge.supervisor.workers import Workers
from loadtest.testbed.authority import Authority
from loadtest.testbed.waiting import turned, within
from tests.edge.supervisor.standing_in import STAND_IN, ask, importable, ready, run, start
from tests.support.logs import capture_logs

__all__ = ["importable"]

CONFIG = """
region: here
workers: 2
state: state
upstreams: {api: {endpoints: [http://127.0.0.1:9]}}
routes: [{name: v1, path: /v1/*, upstream: api}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "edge.yaml"
    made.write_text(CONFIG)
    return made


# ---- decisions of a reload


def test_settings_that_need_a_restart_are_named_and_others_apply(file: Path) -> None:
    before = load_edge(file, {})
    file.write_text(
        CONFIG.replace("here", "there").replace("workers: 2", "workers: 3")
        + "listen: 127.0.0.1:1\nadmin: 127.0.0.1:2\ntables: {customers: 7}\nlegacy_headers: true\ndrain: 3s\n"
    )
    loaded = load_edge(file, {})
    settings, waits = plan_reload(before, loaded)
    assert waits == ("region", "listen", "admin", "workers", "tables")
    assert settings.sha256 == loaded.sha256
    assert (settings.legacy_headers, settings.drain) == (True, 3.0)
    for field in waits:
        assert getattr(settings, field) == getattr(before, field)
    file.write_text(CONFIG.replace("state: state", "state: other"))
    assert plan_reload(before, load_edge(file, {})).needs_restart == ("state",)
    file.write_text(CONFIG + "# nothing\n")
    assert plan_reload(before, load_edge(file, {})).needs_restart == ()


def test_a_problem_lasts_from_its_first_failure_to_the_next_success() -> None:
    first = next_problem(None, ReloadOutcome("refused", ("a",)), 1.0)
    assert first == (1.0, 1.0, "refused", ("a",))
    assert next_problem(first, ReloadOutcome("failed", ("b",)), 2.0) == (1.0, 2.0, "failed", ("b",))
    assert next_problem(first, ReloadOutcome("unchanged"), 3.0) is None
    assert next_problem(None, ReloadOutcome("ok"), 3.0) is None


A: dict[str, FileSignature] = {"edge.yaml": (1, 1, 1, 1)}
B: dict[str, FileSignature] = {"edge.yaml": (1, 1, 2, 2)}
C: dict[str, FileSignature] = {"edge.yaml": None}


@pytest.mark.parametrize(
    ("looks", "reloads"),
    [
        ([(A, A), (A, A)], "..",),
        ([(A, B), (A, B)], ".*"),
        ([(A, B), (A, C), (A, B), (A, B)], "...*"),
        ([(A, C), (A, C), (C, B), (C, B)], ".*.*"),
        ([(A, B), (A, B), (A, B), (A, B)], ".*.."),
        ([(A, B), (A, B), (B, A), (B, A), (A, B), (A, B)], ".*.*.*"),
        ([(A, B), (A, A), (A, A)], "..."),
    ],
)  # fmt: skip
def test_a_settled_change_is_loaded_once(looks: list[tuple[Any, Any]], reloads: str) -> None:
    settling = SettlingFiles()
    assert "".join(".*"[settling.is_reload_due(read, seen)] for read, seen in looks) == reloads


# ---- one after another


class Room:
    """Reloads of a file, with the results that a test chooses."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.applied: list[EdgeSettings] = []
        self.whys: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: list[bool] = []
        first = try_load_edge(file, {})
        assert first.settings is not None
        self.reloads = Reloads(
            first.settings, self.read, self.apply, on_reload=self.begun.append, signatures=first.signs
        )

    def read(self) -> Loaded:
        return try_load_edge(self.file, {})

    async def apply(self, settings: EdgeSettings) -> list[str]:
        self.applied.append(settings)
        await self.gate.wait()
        return self.whys

    def write(self, more: str) -> None:
        self.file.write_text(CONFIG + more)

    def replace(self, old: str, new: str) -> None:
        self.file.write_text(CONFIG.replace(old, new))


def play(file: Path, scene: Callable[[Room, Tasks], Awaitable[None]]) -> None:
    async def run() -> None:
        room, tasks = Room(file), Tasks()
        tasks.start("reload", room.reloads.run())
        try:
            await within(20, scene(room, tasks))
        finally:
            await tasks.cancel()

    uvloop.run(run())


def test_requests_during_a_reload_share_the_next_one(file: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        room.gate.clear()
        room.write("drain: 1s\n")
        first = room.reloads.request()
        await turned(lambda: room.applied, "the reload is being applied")
        room.write("drain: 2s\n")
        second, third = room.reloads.request(), room.reloads.request()
        assert first is not second
        assert second is third
        room.gate.set()
        assert (await first, await second) == (ReloadOutcome("ok"), ReloadOutcome("ok"))
        assert [settings.drain for settings in room.applied] == [1.0, 2.0]
        assert room.reloads.serving is room.applied[-1]
        assert room.begun == [True, False, True, False]

    play(file, scene)


def test_a_rotated_secret_is_applied_though_the_files_are_the_same(file: Path, tmp_path: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        secret = tmp_path / "token"
        for token, result in (("one", "ok"), ("two", "ok"), ("two", "unchanged")):
            secret.write_text(f"{token}\n")
            room.write(f"stamp_secret: ${{file:{secret}}}\n")
            assert (await room.reloads.request()).result == result
        assert len(room.applied) == 2

    play(file, scene)


def test_a_missing_unreadable_or_partial_file_changes_nothing(file: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        serving = room.reloads.serving
        room.file = file.parent / "gone.yaml"
        assert "No such file" in (await room.reloads.request()).errors[0]
        room.file = file.parent
        assert "Is a directory" in (await room.reloads.request()).errors[0]
        room.file = file
        room.write(CONFIG[: len(CONFIG) // 2])
        assert (await room.reloads.request()).errors
        assert room.reloads.serving is serving
        assert room.applied == []
        assert room.reloads.series()[-1] == ("edge_config_ok", (), (0,))
        room.write("")
        assert await room.reloads.request() == ReloadOutcome("unchanged")
        assert room.reloads.series()[-1] == ("edge_config_ok", (), (1,))

    play(file, scene)


def test_a_configuration_refused_by_workers_is_not_served(file: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        room.whys = ["worker 7: no row is left"]
        room.write("drain: 1s\n")
        serving = room.reloads.serving
        with capture_logs() as logs:
            assert (await room.reloads.request()).errors == ("worker 7: no row is left",)
        assert room.reloads.serving is serving
        (line,) = logs
        assert (line["log_level"], line["errors"]) == ("error", ("worker 7: no row is left",))
        room.whys = []
        assert (await room.reloads.request()).result == "ok"
        assert room.reloads.problem is None

    play(file, scene)


def test_reloads_go_on_after_an_unexpected_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        def broken() -> Loaded:
            raise MemoryError

        monkeypatch.setattr(room.reloads, "_read", broken)
        assert await room.reloads.request() == ReloadOutcome("failed", ("the supervisor failed: MemoryError()",))
        monkeypatch.setattr(room.reloads, "_read", room.read)
        assert (await room.reloads.request()).result == "unchanged"

    play(file, scene)


def test_a_part_that_cannot_follow_is_named_and_the_reload_is_done(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []

    async def fail() -> None:
        raise OSError("the disk is full")

    async def follow() -> None:
        followed.append("issuers")

    async def scene(room: Room, tasks: Tasks) -> None:
        async def apply(settings: EdgeSettings) -> list[str]:
            await follow_each({"directories": fail, "issuers": follow})
            return await room.apply(settings)

        monkeypatch.setattr(room.reloads, "_apply", apply)
        room.write("drain: 1s\n")
        with capture_logs() as logs:
            assert (await room.reloads.request()).result == "ok"
        assert [line["part"] for line in logs if line["log_level"] == "error"] == ["directories"]
        assert followed == ["issuers"]
        assert room.reloads.serving.drain == 1.0

    play(file, scene)


def test_following_settings_reads_no_customer_by_name(file: Path) -> None:
    """A hundred thousand look-ups by name stop the loop for 0.2 s."""

    class Unread(CustomerMap):
        def __getitem__(self, name: str) -> Customer:
            raise AssertionError(name)

    file.write_text(CONFIG + "usage: {collector: 'https://127.0.0.1:9', token: secret}\ntiers: {free: {}}\n")
    for quotas, follows in ((None, False), ((Quota(meter="requests", included=1, per="month"),), True)):
        customers = Unread({"a": Customer(tier="free"), "b": Customer(tier="free", quotas=quotas)})
        usages, hub = find_sources(load_edge(file, os.environ).model_copy(update={"customers": customers}))
        assert (bool(usages), hub) == (follows, None)


def test_a_hanging_file_system_does_not_block_the_end(file: Path) -> None:
    """The scene runs until the event loop closes, which waits for asyncio's own threads."""

    async def scene(room: Room, tasks: Tasks) -> None:
        room.file.unlink()
        os.mkfifo(room.file)
        answer = room.reloads.request()
        await turned(lambda: room.begun == [True], "the file is being read")
        await tasks.cancel()
        assert (await answer).result == "failed"

    ending = threading.Thread(target=play, args=(file, scene), daemon=True)
    ending.start()
    ending.join(10)
    assert not ending.is_alive()


def test_the_end_of_reloads_answers_pending_requests(file: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        room.gate.clear()
        room.write("drain: 1s\n")
        running = room.reloads.request()
        await turned(lambda: room.applied, "the reload is being applied")
        waiting = room.reloads.request()
        room.reloads.end()
        assert (await waiting).errors == (await room.reloads.request()).errors == ("the edge is draining",)
        room.gate.set()
        assert (await running).result == "ok"
        await turned(lambda: room.begun == [True, False], "the reload has ended")
        assert len(room.applied) == 1

    play(file, scene)


def test_a_cancelled_reload_counts_as_failed(file: Path) -> None:
    async def scene(room: Room, tasks: Tasks) -> None:
        room.gate.clear()
        room.write("drain: 1s\n")
        running = room.reloads.request()
        await turned(lambda: room.applied, "the reload is being applied")
        await tasks.cancel()
        assert (await running).result == "failed"

    play(file, scene)


def test_watching_covers_included_files_and_links(tmp_path: Path) -> None:
    for name, extra in (("one", ""), ("two", "include: [more.yaml]\n"), ("three", "include: [more.yaml]\nx: 1\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "edge.yaml").write_text(CONFIG + extra)
        (folder / "more.yaml").write_text("tiers: {basic: {}}\n")
    current = tmp_path / "current"
    current.symlink_to("one")

    def turn(to: str) -> None:
        """Replace the link as Kubernetes does."""
        (tmp_path / "new").symlink_to(to)
        (tmp_path / "new").rename(current)

    def results(reloads: Reloads) -> list[int]:
        return [words[0] for name, _, words in reloads.series() if name == "edge_config_reloads_total"]

    async def scene(room: Room, tasks: Tasks) -> None:
        tasks.start("watch", watch_files(room.reloads, 0.01))
        turn("two")
        await turned(lambda: results(room.reloads) == [1, 0, 0, 0], "the configuration is reloaded")
        (tmp_path / "two" / "more.yaml").write_text("tiers: {basic: {}, pro: {}}\n")
        await turned(lambda: results(room.reloads) == [2, 0, 0, 0], "the configuration is reloaded")
        assert set(room.reloads.serving.tiers) == {"basic", "pro"}
        turn("three")
        await turned(lambda: results(room.reloads) == [2, 0, 1, 0], "the reload is refused")
        await asyncio.sleep(0.1)
        assert results(room.reloads) == [2, 0, 1, 0], "an unchanged file is not read again"
        turn("two")
        await turned(lambda: results(room.reloads) == [2, 1, 1, 0], "the file is loaded again")
        assert room.reloads.problem is None

    play(current / "edge.yaml", scene)


# ---- workers that change to another configuration


def offer(number: int, **pids: list[int]) -> Prepare:
    """Return a configuration that tells stand-ins, by pid, how to react to it."""
    return Prepare(number, json.dumps(pids).encode(), {})


async def served(address: Address, wanted: dict[int, list[int]]) -> None:
    """Wait until each of these workers, by pid, has served exactly these configurations."""
    found: dict[int, list[int]] = {}
    while found != wanted:
        answer = await ask(address)
        found[answer["pid"]] = answer["served"]


def test_all_workers_prepare_a_configuration_before_one_serves_it() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        pids = [process.pid for process in made.workers]
        assert await made.prepare(2, offer(2), 10) == []
        assert [process.number for process in made.workers] == [1, 1]
        made.commit(2, start(number=2))
        assert await made.wait_until_followed(10) == []
        assert made.ready == 2
        await served(address, {pid: [1, 2] for pid in pids})

    assert run(scene) == [0, 0]


def test_a_configuration_refused_by_one_worker_is_served_by_none() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        pids = [process.pid for process in made.workers]
        whys = await made.prepare(2, offer(2, refuse=pids[:1]), 10)
        assert whys == [f"worker {pids[0]}: no row is left"]
        made.discard(2)
        assert await made.prepare(3, offer(3), 10) == []
        made.commit(3, start(number=3))
        assert await made.wait_until_followed(10) == []
        await served(address, {pid: [1, 3] for pid in pids})

    assert run(scene) == [0, 0]


def test_a_silent_worker_prevents_a_configuration() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        silent, other = made.workers
        whys = await made.prepare(2, offer(2, ignore=[silent.pid]), 0.2)
        assert whys == [f"worker {silent.pid}: it was not ready to serve it within 0.2 s"]
        made.discard(2)
        await served(address, {silent.pid: [1], other.pid: [1]})

    assert run(scene) == [0, 0]


def test_a_worker_that_dies_during_prepare_is_replaced() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        dies, other = made.workers
        assert await made.prepare(2, offer(2, die=[dies.pid]), 10) == []
        made.commit(2, start(number=2))
        await turned(lambda: made.restarts == 1 and made.ready == 2, "the worker is replaced")
        assert await made.wait_until_followed(10) == []
        (new,) = {process.pid for process in made.workers} - {other.pid}
        await turned(lambda: {process.number for process in made.workers} == {2}, "both workers serve it")
        answers: dict[int, list[int]] = {}
        while answers.keys() != {new, other.pid}:
            answer = await ask(address)
            answers[answer["pid"]] = answer["served"]
        assert answers[other.pid] == [1, 2]
        assert answers[new][-1] == 2

    assert run(scene) == [0, 0]


def test_a_killed_hanging_worker_no_longer_delays_a_configuration() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        hanging = made.workers[0]
        os.kill(hanging.pid, signal.SIGSTOP)
        offered = Tasks().start("offer", made.prepare(2, offer(2), 20))
        await turned(lambda: made.workers[1].prepared == 2, "the other is ready")
        assert not offered.done()
        hanging.kill()
        assert await offered == []
        made.commit(2, start(number=2))
        assert await made.wait_until_followed(10) == []
        await turned(lambda: made.ready == 2, "the worker is replaced")

    assert run(scene) == [0, 0]


def test_a_worker_that_starts_during_a_change_is_updated_first() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await turned(lambda: len(made.workers) == 2, "both workers are started")
        one, other = made.workers
        one.outbox.send_latest(LoadCertificates())
        await turned(lambda: one.has_served, "the first worker is ready")
        assert await made.prepare(2, offer(2), 10) == []
        made.commit(2, start("late", number=2))
        assert await made.wait_until_followed(10) == []
        assert not other.ready
        other.outbox.send_latest(LoadCertificates())
        await turned(lambda: made.ready == 2, "the other is ready")
        await served(address, {one.pid: [1, 2], other.pid: [1, 2]})

    assert run(scene, "late") == [0, 0]


def test_a_late_worker_gets_endpoints_after_its_configuration() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await turned(lambda: len(made.workers) == 2, "both workers are started")
        one, other = made.workers
        one.outbox.send_latest(LoadCertificates())
        await turned(lambda: one.has_served, "the first worker is ready")
        os.kill(other.pid, signal.SIGSTOP)
        assert await made.prepare(2, offer(2), 10) == []
        made.commit(2, start("late", number=2))
        made.publish(SetEndpoints(2, {}))
        os.kill(other.pid, signal.SIGCONT)
        other.outbox.send_latest(LoadCertificates())
        await turned(lambda: made.ready == 2, "the other is ready")
        told: list[str] = []
        while told[-2:] != ["Commit", "Endpoints"]:
            answer = await ask(address)
            told = [message["type"] for message in answer["told"] if answer["pid"] == other.pid]

    assert run(scene, "late") == [0, 0]


def test_a_worker_left_behind_by_a_refused_change_is_replaced() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await turned(lambda: len(made.workers) == 2, "both workers are started")
        one, other = made.workers
        one.outbox.send_latest(LoadCertificates())
        await turned(lambda: one.has_served, "the first worker is ready")
        # The next configuration is offered before this worker has followed.
        assert await made.prepare(2, offer(2, ignore=[other.pid]), 10) == []
        made.commit(2, start(number=2))
        assert await made.wait_until_followed(0.1) == [other.pid]
        other.outbox.send_latest(LoadCertificates())
        await turned(lambda: other.ready, "the other worker serves the old configuration")
        assert await made.prepare(3, offer(3, refuse=[one.pid]), 10) == [f"worker {one.pid}: no row is left"]
        made.discard(3)
        await turned(lambda: made.restarts == 1 and made.ready == 2, "the worker is replaced")
        assert other.ended.result() == 0
        await served(address, {one.pid: [1, 2], made.workers[1].pid: [2]})

    assert run(scene, "late") == [0, 0]


def test_a_worker_that_cannot_follow_is_replaced() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await turned(lambda: len(made.workers) == 2, "both workers are started")
        one, other = made.workers
        one.outbox.send_latest(LoadCertificates())
        await turned(lambda: one.has_served, "the first worker is ready")
        assert await made.prepare(2, offer(2, refuse=[other.pid]), 10) == []
        made.commit(2, start(number=2))
        other.outbox.send_latest(LoadCertificates())
        await turned(lambda: made.restarts == 1 and made.ready == 2, "the worker is replaced")
        assert other.ended.result() == 0
        assert await made.wait_until_followed(10) == []
        new = made.workers[1]
        await served(address, {one.pid: [1, 2], new.pid: [2]})

    assert run(scene, "late") == [0, 0]


def test_a_drain_cancels_a_configuration_in_preparation() -> None:
    async def scene(made: Workers, address: Address) -> None:
        await ready(made)
        pids = [process.pid for process in made.workers]
        offered = Tasks().start("offer", made.prepare(2, offer(2, ignore=pids), 60))
        await asyncio.sleep(0)
        drained = Tasks().start("drain", made.drain(5.0))
        assert await offered == ["the edge is draining"]
        await drained

    run(scene)


# ---- upstreams and workers together


def test_upstreams_trust_and_the_proxy_change_only_together_with_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(upstreams: str) -> EdgeSettings:
        file = tmp_path / "edge.yaml"
        file.write_text(f"upstreams: {upstreams}\nroutes: [{{path: /*, upstream: api}}]\n")
        return load_edge(file, {})

    one = settings("{api: {endpoints: [http://10.0.0.1:80], health: {path: /h, every: 1h}}}")
    two = settings(
        "{api: {endpoints: [http://10.0.0.1:80], health: {path: /h, every: 1h}},"
        " more: {endpoints: [http://10.0.0.2:80], health: {path: /h, every: 1h}}}\n"
        f"proxy: http://proxy.example:3128\ntrust: {{files: {Authority(tmp_path).file}}}"
    )
    monkeypatch.delenv("https_proxy", raising=False)
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    def has_proxy() -> bool:
        has_one = find_proxy("https://api.example.com") is not None
        assert bool(stamp_files()) == has_one, "the trust is of the same configuration"
        return has_one

    probed: list[str] = []

    async def probe(target: ProbeTarget) -> str | None:
        probed.append(target.address)
        return None

    def begin(number: int, _: EdgeSettings) -> tuple[Start, None]:
        return start(number=number), None

    async def told(address: Address, kind: str) -> list[Any]:
        return [message for message in (await ask(address))["told"] if message["type"] == kind]

    async def change() -> None:
        listening = sockets.bind_all([Address("127.0.0.1", 0)])
        address = sockets.get_address(listening[0])
        workers = Workers(1, STAND_IN, listening, start())
        upstreams = Upstreams(one.upstreams, workers.publish, probe)
        prober = Prober(one.upstreams)
        changeover = Changeover(one, begin, workers, upstreams, Certificates(one, lambda: None), prober)
        await changeover.begin()
        await ready(workers)
        assert not has_proxy()
        assert await within(20, changeover(two)) == []
        assert has_proxy()
        assert probed == ["10.0.0.1", "10.0.0.2"], "a known address is not probed again"
        (prepare,) = await told(address, "Prepare")
        assert prepare["services"]["more"] == [{"addresses": ["10.0.0.2"], "up": ["10.0.0.2"]}]
        assert upstreams.report().keys() == {"api", "more"}
        await turned(lambda: workers.number == 2, "the configuration is committed")
        while [message["number"] for message in await told(address, "Endpoints")] != [1, 2]:
            pass
        # A refused configuration has no effect.
        workers.workers[0].refused = (3, "no row is left")
        assert await within(20, changeover(one)) == [f"worker {workers.workers[0].pid}: no row is left"]
        assert upstreams.report().keys() == {"api", "more"}
        assert workers.number == 2
        assert has_proxy()
        while not await told(address, "Discard"):
            pass
        assert await within(20, changeover(one)) == []
        assert workers.number == 4
        assert not has_proxy()
        assert upstreams.report().keys() == {"api"}
        sockets.close_all(listening)
        await within(20, workers.drain(5.0))
        await upstreams.end()

    uvloop.run(change())
