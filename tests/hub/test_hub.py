"""The hub in a real Redis is reached, lost, and reached again. Calls fail while it is away."""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import edgeproxy.hub.functions
from edgeproxy.hub import calls
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.functions import LIBRARY, build_library
from edgeproxy.hub.redis import Link, Tls
from edgeproxy.hub.report import Bucket, Cell, Gauge, Period, Report, Window
from loadtest.testbed.authority import Authority
from loadtest.testbed.redis import SERVER, Redis, free_port
from tests.support.hub_rights import documented, documented_for_push
from tests.support.logs import capture_logs
from tests.support.reached_hub import reached, tried, until

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


def report(seq: int, used: int, instance: int = 1) -> Report:
    window = Window(10, 28, 1000, (Cell(1000, used, 0),))
    return Report(b"k", instance, seq, 1, 2142.0, 60.0, used, window=window)


def test_answers_come_in_the_order_of_the_questions(redis: Redis) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            answers = [hub.report_rate(report(seq, seq, instance=1 + seq % 2)) for seq in range(1, 501)]
            told = [await answer for answer in answers]
            # Each answer includes the earlier reports of the other host.
            assert [sum(one.foreign.values()) for one in told] == [seq - 1 for seq in range(1, 501)]
            assert hub.hosts == 1
            assert 0 < hub.rtt < 1

    asyncio.run(play())


def test_killed_hub_is_unavailable_at_once_and_reconnects(redis: Redis) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            assert (await hub.report_rate(report(1, 3))).known is False
            redis.kill()
            with pytest.raises(HubUnavailableError):
                await hub.report_rate(report(2, 4))
            await until(lambda: not hub.is_up)
            assert hub.why
            assert hub.errors == 1
            redis.start()
            await until(lambda: hub.is_up)
            assert (await hub.report_rate(report(3, 5))).known is False, "the hub has lost its data"
            assert (await hub.report_rate(report(4, 5))).known is True

    asyncio.run(play())


def test_hanging_hub_is_unavailable_after_a_second(redis: Redis) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            redis.stop()
            began = asyncio.get_running_loop().time()
            with pytest.raises(HubUnavailableError, match="no answer within 1 s"):
                await hub.report_rate(report(1, 3))
            assert asyncio.get_running_loop().time() - began < 3
            redis.go_on()
            await until(lambda: hub.is_up)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("refuses", "passes"),
    [("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"), ("FUNCTION FLUSH", "PING")],
)
def test_refusing_hub_is_unavailable_until_it_accepts(redis: Redis, refuses: str, passes: str) -> None:
    async def play() -> None:
        operator = await Link.open(redis.url)
        async with reached(redis.url) as hub:
            await operator.ask(*refuses.split())
            with pytest.raises(HubUnavailableError):
                await hub.report_rate(report(1, 3))
            await until(lambda: not hub.is_up)
            await operator.ask(*passes.split())
            await until(lambda: hub.is_up)
            assert (await hub.report_rate(report(2, 3))).known is False
            heard = hub.last_answer_at
            await until(lambda: hub.last_answer_at > heard)
        await operator.close()

    asyncio.run(play())


def test_a_password_of_the_url_is_used_and_never_shown(tmp_path: Path) -> None:
    async def play() -> None:
        with pytest.raises(HubUnavailableError, match=r"(?i)auth"):
            await Link.open(server.url)
        async with reached(f"redis://:s3cret@127.0.0.1:{server.port}/0") as hub:
            assert (await hub.report_rate(report(1, 1))).hosts == 1
            assert "s3cret" not in hub.name

    with Redis(tmp_path, "--requirepass", "s3cret") as server:
        asyncio.run(play())


def test_hub_connects_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    files = ("--tls-cert-file", str(issued.cert), "--tls-key-file", str(issued.key), "--tls-auth-clients", "no")
    port = free_port()
    files += ("--port", "0", "--tls-port", str(port), "--tls-ca-cert-file", str(authority.file))

    async def play() -> None:
        with pytest.raises(HubUnavailableError, match=r"(?i)certificate"):
            await Link.open(f"rediss://localhost:{port}/0")
        async with reached(f"rediss://localhost:{port}/0", tls=Tls(ca=str(authority.file))) as hub:
            assert (await hub.report_rate(report(1, 1))).hosts == 1

    with Redis(tmp_path, *files):
        asyncio.run(play())


