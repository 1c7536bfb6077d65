"""Group commit: items that come while one transaction is under way are written together by the next one.

The disk is waited for once for many items. Still nobody hears of an item before it is on disk, and an item that cannot
be written is in no other one's way.
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
    """A queue to the database, served by `run` until `end`.

    `write` writes items in one transaction, and returns a result for each. An item counts for `compute_cost`, and the
    items of a transaction for `cost_max` at most, unless a single one has more.

    Where `write` raises an error of which `is_item_fault` holds, one item may be to blame: each is written by itself,
    and what cannot be written then is replaced by `replace`, if that returns another item. All other errors go to
    `fail`, which returns what those who wait are raised.
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
        """`on_queued` is called with how many items wait for a transaction, whenever that changes."""
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
        """Return the result of an item once it is on disk; raises what `fail` returns.

        It is written even if its sender leaves: half of a transaction cannot be taken back.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, result))
        self._on_queued(len(self._queue))
        self._is_filled.set()
        return await result

    async def run(self) -> None:
        """Write what is queued, until `end` was called and nothing is."""
        while True:
            while not self._queue:
                if self._is_ending:
                    return
                self._is_filled.clear()
                await self._is_filled.wait()
            await self._commit(self._take_group())

    def end(self) -> None:
        """Let `run` return once nothing is queued."""
        self._is_ending = True
        self._is_filled.set()

    def _take_group(self) -> list[_Waiting[Item, Result]]:
        """Take from the queue what the next transaction writes."""
        group = [self._queue.popleft()]
        cost = self._compute_cost(group[0].item)
        while self._queue and (cost := cost + self._compute_cost(self._queue[0].item)) <= self._cost_max:
            group.append(self._queue.popleft())
        self._on_queued(len(self._queue))
        return group

    async def _commit(self, group: Sequence[_Waiting[Item, Result]]) -> None:
        """Write these in one transaction, or if one of them is in the way of the others, one by one."""
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
