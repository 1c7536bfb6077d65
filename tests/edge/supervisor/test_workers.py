"""Workers as processes. Stand-ins replace the workers, and each test chooses their behaviour."""

import asyncio
import os
import signal
import socket
import time

import pytest
import uvloop
from msgspec import to_builtins

from edgeproxy.config.addresses import Address
from edgeproxy.edge.messages import AcmeChallenges, EndpointAddresses, LoadCertificates, SetEndpoints
from edgeproxy.edge.supervisor import workers
from edgeproxy.edge.supervisor.workers import Workers, WorkersFailedError
from loadtest.testbed.waiting import turned, within
from tests.edge.supervisor.standing_in import ask, importable, ready, run, start

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
        assert len(told["inherited"]) == 3  # the channel and two sockets
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
