"""Long-lived tasks: each has a name, its failure is logged, and it is cancelled at the end.

Lint forbids a plain `create_task`: the loop has only a weak reference to the task, and its failure stays unnoticed.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

from edgeproxy.base import log

T = TypeVar("T")

AGAIN_SECONDS = 1.0
"""Seconds before a task that is still running is cancelled again."""


class Tasks:
    """The tasks of one owner, in one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()
        self._log = log.get_logger()

    def start(self, name: str, work: Coroutine[object, None, T]) -> asyncio.Task[T]:
        """Run `work` under `name`. If it raises an exception, that is logged with its traceback."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task died", task=task.get_name(), exc_info=error)

    async def cancel(self) -> None:
        """Cancel all running tasks and wait until they have ended.

        This is repeated: a task that is cancelled in a transaction may replace the cancellation by another exception,
        for example about a closed connection, and continue.
        """
        while running := tuple(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=AGAIN_SECONDS)


def run_in_thread(name: str, work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a separate thread that does not prevent the exit of the process. The future has its result.

    It is for work that may block for ever, for example on a name server or a network file system. The process would
    wait for threads of `asyncio.to_thread` at exit.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)
        try:
            loop.call_soon_threadsafe(set_outcome, outcome)
        except RuntimeError:  # The loop is closed because the process is exiting.
            pass

    def set_outcome(outcome: concurrent.futures.Future[T]) -> None:
        if ended.done():
            return  # Nobody waits for the result any more.
        if (error := outcome.exception()) is not None:
            ended.set_exception(error)
        else:
            ended.set_result(outcome.result())

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
