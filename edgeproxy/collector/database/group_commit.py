"""Group commit: the next transaction writes all items that arrive during the current one.

Many items share one wait for the disk. An item is still acknowledged only when it is on disk, and an item that cannot
be written does not block others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Item, Result]):
    item: Item
    result: "asyncio.Future[Result]"


class GroupCommit(Generic[Item, Result]):
    """A queue to the database. `run` processes it until `end`.

    `write` writes items in one transaction and returns a result for each. `compute_cost` gives the cost of an item. The
    items of a transaction cost at most `cost_max`, unless it has a single item.

    If `write` raises an error that `is_item_fault` accepts, one item may be to blame, so each item is written alone. If
    that fails, `replace` may return a substitute to write. All other errors go to `fail`, and its result is raised in
    the callers of `submit`.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        cost_max: int,
        is_item_fault: Callable[[Exception], bool],
        compute_cost: Callable[[Item], int] = lambda _: 1,
        replace: Callable[[Item, Exception], Item | None] = lambda _item, _error: None,
        fail: Callable[[Sequence[Item], Exception], Exception] = lambda _items, error: error,
        on_queued: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`on_queued` is called with the number of waiting items whenever it changes."""
        self._write = write
        self._cost_max = cost_max
        self._is_item_fault = is_item_fault
        self._compute_cost = compute_cost
        self._replace = replace
        self._fail = fail
        self._on_queued = on_queued
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._is_filled = asyncio.Event()
        self._is_ending = False

    async def submit(self, item: Item) -> Result:
        """Return the result of an item once it is on disk. Raises the result of `fail`.

        The item is written even if its sender leaves, because a part of a transaction cannot be undone.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, result))
        self._on_queued(len(self._queue))
        self._is_filled.set()
        return await result

    async def run(self) -> None:
        """Write queued items until `end` has been called and the queue is empty."""
        while True:
            while not self._queue:
                if self._is_ending:
                    return
                self._is_filled.clear()
                await self._is_filled.wait()
            await self._commit(self._take_group())

    def end(self) -> None:
        """Make `run` return once the queue is empty."""
        self._is_ending = True
        self._is_filled.set()

    def _take_group(self) -> list[_Waiting[Item, Result]]:
        """Remove the items of the next transaction from the queue."""
        group = [self._queue.popleft()]
        cost = self._compute_cost(group[0].item)
        while self._queue and (cost := cost + self._compute_cost(self._queue[0].item)) <= self._cost_max:
            group.append(self._queue.popleft())
        self._on_queued(len(self._queue))
        return group

    async def _commit(self, group: Sequence[_Waiting[Item, Result]]) -> None:
        """Write items in one transaction or, if one of them makes it fail, one by one."""
        items = [waiting.item for waiting in group]
        try:
            results = await self._write(items)
        except Exception as error:
            if self._is_item_fault(error):
                if len(group) > 1:
                    for waiting in group:
                        await self._commit([waiting])
                    return
                if (replacement := self._replace(items[0], error)) is not None:
                    await self._commit([group[0]._replace(item=replacement)])
                    return
            failure = self._fail(items, error)
            for waiting in group:
                if not waiting.result.done():  # Its sender may have left.
                    waiting.result.set_exception(failure)
            return
        for waiting, result in zip(group, results, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)
