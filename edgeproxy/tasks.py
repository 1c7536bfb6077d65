"""The one way to start long-lived work: it has a name, its death is logged, and it is cancelled at the end.

A bare `create_task` is banned by lint: the loop keeps only a weak reference to it, and nobody hears it fail.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from edgeproxy import log


class Tasks:
    """The tasks of one owner. Lives in one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._log = log.get()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` under `name` until it ends; an exception that leaves it is logged with its traceback."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._log.error("task died", task=task.get_name(), exc_info=failure)

    async def cancel(self) -> None:
        """Cancel whatever still runs, and wait until it has ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
