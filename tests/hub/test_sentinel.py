"""A hub that Redis Sentinels look after: its primary is found, and found again after a fail-over."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from edgeproxy.hub.cluster import load_functions, open_link
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import HOSTS_KEY, Link, Tls
from edgeproxy.hub.subscription import Subscription
from loadtest.testbed.redis import SERVER, Redis, Sentinels, free_port
from tests.hub.test_hub import report
from tests.support.reached_hub import reached, until

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as made:
        yield made


def role(server: Redis) -> str:
    with redis.Redis(port=server.port) as client:
        return str(client.info("replication")["role"])


@pytest.mark.parametrize("way", ["killed", "swapped"])
def test_new_primary_is_found(sentinels: Sentinels, way: str) -> None:
    async def play() -> None:
        async with reached(sentinels.url) as hub:
            await hub.report_rate(report(1, 3))
            if way == "killed":
                sentinels.primary.kill()
            else:
                sentinels.swap()
            await until(lambda: not hub.is_up)
            assert hub.why
            await until(lambda: hub.is_up)
            assert role(sentinels.replica) == "master"
            await hub.report_rate(report(2, 4))

    asyncio.run(play())


def test_hub_connects_through_one_of_three_sentinels(sentinels: Sentinels) -> None:
    for sentinel in sentinels.sentinels[:2]:
        sentinel.kill()

    async def play() -> None:
        async with reached(sentinels.url) as hub:
            await hub.report_rate(report(1, 3))
        assert await load_functions(sentinels.url, Tls()) == 1

    asyncio.run(play())


def test_silent_sentinel_does_not_stop_the_others(sentinels: Sentinels) -> None:
    sentinels.sentinels[0].stop()

    async def play() -> None:
        link = await open_link(HOSTS_KEY, sentinels.url, Tls())
        assert await link.ask("ROLE")
        await link.close()

    try:
        asyncio.run(play())
    finally:
        sentinels.sentinels[0].go_on()


@pytest.mark.parametrize("service", ["hub", "another"])
def test_no_primary_is_an_unavailable_hub(sentinels: Sentinels, service: str) -> None:
    where = sentinels.where if service == "another" else f"127.0.0.1:{free_port()}"
    with pytest.raises(HubUnavailableError, match=f"No master found for '{service}'"):
        asyncio.run(Link.open(f"redis+sentinel://{where}/{service}/0", Tls()))


def test_password_is_sent_only_to_the_primary(tmp_path: Path) -> None:
    with Sentinels(tmp_path) as sentinels:
        with redis.Redis(port=sentinels.primary.port) as client:
            client.config_set("requirepass", "s3cret")
        for sentinel in sentinels.sentinels:
            with redis.Redis(port=sentinel.port) as client:
                client.execute_command("SENTINEL", "SET", "hub", "auth-pass", "s3cret")

        async def play() -> None:
            with pytest.raises(HubUnavailableError, match="NOAUTH"):
                await Link.open(f"{sentinels.url}/0", Tls())
            link = await Link.open(f"{sentinels.url}/0".replace("://", "://:s3cret@"), Tls())
            assert await link.ask("TIME")
            await link.close()

        asyncio.run(play())


def test_subscription_follows_the_primary(sentinels: Sentinels) -> None:
    async def play() -> None:
        heard: list[int] = []
        task = asyncio.create_task(  # noqa: TID251
            Subscription(f"{sentinels.url}/0", Tls(), b"news", lambda: heard.append(1)).run()
        )
        try:
            await until(lambda: len(heard) == 1)
            sentinels.primary.kill()
            await until(lambda: len(heard) == 2)
        finally:
            task.cancel()

    asyncio.run(play())


def test_replica_by_address_ends_the_connection(sentinels: Sentinels) -> None:
    """Also without Sentinels: an address whose server was demoted leads to another one with the next connection."""

    async def play() -> None:
        async with reached(sentinels.primary.url) as hub:
            await hub.report_rate(report(1, 3))
            for sentinel in sentinels.sentinels:
                sentinel.kill()
            with redis.Redis(port=sentinels.primary.port) as client:
                client.replicaof("127.0.0.1", str(sentinels.replica.port))
            await until(lambda: not hub.is_up)
            with redis.Redis(port=sentinels.primary.port) as client:
                client.replicaof("NO", "ONE")
            await until(lambda: hub.is_up)

    asyncio.run(play())
