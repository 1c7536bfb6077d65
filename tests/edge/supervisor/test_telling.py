"""A supervisor with thousands of limits and a real hub: it reports all of them without delaying other work."""

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
"""Seconds that a supervisor may work without a pause in this test. Usually it takes a tenth of this."""


def used(store: Store, now: float) -> LimitsUsed:
    """Return the message of a worker that uses many limits."""
    table = store.customers
    rates = []
    for number in range(MANY):
        row, generation, _ = table.find(table.make_key(b"customer-%d" % number), WIDTH, now)
        rates.append(
            RateUse.from_terms("customers", table.file.generation, row, generation, RateTerms(100, 60.0, 28), False)
        )
    return LimitsUsed(rates, [])


async def stretches(found: list[float]) -> None:
    """Record this thread's CPU time between two turns of the event loop. Other load on the machine does not count."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        found.append(time.thread_time() - began)
        await asyncio.sleep(0.001)


def test_reports_of_thousands_of_limits_do_not_delay_other_work(tmp_path: Path, redis: Redis) -> None:
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
                await turned(lambda: store.identity.held, "the supervisor holds the identity")
                message = used(store, store.offset + time.monotonic())
                tasks.start("stretches", stretches(busy))
                coordinator.record_uses(message)
                await turned(lambda: len(client.keys("rl:*:total")) == MANY, "all limits are reported")
                once = told()
                assert once < 1.2 * MANY

                # A new host does not cause a report of all limits.
                client.append(HOSTS_KEY, struct.pack(">3I", 0, 4711, int(time.time())))
                await turned(lambda: coordinator.report()["hosts"] == 2, "both hosts count two hosts")
                assert told() - once < MANY / 2

                # After a short loss of the hub, the supervisor reports all limits again, spread over time.
                coordinator.record_uses(message)
                once = told()
                client.client_kill_filter(_type="normal", skipme=True)
                await turned(lambda: coordinator.report()["state"] == "away", "the hub is lost")
                await turned(lambda: told() - once >= MANY, "all limits are reported again")
                await turned(lambda: coordinator.report()["behind_s"] < 3, "no report is overdue")
            finally:
                await tasks.cancel()
                await coordinator.end()
        assert max(busy) < BUSY

    asyncio.run(play())
