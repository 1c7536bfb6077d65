"""Messages published on the hub arrive, also after the server was away."""

import asyncio

import pytest

from edgeproxy.hub import subscription
from edgeproxy.hub.redis import Link, Tls
from edgeproxy.hub.subscription import Subscription
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import turned

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


def test_each_message_is_heard_also_after_silence_and_after_a_loss(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "PING_SECONDS", 0.05)
    monkeypatch.setattr(subscription, "RETRY_SECONDS", 0.01)
    heard: list[None] = []

    async def published() -> None:
        link = await Link.open(redis.url)
        try:
            await link.ask("PUBLISH", b"news", b"x")
        finally:
            await link.close()

    async def play() -> None:
        listens = asyncio.ensure_future(Subscription(redis.url, Tls(), b"news", lambda: heard.append(None)).run())  # noqa: TID251
        for _ in range(2):
            before = len(heard)
            await turned(lambda before=before: len(heard) > before, "the subscriber listens")  # type: ignore[misc]
            await asyncio.sleep(0.3)  # Longer than it is silent without a ping.
            here = len(heard)
            await published()
            await turned(lambda here=here: len(heard) == here + 1, "one message, one word")  # type: ignore[misc]
            redis.kill()
            redis.start()
        listens.cancel()

    asyncio.run(play())
