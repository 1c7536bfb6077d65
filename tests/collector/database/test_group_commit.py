"""Items that come at once share a transaction, and one that cannot be written is in no other one's way."""

import asyncio
from collections.abc import Sequence

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.group_commit import GroupCommit

GROUP_MAX = 10


class Storage:
    """Records the stored items and the number of transactions. It fails for a `bad` item, and while it is away."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.transactions = 0
        self.bad: set[int] = set()
        self.is_away = False
        self.queued: list[int] = []
        self.commits = GroupCommit(
            self.write,
            cost_max=GROUP_MAX,
            compute_cost=lambda item: 1 if item < 1000 else 2 * GROUP_MAX,
            is_item_fault=lambda error: isinstance(error, ValueError),
            replace=lambda item, _: -item if item % 2 else None,
            on_queued=self.queued.append,
        )

    async def write(self, items: Sequence[int]) -> list[int]:
        self.transactions += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError("away")
        if self.bad & set(items):
            raise ValueError("bad")
        self.stored += items
        return [10 * item for item in items]

    async def submit(self, item: int) -> int | str:
        """The result of an item, or why there is none."""
        try:
            result = await self.commits.submit(item)
        except (OSError, ValueError) as error:
            return str(error)
        assert result // 10 in self.stored
        return result

    def submit_all(self, items: Sequence[int]) -> list[int | str]:
        """The results of items that come at once."""

        async def run() -> list[int | str]:
            running = Tasks().start("commits", self.commits.run())
            results = await asyncio.gather(*map(self.submit, items))
            self.commits.end()
            await running
            return list(results)

        return asyncio.run(asyncio.wait_for(run(), 10))


def test_items_share_transactions_of_a_bounded_cost_in_their_order() -> None:
    storage = Storage()
    items = [*range(3 * GROUP_MAX), 1000, 1]
    assert storage.submit_all(items) == [10 * item for item in items]
    assert (storage.stored, storage.transactions) == (items, 5), "what costs more than a group is one by itself"
    assert (max(storage.queued), storage.queued[-1]) == (len(items), 0)


def test_an_item_that_cannot_be_written_is_in_no_other_s_way() -> None:
    storage = Storage()
    storage.bad = {3, 4}
    assert storage.submit_all(range(6)) == [0, 10, 20, -30, "bad", 50]


def test_group_commit_acknowledges_nothing_during_an_outage() -> None:
    storage = Storage()
    storage.is_away = True
    assert storage.submit_all(range(6)) == ["away"] * 6
    assert (storage.stored, storage.transactions) == ([], 1)


async def test_an_item_is_written_though_its_sender_leaves() -> None:
    storage = Storage()

    tasks = Tasks()
    tasks.start("commits", storage.commits.run())
    sender = tasks.start("sender", storage.commits.submit(1))
    await asyncio.sleep(0)
    sender.cancel()
    assert await storage.commits.submit(2) == 20
    await tasks.cancel()
    assert storage.stored == [1, 2]
