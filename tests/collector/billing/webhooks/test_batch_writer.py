"""Events that arrive at once share a transaction, and one that cannot be kept is in nobody's way."""

import asyncio
from collections.abc import Sequence

from edgeproxy.collector.billing.stripe.webhook_event import StripeEvent
from edgeproxy.collector.billing.webhooks.batch_writer import TOGETHER_MAX, WebhookBatchWriter
from edgeproxy.collector.billing.webhooks.receiver import ReceivedEvent


def event(number: int) -> ReceivedEvent:
    return ReceivedEvent(StripeEvent(f"evt_{number}", "invoice.paid", "invoice", "in_1", False, 0), b"{}")


class Table:
    """What is kept, and in how many transactions; `bad` cannot be, and nothing can while it is away."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.transactions = 0
        self.bad = ""
        self.away = False
        self.arrivals = WebhookBatchWriter(self.write)

    async def write(self, some: Sequence[ReceivedEvent]) -> None:
        ids = {one.event.id for one in some}
        self.transactions += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        if self.bad in ids:
            raise ValueError(self.bad)
        self.stored |= ids

    async def keep(self, number: int) -> bool:
        """Whether an event is answered as kept, and then it must be."""
        try:
            await self.arrivals.write_event(event(number))
        except (OSError, ValueError):
            return False
        assert f"evt_{number}" in self.stored
        return True

    def answers(self, count: int) -> list[bool]:
        async def all_at_once() -> list[bool]:
            return list(await asyncio.gather(*map(self.keep, range(count))))

        return asyncio.run(all_at_once())


def test_a_storm_is_few_transactions_of_a_bounded_size() -> None:
    table = Table()
    assert all(table.answers(5 * TOGETHER_MAX))
    assert (len(table.stored), table.transactions) == (5 * TOGETHER_MAX, 6), "the first one waits for nobody"


def test_an_event_that_cannot_be_stored_is_in_no_other_s_way() -> None:
    table = Table()
    table.bad = "evt_3"
    assert table.answers(10) == [number != 3 for number in range(10)]


def test_while_the_database_is_away_no_event_is_acknowledged() -> None:
    table = Table()
    table.away = True
    assert table.answers(10) == [False] * 10
    assert table.stored == set()
