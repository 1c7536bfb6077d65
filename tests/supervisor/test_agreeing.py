"""A supervisor that tells a real hub what limits its workers use: what becomes of claims, and who speaks for whom."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from edgeproxy.config.models import Hub
from edgeproxy.counters import layout as at
from edgeproxy.counters.store import Store
from edgeproxy.supervisor.agreeing import Agreeing
from tests.counters.tables import WIDTH
from tests.supervisor.waiting import turned
from tests.sync.server import SERVER, Redis

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

LIMIT = 100
Message = dict[str, Any]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _nothing_left(redis: Redis) -> None:
    with Client(port=redis.port) as client:
        client.flushall()


class Host:
    """Supervisors on one state directory, with a worker of which the test plays the part."""

    def __init__(self, state: Path, redis: Redis) -> None:
        self._state, self._url = state, redis.url
        self._client = Client(port=redis.port)
        self.first = self.prepared()
        self.worker = Store.join(state)
        now = self.first.offset + asyncio.get_running_loop().time()
        self.table = self.first.people
        self.row, self.generation, _ = self.table.find(self.table.key(b"acme"), WIDTH, now)

    def prepared(self) -> Store:
        return Store.prepare(self._state, workers=1, people=10, addresses=10, hub=True)

    @asynccontextmanager
    async def agreeing(self, store: Store) -> AsyncIterator[tuple[Agreeing, list[Message]]]:
        """A supervisor, and what it tells its workers."""
        told: list[Message] = []
        agreeing = Agreeing(store, Hub(url=self._url), told.append)
        agreeing.begin()
        try:
            yield agreeing, told
        finally:
            await agreeing.end()

    def word(self, word: int, column: int = 0) -> int:
        return self.table.words[self.row + self.table.layout.head(column) + word]

    def wants(self, many: int) -> Message:
        """The worker waits for so many claims; what it says then."""
        self.table.words[self.row + self.table.layout.head(0) + at.WANT] = self.word(at.GIVEN) + many
        cells = self.table.layout.cells
        file = self.table.file.generation
        rate = ["people", file, self.row, self.generation, LIMIT, 60.0, cells, 0, 0.0, "bounded", False]
        return {"type": "uses", "rates": [rate], "totals": []}

    def waits_no_more(self) -> None:
        self.table.words[self.row + self.table.layout.head(0) + at.WANT] = 0

    def at_hub(self, field: str) -> int:
        """Of this host there: g, the claims granted, p, those of them that are spent."""
        keys = self._client.keys(f"rl:*:h:{self.first.control.instance}")
        return int(self._client.hget(keys[0], field) or 0) if keys else 0

    def close(self) -> None:
        for store in (self.worker, self.first):
            store.close()
        self._client.close()


def test_claims_that_come_when_nobody_waits_go_back(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.agreeing(host.first) as (agreeing, told):
                agreeing.uses(host.wants(3))
                host.waits_no_more()
                agreeing.uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) >= 3, "claims are given")
                host.waits_no_more()
                await turned(lambda: any(each["type"] == "unused" for each in told), "the worker is asked for them")
                (said,) = {str(each["rows"]) for each in told if each["type"] == "unused"}
                assert said == str([["people", host.table.file.generation, host.row, host.generation]])
                given = host.word(at.GIVEN)
                host.table.words[host.row + host.table.layout.head(0) + at.USED] = given
                await turned(lambda: host.at_hub("p") == host.at_hub("g") == given, "the hub has them again")
                told.clear()
                rates = agreeing._tables["people", 1].rates
                await turned(lambda: not rates.has_claims, "nothing is left to be looked at")
                assert not [each for each in told if each["type"] == "unused"]

    asyncio.run(play())


def test_claims_of_a_worker_that_died_go_back(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.agreeing(host.first) as (agreeing, _):
                agreeing.uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")
                assert host.word(at.USED) == 0
                agreeing.uses(host.wants(2))
                host.worker.close()
                await turned(lambda: host.word(at.USED) == host.word(at.GIVEN) == host.word(at.WANT), "they go back")
                await turned(lambda: host.at_hub("p") == host.at_hub("g") > 0, "the hub has them again")

    asyncio.run(play())


def test_one_supervisor_speaks_for_two_and_the_other_takes_over(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host, closing(host.prepared()) as second:
            async with host.agreeing(second) as (newer, its):
                # It speaks as long as it is alone.
                await turned(lambda: second.identity.held, "the second holds the lock")
                async with host.agreeing(host.first) as (older, mine):
                    older.uses(host.wants(3))
                    await turned(lambda: host.word(at.GIVEN) == 3, "who waits is heard of by the one that speaks")
                    await turned(lambda: {"type": "heard"} in mine, "its workers are told")
                    assert {"type": "heard"} in its
                    assert not older._tables, "it has no part in it"
                    await newer.end()
                    host.wants(2)
                    second.identity.release()
                    await turned(lambda: host.word(at.GIVEN) == 5, "it knows who was in use, and is heard by the hub")
                    assert host.at_hub("g") == 5, "what was granted before was not given again"

    asyncio.run(play())
