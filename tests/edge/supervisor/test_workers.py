"""Workers as processes. Stand-ins replace the workers, and each test chooses their behaviour."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import to_builtins

from edgeproxy.config.addresses import Address
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import AcmeChallenges, EndpointAddresses, LoadCertificates, SetEndpoints
from edgeproxy.edge.supervisor import sockets, workers
from edgeproxy.edge.supervisor.backoff import FIRST_WAIT_SECONDS, LONG_LIFE_SECONDS, MAX_WAIT_SECONDS, compute_backoff
from edgeproxy.edge.supervisor.heartbeat import CHECKS_PER_HUNG_TIME, Heartbeat
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.vitals import Vitals, fetch_usage
from edgeproxy.edge.supervisor.workers import Workers, WorkersFailedError
from loadtest.testbed.waiting import turned, within
from tests.edge.supervisor.standing_in import STAND_IN, ask, importable, ready, run, start
from tests.support.logs import capture_logs

__all__ = ["importable"]


def addresses(*known: str) -> SetEndpoints:
    """Return a message with the addresses of an upstream."""
    return SetEndpoints(1, {"a": [EndpointAddresses(list(known), [])]})


async def wait_for_messages(workers: Workers, address: Address, expected: dict[int, list[str]]) -> None:
    """Wait until each of these workers, by pid, has received messages of these types in this order."""
    received: dict[int, list[str]] = {}

    async def all_have() -> None:
        while received != expected:
            answer = await ask(address)
            received[answer["pid"]] = [message["type"] for message in answer["told"]]

    await within(20, all_have())


def test_worker_inherits_only_its_channel_and_sockets() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)
        told = await ask(address)
        assert len(told["inherited"]) == 4  # the channel, its socket for memory, and two sockets
        assert told["session"] == told["pid"]

    with socket.socketpair()[0] as leak:
        os.set_inheritable(leak.fileno(), True)
        run(scene)


@pytest.mark.parametrize(
    ("behaviour", "why"), [("fails", "no free column in /state"), ("dies", "it ended with code 3")]
)
def test_failed_start_of_all_workers_states_the_reason(
    behaviour: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LAST_WORDS_SECONDS", 20.0)  # A busy machine needs time to end a process.

    async def scene(workers: Workers, address: Address) -> None:
        with pytest.raises(WorkersFailedError, match=f"^{why}$"):
            await ready(workers)

    run(scene, behaviour)


def test_workers_without_a_free_column_retry_while_old_workers_leave() -> None:
    leaving = [True]

    async def scene(workers: Workers, address: Address) -> None:
        await turned(lambda: workers.restarts >= 2, "the worker is started again")
        assert not workers.first_ready.done()
        leaving.clear()
        with pytest.raises(WorkersFailedError, match=r"^no free column in /state$"):
            await ready(workers)

    run(scene, "crowded", places=1, patient=lambda: bool(leaving))


def test_unrunnable_worker_command_is_reported() -> None:
    async def scene() -> None:
        workers = Workers(1, ["/nonexistent/worker"], (), start())
        workers.start()
        with pytest.raises(WorkersFailedError, match=r"it could not be started: .*No such file"):
            await ready(workers)
        await within(5, workers.drain(1.0))

    uvloop.run(scene())


def test_workers_that_die_young_are_started_ever_more_slowly() -> None:
    starts: list[float] = []

    async def scene(workers: Workers, address: Address) -> None:
        now = asyncio.get_running_loop().time
        for n in range(4):
            await turned(lambda n=n: workers.restarts >= n, f"restart {n}")
            starts.append(now())
        assert starts[2] - starts[1] >= 0.2
        assert starts[3] - starts[2] >= 0.4

    run(scene, "dies", places=1)


def test_a_worker_deaf_to_drains_is_killed_a_second_after_the_deadline() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)

    assert run(scene, "deaf", deadline=0.5) == [-signal.SIGKILL] * 2


def test_a_worker_that_never_got_ready_is_killed_long_before_the_deadline() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await turned(lambda: len(workers.workers) == 2, "both are started")

    began = time.monotonic()
    assert run(scene, "mute", deadline=40.0) == [-signal.SIGKILL] * 2
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("behaviour", ["hangs up", "babbles"])
def test_a_worker_that_cannot_be_talked_to_is_replaced(behaviour: str) -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await turned(lambda: workers.workers, "a worker is started")
        first = workers.workers[0]
        await turned(lambda: workers.restarts > 0, "the worker was replaced")
        assert first.ended.result() == -signal.SIGKILL

    run(scene, behaviour, places=1, deadline=0.1)


def test_workers_start_with_the_published_message() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        workers.publish(addresses("10.0.0.1"))
        await ready(workers)
        pids = [process.pid for process in workers.workers]
        await wait_for_messages(workers, address, {pid: ["Endpoints"] for pid in pids})

    assert run(scene) == [0, 0]


def test_workers_receive_each_message_and_a_restarted_one_only_published_messages() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)
        workers.publish(addresses("10.0.0.1"))
        pids = [process.pid for process in workers.workers]
        await wait_for_messages(workers, address, {pid: ["Endpoints"] for pid in pids})
        workers.send(LoadCertificates())
        workers.publish(addresses("10.0.0.2"))
        await wait_for_messages(workers, address, {pid: ["Endpoints", "LoadCertificates", "Endpoints"] for pid in pids})
        killed, other = workers.workers
        killed.kill()
        await turned(lambda: workers.restarts == 1 and workers.ready == 2, "a new worker is ready")
        (new,) = {process.pid for process in workers.workers} - {other.pid}
        await wait_for_messages(
            workers, address, {other.pid: ["Endpoints", "LoadCertificates", "Endpoints"], new: ["Endpoints"]}
        )
        while (answer := await ask(address))["pid"] != new:
            pass
        assert answer["told"] == [to_builtins(addresses("10.0.0.2"))]

    assert run(scene) == [0, 0]


def test_stopped_worker_delays_no_other_worker() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)
        stopped, other = workers.workers
        os.kill(stopped.pid, signal.SIGSTOP)
        for n in range(100):
            workers.publish(SetEndpoints(n, addresses("x" * 100_000).services))
            await asyncio.sleep(0)
        waiting = stopped.channel._writer.transport.get_write_buffer_size()
        assert 0 < waiting < 400_000

        async def newest() -> None:
            while True:
                answer = await ask(address)
                if answer["pid"] == other.pid and answer["told"] and answer["told"][-1]["number"] == 99:
                    return

        await within(20, newest())

    assert run(scene, deadline=0.2) == [-signal.SIGKILL, 0]


def test_challenges_are_served_when_each_worker_has_answered() -> None:
    """The authority may reach any worker, so the supervisor waits for a stopped worker too."""

    async def scene(workers: Workers, address: Address) -> None:
        workers.publish(AcmeChallenges({}, {}, 1))
        assert await within(20, workers.wait_until_challenges_served(1, 60)) == []
        stopped, other = workers.workers
        os.kill(stopped.pid, signal.SIGSTOP)
        workers.publish(AcmeChallenges({}, {}, 2))
        await turned(lambda: other.challenges[0] == 2, "the other has answered")
        assert await workers.wait_until_challenges_served(2, 0.1) == [
            f"worker {stopped.pid}: it did not take the challenge within 0.1 s"
        ]
        os.kill(stopped.pid, signal.SIGCONT)
        assert await within(20, workers.wait_until_challenges_served(2, 60)) == []
        workers.publish(AcmeChallenges({str(other.pid): "no room"}, {}, 3))
        whys = await within(20, workers.wait_until_challenges_served(3, 60))
        assert whys == [f"worker {other.pid}: no room"]

    assert run(scene) == [0, 0]


def test_a_worker_that_hangs_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)
        hanging, other = workers.workers
        os.kill(hanging.pid, signal.SIGSTOP)
        await turned(lambda: workers.restarts == 1 and workers.ready == 2, "a new worker is ready")
        assert hanging.ended.result() == -signal.SIGKILL
        assert other in workers.workers

    # Long enough for the other worker to send a message on a busy machine.
    assert run(scene, silence=3.0) == [0, 0]
    (died,) = [line for line in "".join(capfd.readouterr()).splitlines() if "worker died" in line]
    assert "it said nothing for 3 s" in died


def test_a_worker_that_is_busy_reporting_limits_does_not_hang() -> None:
    """The worker sends Alive before its reports, and it has a report in each turn.

    Behind the reports, Alive came too late.
    """
    beats = 0

    async def scene(workers: Workers, address: Address) -> None:
        def count(*_: object) -> None:
            nonlocal beats
            beats += 1

        await ready(workers)
        for process in workers.workers:
            process.on_message = count
        await turned(
            lambda: beats >= 250 or workers.restarts > 0, "the worker reported for longer than its silence limit"
        )
        assert workers.restarts == 0

    assert run(scene, "reports", places=1, silence=2.0) == [0]


def test_time_in_which_the_supervisor_did_not_run_is_nobodys_silence() -> None:
    async def scene(workers: Workers, address: Address) -> None:
        await ready(workers)
        for _ in range(2):
            time.sleep(2.5)  # noqa: ASYNC251, the loop is to stand still
            answers = {(await ask(address))["pid"] for _ in range(4)}
            assert answers <= {process.pid for process in workers.workers}
        assert workers.restarts == 0

    assert run(scene, silence=2.0) == [0, 0]


# ---- vitals


def play(tmp_path: Path, scene: Callable[[Workers, Vitals], Awaitable[None]], behaviour: str = "serves") -> None:
    """Play `scene` with the vitals of two stand-ins."""

    async def run() -> None:
        store = Store.prepare(tmp_path / "state", workers=2, customers=100, addresses=100)
        listening = sockets.bind_all([Address("127.0.0.1", 0)])
        workers = Workers(2, STAND_IN, listening, start(behaviour))
        workers.start()
        try:
            await scene(workers, Vitals(workers, TableReader(store)))
        finally:
            sockets.close_all(listening)
            await within(30, workers.drain(1.0))
            store.close()

    uvloop.run(run())


def test_a_process_is_seen_as_it_is() -> None:
    before = fetch_usage(os.getpid())
    assert before is not None
    assert 1 << 20 < before.resident < 1 << 33
    assert before.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open(os.devnull), open(os.devnull):
        after = fetch_usage(os.getpid())
        assert after is not None
        assert after.descriptors == before.descriptors + 2


def test_dead_process_has_no_usage() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        # Ended, and not waited for: its entries are there, and empty.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        found = fetch_usage(child.pid)
        assert found is None or found.resident == 0
    assert fetch_usage(child.pid) is None


def test_vitals_name_workers_by_place_across_restarts(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await within(20, workers.first_ready)
        first = await vitals.report()
        assert [worker["place"] for worker in first] == [0, 1]
        for worker in first:
            assert worker["resident_bytes"] > 1 << 20
            assert worker["descriptors"] >= 3
            assert worker["connections"] == 0
        os.kill(first[0]["pid"], signal.SIGKILL)
        await turned(lambda: workers.restarts == 1 and workers.ready == 2, "a new worker is ready")
        second = await vitals.report()
        assert [worker["place"] for worker in second] == [0, 1]
        assert second[0]["pid"] != first[0]["pid"]
        assert second[1]["pid"] == first[1]["pid"]
        series: dict[Any, Any] = {(name, labels): words for name, labels, words in await vitals.series()}
        for place in "0", "1":
            assert series["edge_worker_resident_bytes", (place,)][0] > 1 << 20
            assert series["edge_worker_open_descriptors", (place,)][0] >= 3
            assert series["edge_worker_connections", (place,)] == (0,)
        assert series["edge_descriptor_limit", ()] == (resource.getrlimit(resource.RLIMIT_NOFILE)[0],)
        assert len(series) == 7

    play(tmp_path, scene)


def test_report_without_live_workers_is_empty(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await turned(lambda: workers.restarts >= 1 and not workers.workers, "both are dead")
        assert await vitals.report() == []

    play(tmp_path, scene, "dies")


def test_starting_workers_have_no_vital_series(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await turned(lambda: len(workers.workers) == 2, "both are started")
        assert len(await vitals.report()) == 2
        assert [name for name, _, _ in await vitals.series()] == ["edge_descriptor_limit"]

    play(tmp_path, scene, "mute")


def test_worker_out_of_descriptors_is_logged_once(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await ready(workers)
        scarce, other = workers.workers
        _, most = resource.prlimit(scarce.pid, resource.RLIMIT_NOFILE)
        used = fetch_usage(scarce.pid)
        assert used is not None

        async def said(limit: int) -> list[dict[str, Any]]:
            resource.prlimit(scarce.pid, resource.RLIMIT_NOFILE, (limit, most))
            with capture_logs() as lines:
                await vitals.check()
            return [dict(line) for line in lines]

        assert await said(used.descriptors * 2) == []
        (line,) = await said(used.descriptors)
        assert (line["event"], line["log_level"]) == ("worker runs out of descriptors", "warning")
        assert (line["pid"], line["open"], line["limit"]) == (scarce.pid, used.descriptors, used.descriptors)
        assert await said(used.descriptors) == []
        assert await said(used.descriptors * 2) == []
        assert len(await said(used.descriptors)) == 1
        assert other in workers.workers

    play(tmp_path, scene)


# ---- the pause before a restart


def waits(*lives: float) -> list[float]:
    """The waits after workers that lived so long, one after the other."""
    early, found = 0, []
    for lived in lives:
        early, wait = compute_backoff(early, lived)
        found.append(wait)
    return found


def test_a_worker_that_lived_long_is_replaced_at_once() -> None:
    assert waits(LONG_LIFE_SECONDS, 3600.0) == [0.0, 0.0]


def test_each_early_death_doubles_the_wait_up_to_the_longest() -> None:
    assert waits(*[0.01] * 8) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_long_life_resets_the_backoff() -> None:
    assert waits(0.0, 0.0, LONG_LIFE_SECONDS, 0.0) == [
        FIRST_WAIT_SECONDS,
        2 * FIRST_WAIT_SECONDS,
        0.0,
        FIRST_WAIT_SECONDS,
    ]


def test_a_year_of_early_deaths_does_not_overflow() -> None:
    assert compute_backoff(10_000_000, 0.0) == (10_000_001, MAX_WAIT_SECONDS)


# ---- the silence that a worker is allowed, counted in checks


def test_worker_without_a_first_heartbeat_is_not_hung() -> None:
    heartbeat = Heartbeat()
    assert not any(heartbeat.is_hung() for _ in range(3 * CHECKS_PER_HUNG_TIME))


def test_silent_worker_is_hung_after_the_configured_checks() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    assert [heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME + 1)] == [False] * CHECKS_PER_HUNG_TIME + [True]


def test_worker_with_one_heartbeat_in_time_is_not_hung() -> None:
    heartbeat = Heartbeat()
    for _ in range(5):
        heartbeat.beat()
        assert not any(heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME))
