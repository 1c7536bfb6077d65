"""A worker of the stage that drains."""

import asyncio

from edgeproxy.base.tasks import Tasks
from tests.support.transcript import Edge


class Drain:
    """A drain that goes on beside the test."""

    def __init__(self, edge: Edge, seconds: float = 5.0) -> None:
        self._tasks = Tasks()
        self._task = self._tasks.start("drain", edge.worker.drain(seconds))

    @property
    def done(self) -> bool:
        return self._task.done()

    async def ends(self) -> None:
        async with asyncio.timeout(5):
            await self._task
