"""Work in a separate thread: its outcome arrives, and endless work does not delay the end of the process."""

import asyncio
import threading

import pytest
import uvloop

from edgeproxy.base import tasks
from edgeproxy.base.tasks import Tasks, run_in_thread
from loadtest.testbed.waiting import turned


def test_run_in_thread_passes_on_the_result_or_error() -> None:
    async def scene() -> None:
        assert await run_in_thread("right", lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await run_in_thread("wrong", lambda: 1 // 0)

    uvloop.run(scene())


def test_canceled_thread_work_is_dropped_and_loop_end_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    gate, passed = threading.Event(), threading.Event()

    def slow() -> None:
        gate.wait(20)
        passed.set()
        raise OSError

    async def scene() -> None:
        given_up = run_in_thread("given up", slow)
        given_up.cancel()
        gate.set()
        await turned(passed.is_set, "the work has ended")
        await run_in_thread("after it", lambda: None)
        gate.clear()
        passed.clear()
        run_in_thread("without end", slow)

    uvloop.run(scene())
    assert not passed.is_set(), "the loop has ended before the work"
    gate.set()
    assert passed.wait(20)
    assert not caplog.records


def test_task_that_mistakes_cancellation_for_a_failure_is_canceled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)

    async def job() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError("the connection is gone")  # As a transaction does that cannot be rolled back.

    async def jobs() -> None:
        for _ in range(2):
            try:
                await job()
            except ConnectionError:
                continue
        await asyncio.sleep(60)

    async def scene() -> None:
        owner = Tasks()
        task = owner.start("jobs", jobs())
        await asyncio.sleep(0)
        await asyncio.wait_for(owner.cancel(), 20)
        assert task.cancelled()

    uvloop.run(scene())
