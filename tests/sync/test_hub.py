"""The hub in a real Redis: reached, lost, and reached again; what is asked of it meanwhile is told that it is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeproxy.sync import redis
from edgeproxy.sync.hub import Hub
from edgeproxy.sync.redis import Away, Link, Tls
from edgeproxy.sync.report import Cell, Gauge, Period, Report, Window
from tests.authority import Authority
from tests.sync.server import SERVER, Redis, free_port

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

PATIENCE = 15.0


def report(seq: int, used: int, instance: int = 1) -> Report:
    window = Window(10, 28, 1000, (Cell(1000, used, 0),))
    return Report(b"k", instance, seq, 1, 2142.0, 60.0, used, window=window)


async def until(true: Callable[[], bool]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110, what is waited for is another task
            await asyncio.sleep(0.01)


@asynccontextmanager
async def reached(url: str, instance: int = 1, tls: Tls | None = None) -> AsyncIterator[Hub]:
    """A hub that is up."""
    hub = Hub(url, instance, lambda: None, tls)
    running = asyncio.get_running_loop().create_task(hub.run())
    try:
        await until(lambda: hub.is_up)
        yield hub
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await hub.close()


def played(play: Callable[[], Awaitable[None]]) -> None:
    """Run it in a loop."""

    async def main() -> None:
        await play()

    asyncio.run(main())


def test_answers_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url) as hub:
            answers = [hub.rate(report(seq, seq, instance=1 + seq % 2)) for seq in range(1, 501)]
            told = [await answer for answer in answers]
            # Each sees what the other had said by then.
            assert [sum(one.foreign.values()) for one in told] == [seq - 1 for seq in range(1, 501)]
            assert hub.hosts == 1
            assert 0 < hub.rtt < 1

    try:
        played(play)
    finally:
        server.kill()


def test_a_killed_server_is_away_at_once_and_reached_again(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url) as hub:
            assert (await hub.rate(report(1, 3))).known is False
            server.kill()
            with pytest.raises(Away):
                await hub.rate(report(2, 4))
            await until(lambda: not hub.is_up)
            assert hub.why
            server.start()
            await until(lambda: hub.is_up)
            assert (await hub.rate(report(3, 5))).known is False, "it has forgotten everything"
            assert (await hub.rate(report(4, 5))).known is True
            assert hub.errors == 1

    try:
        played(play)
    finally:
        server.kill()


def test_a_server_that_hangs_is_away_after_a_second(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url) as hub:
            server.stop()
            began = asyncio.get_running_loop().time()
            with pytest.raises(Away, match="no answer within 1 s"):
                await hub.rate(report(1, 3))
            assert asyncio.get_running_loop().time() - began < 3
            server.go_on()
            await until(lambda: hub.is_up)

    try:
        played(play)
    finally:
        server.go_on()
        server.kill()


@pytest.mark.parametrize(
    ("refuses", "passes"),
    [("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"), ("SCRIPT FLUSH", "PING")],
)
def test_a_server_that_refuses_is_away_until_it_does_not(tmp_path: Path, refuses: str, passes: str) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        operator = await Link.open(server.url)
        async with reached(server.url) as hub:
            await operator.ask(*refuses.split())
            with pytest.raises(Away):
                await hub.rate(report(1, 3))
            await until(lambda: not hub.is_up)
            await operator.ask(*passes.split())
            await until(lambda: hub.is_up)
            assert (await hub.rate(report(2, 3))).known is False
            heard = hub.heard_at
            await until(lambda: hub.heard_at > heard)
        await operator.close()

    try:
        played(play)
    finally:
        server.kill()


def test_hosts_are_counted_by_their_heartbeats(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url, 1) as one, reached(server.url, 2) as other:
            await until(lambda: one.hosts == 2)
            assert other.hosts == 2
            assert abs((one.offset or 0) - (other.offset or 1)) < 0.05

    try:
        played(play)
    finally:
        server.kill()


def test_quotas_and_what_is_in_use(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url) as hub:
            await hub.period(Period(b"q", 1, 7, 5))
            assert await hub.period(Period(b"q", 2, 7, 1)) == (7, 5)
            await hub.gauge(Gauge(b"g", 1, 3, 1000.0, 1005.0))
            assert await hub.gauge(Gauge(b"g", 2, 1, 1001.0, 1006.0)) == (3, 2)

    try:
        played(play)
    finally:
        server.kill()


def test_a_password_of_the_url_is_used_and_never_shown(tmp_path: Path) -> None:
    server = Redis(tmp_path, "--requirepass", "s3cret")

    async def play() -> None:
        with pytest.raises(Away, match=r"(?i)auth"):
            await Link.open(server.url)
        async with reached(f"redis://:s3cret@127.0.0.1:{server.port}/0") as hub:
            assert (await hub.rate(report(1, 1))).hosts == 1
            assert "s3cret" not in hub.name

    try:
        played(play)
    finally:
        server.kill()


def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    files = ("--tls-cert-file", str(issued.cert), "--tls-key-file", str(issued.key), "--tls-auth-clients", "no")
    port = free_port()
    server = Redis(tmp_path, *files, "--port", "0", "--tls-port", str(port), "--tls-ca-cert-file", str(authority.file))

    async def play() -> None:
        with pytest.raises(Away, match=r"(?i)certificate"):
            await Link.open(f"rediss://localhost:{port}/0")
        async with reached(f"rediss://localhost:{port}/0", tls=Tls(ca=str(authority.file))) as hub:
            assert (await hub.rate(report(1, 1))).hosts == 1

    try:
        played(play)
    finally:
        server.kill()


def test_scripts_that_redis_refuses_count_as_no_answer(tmp_path: Path) -> None:
    server = Redis(tmp_path)

    async def play() -> None:
        async with reached(server.url) as hub:
            link = await Link.open(server.url)
            await link.ask("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(Away, match="read only replica"):
                await hub.rate(report(1, 1))
            assert hub.errors >= 1
            await link.close()

    try:
        played(play)
    finally:
        server.kill()


def test_every_script_is_shipped() -> None:
    for name in redis.SCRIPTS:
        assert b"redis.call" in redis.script(name)