def test_scripts_that_redis_refuses_count_as_no_answer(redis: Redis) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            link = await Link.open(redis.url)
            await link.ask("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(HubUnavailableError, match="read only replica"):
                await hub.report_rate(report(1, 1))
            await until(lambda: hub.errors >= 1)
            await link.close()

    asyncio.run(play())


def test_flushed_hub_is_noticed_once(redis: Redis) -> None:
    renewed: list[bool] = []

    async def play() -> None:
        async with reached(redis.url, renewed=lambda has: renewed.append(has(b"k"))) as hub:
            beats = hub.last_answer_at
            await until(lambda: hub.last_answer_at > beats)
            assert renewed == []
            await hub.ask("FLUSHALL", b"SYNC")
            await until(lambda: renewed == [True])
            beats = hub.last_answer_at
            await until(lambda: hub.last_answer_at > beats)
            assert renewed == [True]
            assert hub.errors == 0

    asyncio.run(play())


def test_unreadable_hub_answer_counts_as_none_and_is_retried(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            (node,) = hub._nodes.all
            assert node.link is not None
            others = build_library(dict.fromkeys((calls.RATE, calls.HEARTBEAT), b"return 1"))
            await node.link.ask("FUNCTION", "LOAD", others.text)
            functions = dict(LIBRARY.functions)
            monkeypatch.setattr(edgeproxy.hub.functions, "LIBRARY", LIBRARY._replace(functions=functions))
            functions[calls.RATE] = others.functions[calls.RATE]
            with pytest.raises(HubUnavailableError, match="it answered 1 to the script rate: is it a Redis"):
                await asyncio.wait_for(hub.report_rate(report(1, 1)), 10)
            await until(lambda: hub.errors == 1 and hub.is_up)
            functions[calls.HEARTBEAT] = others.functions[calls.HEARTBEAT]
            await until(lambda: hub.errors == 2 and not hub.is_up)
            functions |= LIBRARY.functions
            await until(lambda: hub.is_up)
            assert (await hub.report_rate(report(2, 1))).hosts == 1

    asyncio.run(play())


def test_a_state_that_no_edge_has_written_is_refused_once_logged_and_counted(redis: Redis) -> None:
    async def play() -> None:
        async with reached(redis.url) as hub:
            operator = await Link.open(redis.url)
            (totals, _), _ = calls.build_rate_call(report(1, 1))
            await operator.ask("SET", totals, "junk")
            with capture_logs() as lines, pytest.raises(HubUnavailableError, match="INVALIDSTATE"):
                await hub.report_rate(report(1, 1))
            assert [(line["event"], line["key"]) for line in lines] == [
                ("the hub refuses a report", repr(totals.decode()))
            ]
            assert (hub.errors, hub.is_up) == (1, True)
            assert (await hub.report_rate(report(2, 1))).hosts == 1
            await operator.close()

    asyncio.run(play())


LACKING = {
    "-fcall": "^NOPERM .*fcall",
    "resetkeys": "^NOPERM .*key",
    "-set": "^The user executing the script can't run this command|^ACL failure in script",  # Redis 7.0; Valkey.
}
"""Each missing right, and the hub's error."""


@pytest.mark.parametrize(
    ("scripts", "others", "granted"),
    [
        ((calls.PREAMBLE, *calls.EDGE_SCRIPTS), ["~rl:*", "+fcall", "+cluster|slots", "+asking"], documented),
        (calls.DIRECTORY_SCRIPTS, ["~dir:*", "&dir:*", "+fcall"], documented_for_push),
    ],
)
def test_the_rights_of_the_documentation_are_those_of_the_functions(
    scripts: Sequence[str], others: list[str], granted: Callable[[], list[str]]
) -> None:
    commands = {
        f"+{name.decode().lower()}"
        for script in scripts
        for name in re.findall(rb"redis\.p?call\('([A-Z]+)'", calls.read_script(script))
    }
    assert sorted(granted()) == sorted([*others, *commands])


def test_a_user_with_the_rights_of_the_documentation_and_one_without(redis: Redis) -> None:
    url = f"redis://edge:s3cret@127.0.0.1:{redis.port}/0"

    async def play() -> None:
        operator = await Link.open(redis.url)
        await operator.ask("ACL", "SETUSER", "edge", "on", ">s3cret", *documented())
        await operator.load_functions()
        async with reached(url) as hub:
            changed = Window(10, 28, 1000, (Cell(1000, 3, 0), Cell(971, 1, 0)))
            for seq in (1, 2):
                await hub.report_rate(
                    Report(b"k", 1, seq, 1, 2142.0, 60.0, 4, want=1, window=changed, bucket=Bucket(5, 1, 0))
                )
                await hub.report_rate(Report(b"k", 1, 9, 2, 2542.0, 60.0, 4, window=Window(10, 28, 1100)))
                await hub.report_period(Period(b"q", seq, seq, 5))
                await hub.report_gauge(Gauge(b"g", seq, 2 - seq, 1000.0 + 10 * seq, 1005.0 + 10 * seq))
            heard = hub.last_answer_at
            await until(lambda: hub.last_answer_at > heard + 1)
            assert hub.errors == 0
        for rule, said in LACKING.items():
            await operator.ask("ACL", "SETUSER", "edge", *documented(), rule)
            async with tried(url) as hub:
                await until(lambda hub=hub: hub.why != "not reached yet")  # type: ignore[misc]
                assert not hub.is_up
                assert hub.errors
                assert hub.why is not None
                assert re.search(said, hub.why), hub.why
        await operator.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        (["CONFIG SET maxmemory 1"], "OOM"),
        (["REPLICAOF 127.0.0.1 1"], "READONLY You can't write against a read only replica"),
        (["CONFIG SET requirepass other"], "NOAUTH"),
        (["CONFIG SET save 3600_1", "BGSAVE"], "MISCONF"),
    ],
)
def test_unavailable_hub_states_its_reason(tmp_path: Path, commands: list[str], why: str) -> None:
    async def play() -> None:
        operator = await Link.open(server.url)
        for command in commands:
            await operator.ask(*(word.replace("_", " ") for word in command.split()))
        with capture_logs() as lines:
            async with tried(server.url) as hub:
                await until(lambda: why in (hub.why or ""))
                assert not hub.is_up
                assert (hub.errors > 0, hub.nodes_away) == (True, 1)
                assert hub.status()["why"] == hub.why
        assert [line["why"] for line in lines if line["log_level"] == "error"][-1].startswith(why)
        await operator.close()

    with Redis(tmp_path, "--dbfilename", "occupied") as server:
        (tmp_path / "occupied" / "by").mkdir(parents=True)
        asyncio.run(play())


