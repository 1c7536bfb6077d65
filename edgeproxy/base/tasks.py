"""Long-lived tasks: each has a name, its death is logged, and it is cancelled at the end.

A bare `create_task` is banned by lint: the loop has only a weak reference to it, and nobody notices its failure.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

from edgeproxy.base import log

T = TypeVar("T")

AGAIN_SECONDS = 1.0
"""Seconds until a task that has not ended is cancelled once more."""


class Tasks:
    """The tasks of one owner. Lives in one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()
        self._log = log.get_logger()

    def start(self, name: str, work: Coroutine[object, None, T]) -> asyncio.Task[T]:
        """Run `work` under `name` until it ends; an exception that leaves it is logged with its traceback."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task died", task=task.get_name(), exc_info=error)

    async def cancel(self) -> None:
        """Cancel all running tasks, and wait until they have ended.

        Again and again: a task that is cancelled in a transaction may leave it by another exception, such as a closed
        connection, and go on.
        """
        while running := tuple(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=AGAIN_SECONDS)


def run_in_thread(name: str, work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a thread of its own, which does not keep the process from ending; the future has its result.

    For work that may block for ever, such as on a name server or a network file system. The threads of
    `asyncio.to_thread` are waited for at the end.
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
        except RuntimeError:  # The loop is closed: the process has ended meanwhile.
            pass

    def set_outcome(outcome: concurrent.futures.Future[T]) -> None:
        if ended.done():
            return  # Nobody wants to know any more.
        if (error := outcome.exception()) is not None:
            ended.set_exception(error)
        else:
            ended.set_result(outcome.result())

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
