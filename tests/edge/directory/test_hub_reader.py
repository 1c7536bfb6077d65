"""The edge's connection to the directory in the hub: an invalid answer closes it, and the edge reconnects."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge.directory.hub_reader import HubReader
from edgeproxy.hub.cluster import key_slot
from edgeproxy.hub.errors import HubRefusalError, HubUnavailableError
from edgeproxy.wire.directory_versions import LOG, UnreadableDirectoryError
from loadtest.testbed.ports import HOST
from loadtest.testbed.redis import SERVER, Cluster, Redis

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


async def ask_until_answered(reader: HubReader) -> Any:
    """Return the newest line, with retries until the hub answers."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await reader.ask("LINDEX", LOG, -1)
            except HubUnavailableError:
                await asyncio.sleep(0.05)


def test_reader_follows_a_log_to_another_cluster_node(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        reader, slot = HubReader(Hub(url=cluster.url)), key_slot(LOG)
        await reader.ask("RPUSH", LOG, "a version")
        source = next(node for node in cluster.nodes if cluster.tell(node, "CLUSTER", "COUNTKEYSINSLOT", slot))
        target = next(node for node in cluster.nodes if node is not source)
        assert await ask_until_answered(reader) == b"a version"
        cluster.tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.name(source))
        cluster.tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.name(target))
        cluster.tell(source, "MIGRATE", "127.0.0.1", target.port, LOG, 0, 5000)
        with pytest.raises(HubUnavailableError, match="ASK"):
            await reader.ask("LINDEX", LOG, -1)
        for node in cluster.nodes:
            cluster.tell(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.name(target))
        assert await ask_until_answered(reader) == b"a version"
        await reader.close()

    with Cluster(tmp_path) as cluster:
        asyncio.run(play(cluster))


def test_unreadable_answer_closes_the_connection_and_the_next_query_reconnects(redis: Redis) -> None:
    async def play() -> None:
        reader = HubReader(Hub(url=redis.url))
        assert await reader.ask("LINDEX", LOG, -1) is None
        with closing(Client(HOST, redis.port)) as operator:  # Which waits for as long as a busy machine takes.
            operator.rpush(LOG, bytes(65 << 20))
        with pytest.raises(UnreadableDirectoryError, match=r"cost the connection.*it answered '\$68157440'"):
            await reader.ask("LINDEX", LOG, -1)
        assert await reader.ask("LLEN", LOG) == 1
        redis.kill()
        with pytest.raises((HubUnavailableError, UnreadableDirectoryError)):
            await reader.ask("LINDEX", LOG, -1)
        redis.start()
        assert await ask_until_answered(reader) is None
        await reader.follow(Hub())
        with pytest.raises(HubUnavailableError, match="there is no hub"):
            await reader.ask("LINDEX", LOG, -1)
        await reader.close()

    asyncio.run(play())


def test_an_error_of_redis_is_a_refusal_with_its_code(redis: Redis) -> None:
    async def play() -> None:
        reader = HubReader(Hub(url=redis.url))
        await reader.ask("SET", LOG, "no list")
        with pytest.raises(HubRefusalError, match=r"^WRONGTYPE "):
            await reader.ask("LINDEX", LOG, -1)
        assert await reader.ask("LLEN", "another") == 0, "and the connection goes on"
        await reader.close()

    asyncio.run(play())