def test_a_silent_hub_is_tried_by_one_connection_and_logged_once() -> None:
    async def play() -> None:
        there, most, times = 0, 0, 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal there, most, times
            there, times = there + 1, times + 1
            most = max(most, there)
            while await reader.read(1000):
                pass
            there -= 1
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with capture_logs() as lines:
            async with tried(f"redis://127.0.0.1:{port}/0") as hub:
                await until(lambda: times == 2)
                assert (hub.breaker, hub.errors) == ("half-open", 1)
                await until(lambda: hub.breaker == "open")
                assert hub.errors == 2, "each attempt counts once"
                assert hub.why == "no answer within 2 s"
                with pytest.raises(HubUnavailableError, match="no answer within 2 s"):
                    await hub.report_rate(report(1, 1))
        assert most == 1
        assert [line["why"] for line in lines if line["log_level"] == "error"] == ["no answer within 2 s"]
        server.close()

    asyncio.run(play())


def test_the_state_of_the_breaker_is_in_the_status(redis: Redis) -> None:
    async def play() -> None:
        with capture_logs() as lines:
            async with reached(redis.url) as hub:
                said = hub.status()
                assert (said["state"], said["breaker"], said["hosts"]) == ("up", "closed", 1)
                assert not {"why", "nodes"} & said.keys()
                redis.kill()
                await until(lambda: not hub.is_up)
                states = [hub.breaker]
                while states.count("half-open") < 2:
                    await asyncio.sleep(0)
                    if hub.breaker != states[-1]:
                        states.append(hub.breaker)
                assert set(states) == {"open", "half-open"}
                assert hub.status()["state"] == "away"
                redis.start()
                await until(lambda: hub.status()["breaker"] == "closed")
        whys = [line["why"] for line in lines if line["event"] == "the hub is away"]
        assert len(whys) == len(set(whys)) <= 2, "the hub logs the lost connection and the refusal once each"
        assert sum(line["event"] == "the hub is reached" for line in lines) == 2

    asyncio.run(play())
