"""An edge's user of the hub reads the directory, and can write none of it: whoever steals it mints no keys."""

import asyncio

import pytest

from edgeproxy.hub.calls import Argument
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import Link, ResponseError
from edgeproxy.wire.directory_versions import LOG, NEWS, TIME
from loadtest.testbed.redis import Redis
from tests.support.hub_rights import HUB, documented, documented_for_directory, rights_in

WRITES: tuple[tuple[Argument, ...], ...] = (
    ("RPUSH", LOG, "forged"),
    ("LPUSH", LOG, "forged"),
    ("LSET", LOG, 0, "forged"),
    ("LTRIM", LOG, 1, 0),
    ("DEL", LOG),
    ("DEL", TIME),
    ("EXPIRE", LOG, 1),
    ("HSET", LOG, "a", "b"),
    ("ZADD", LOG, 1, "a"),
    ("RENAME", LOG, "rl:x"),
    ("COPY", "rl:x", LOG),
    ("RESTORE", LOG, 0, "x"),
    ("SET", LOG, "forged"),
    ("FLUSHALL",),
    ("PUBLISH", NEWS, "forged"),
    ("CONFIG", "SET", "save", ""),
    ("ACL", "SETUSER", "edge", "+@all"),
    ("EVAL", "return redis.call('RPUSH', KEYS[1], 'forged')", 1, LOG),
)


def test_an_edges_user_reads_the_directory_and_cannot_write_it(redis: Redis) -> None:
    async def play() -> None:
        operator = await Link.open(redis.url)
        rights = (*documented(), *documented_for_directory())
        await operator.ask("ACL", "SETUSER", "edge", "on", ">s3cret", *rights)
        await operator.ask("RPUSH", LOG, "a version")
        edge = await Link.open(f"redis://edge:s3cret@127.0.0.1:{redis.port}/0")
        assert await edge.ask("LINDEX", LOG, -1) == b"a version"
        assert await edge.ask("LRANGE", LOG, 0, -1) == [b"a version"]
        for command in WRITES:
            with pytest.raises(ResponseError, match=r"(?i)no permissions|NOPERM|can't run this command"):
                await edge.ask(*command)
        assert await operator.ask("LRANGE", LOG, 0, -1) == [b"a version"]
        await edge.close()
        await operator.close()

    asyncio.run(play())


def test_hub_user_without_a_password_has_no_rights(redis: Redis) -> None:
    async def play() -> None:
        operator = await Link.open(redis.url)
        await operator.ask("ACL", "SETUSER", "edge", "on", ">s3cret", *documented())
        await operator.ask("ACL", "SETUSER", "operator", "on", ">s3cret", *rights_in(HUB, "operator"))
        await operator.ask("ACL", "SETUSER", "default", *rights_in(HUB, "default", ""))
        edge = await Link.open(f"redis://edge:s3cret@127.0.0.1:{redis.port}/0")
        await edge.ask("TIME")
        await edge.ask("RESET")
        for command in ("TIME",), ("FLUSHALL",), ("CONFIG", "GET", "*"):
            with pytest.raises(HubUnavailableError, match="NOAUTH"):
                await edge.ask(*command)
        again = await Link.open(f"redis://operator:s3cret@127.0.0.1:{redis.port}/0")
        await again.ask("FLUSHALL")
        for link in (operator, edge, again):
            await link.close()

    asyncio.run(play())
