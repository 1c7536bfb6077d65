"""A supervisor with thousands of limits in use, and a real hub: all are told, and nothing else waits for that."""

import asyncio
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis as Client

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.messages import LimitsUsed, RateUse
from edgeproxy.edge.sync.coordinator import Coordinator
from edgeproxy.hub.redis import HOSTS_KEY
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import turned
from tests.support.tables import WIDTH

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

MANY = 3000
BUSY = 0.1
"""Seconds of its own work for which a supervisor may keep others waiting here; mostly it is a tenth of that."""


def used(store: Store, now: float) -> LimitsUsed:
    """What a worker says that uses many limits at once."""
    table = store.customers
    rates = []
    for number in range(MANY):
        row, generation, _ = table.find(table.make_key(b"customer-%d" % number), WIDTH, now)
        rates.append(
            RateUse.from_terms("customers", table.file.generation, row, generation, RateTerms(100, 60.0, 28), False)
        )
    return LimitsUsed(rates, [])


async def stretches(found: list[float]) -> None:
    """For how long this process works at a stretch; others who use the machine do not count."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        found.append(time.thread_time() - began)
        await asyncio.sleep(0.001)


def test_thousands_of_limits_are_told_and_nothing_else_is_held_up(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        store = Store.prepare(tmp_path / "state", workers=1, customers=2 * MANY, addresses=10, hub=True)
        busy: list[float] = []
        tasks = Tasks()
        with closing(store), Client(port=redis.port) as client:

            def told() -> int:
                return int(client.info("commandstats")["cmdstat_fcall"]["calls"])

            coordinator = Coordinator(store, Hub(url=redis.url), lambda _: None)
            coordinator.begin()
            try:
                await turned(lambda: coordinator.report()["state"] == "up", "the hub is reached")
                await turned(lambda: store.identity.held, "it speaks")
                message = used(store, store.offset + time.monotonic())
                tasks.start("stretches", stretches(busy))
                coordinator.record_uses(message)
                await turned(lambda: len(client.keys("rl:*:total")) == MANY, "all are told")
                once = told()
                assert once < 1.2 * MANY

                # Another host has come: that is no reason to tell everything again.
                client.append(HOSTS_KEY, struct.pack(">3I", 0, 4711, int(time.time())))
                await turned(lambda: coordinator.report()["hosts"] == 2, "both know of each other")
                assert told() - once < MANY / 2

                # Who has lost the hub for a moment tells it everything again, and not at once.
                coordinator.record_uses(message)
                once = told()
                client.client_kill_filter(_type="normal", skipme=True)
                await turned(lambda: coordinator.report()["state"] == "away", "the hub is lost")
                await turned(lambda: told() - once >= MANY, "all are told again")
                await turned(lambda: coordinator.report()["behind_s"] < 3, "nothing is overdue")
            finally:
                await tasks.cancel()
                await coordinator.end()
        assert max(busy) < BUSY

    asyncio.run(play())
