"""A server with malformed answers is no hub: its answers are ignored, the reason is logged, and the edge retries."""

import asyncio
import random
import re
from typing import Any

import pytest

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.directory import hub_push
from edgeproxy.hub import breaker, calls
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import Link
from edgeproxy.hub.report import Cell, Gauge, Period, Report, Window
from edgeproxy.wire import directory_versions
from tests.support.fake_redis import NAMES, Answers, bulk, clock, fake, to
from tests.support.logs import capture_logs
from tests.support.reached_hub import reached, tried, until

SAID = Report(b"k", 1, 1, 1, 2142.0, 60.0, 3, window=Window(10, 28, 1000, (Cell(1000, 3, 0),)))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again at once."""
    monkeypatch.setattr(breaker, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(breaker, "RETRY_SECONDS_MAX", 0.02)


def all_alike(said: bytes) -> Answers:
    return lambda command: said


HEADS = b"*1000000000\r\n"
LACKING = {b"FCALL": b"-ERR Function not found\r\n", b"FUNCTION": bulk(b"0" * 40)}
FIRST: list[tuple[str, Answers, str]] = [
    ("OK", all_alike(b"+OK\r\n"), "answered 'OK' to FCALL: is it a Redis?"),
    ("web", all_alike(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "'HTTP/1.1 400 Bad Request': is it"),
    ("arrays", all_alike(HEADS * 1000), r"'\*1000000000': is it a Redis"),
    ("maps", all_alike(b"%40000\r\n" * 1000), "'%40000': is it a Redis"),
    ("deep", all_alike(b"*1\r\n" * 1000), "arrays in arrays"),
    ("long", all_alike(b"$2000000000\r\n" + b"a" * 1000), r"'\$2000000000': is it a Redis"),
    ("line", all_alike(b"+" + b"a" * 100_000), "'a*': is it a Redis|'.a*': is it a Redis"),
    ("moved to nowhere", all_alike(b"-MOVED\r\n"), "cannot be read"),
    ("key", all_alike(b"%1\r\n*0\r\n:1\r\n"), "cannot be read"),
    ("other library", lambda command: LACKING.get(command[0]), "'0000.* to FUNCTION LOAD"),
    ("push", all_alike(b">1\r\n:1\r\n"), "'>1': is it a Redis"),
]


@pytest.mark.parametrize(("answers", "why"), [case[1:] for case in FIRST], ids=[case[0] for case in FIRST])
def test_hub_that_is_no_redis_is_unavailable(answers: Answers, why: str) -> None:
    async def play() -> None:
        async with fake(answers) as url, tried(url) as hub:
            with capture_logs() as lines:
                await until(lambda: hub.errors >= 5)
            assert (hub.is_up, hub.hosts, hub.offset, hub.breaker == "closed") == (False, 1, None, False)
            assert hub.why is not None
            assert "is it a Redis?" in hub.why or "deep" in hub.why
            with pytest.raises(HubUnavailableError, match=why):
                await hub.report_rate(SAID)
            assert [line["event"] for line in lines] == ["the hub is away"]

    asyncio.run(play())


@pytest.mark.parametrize("user", ["", "edge:s3cret@", ":s3cret@"])
def test_hub_with_an_invalid_greeting_is_unavailable(user: str) -> None:
    async def play() -> None:
        async with fake(all_alike(b"+OK\r\n")) as url, tried(url.replace("//", f"//{user}")) as hub:
            await until(lambda: hub.errors >= 2)
            assert "is it a Redis?" in (hub.why or "")

    asyncio.run(play())


BEATS = {
    "OK": b"+OK\r\n",
    "a string": bulk(b"OK"),
    "a number": b":1\r\n",
    "nothing": b"$-1\r\n",
    "too short": b"*2\r\n:1\r\n:0\r\n",
    "too long": b"*5\r\n:1\r\n:0\r\n:0\r\n" + clock(),
    "bytes as hosts": b"*4\r\n" + bulk(b"1") + b":0\r\n" + clock(),
    "no host": b"*4\r\n:0\r\n:0\r\n" + clock(),
    "fewer than none": b"*4\r\n:-1\r\n:0\r\n" + clock(),
    "more than there are": b"*4\r\n:4294967297\r\n:0\r\n" + clock(),
    "an array as hosts": b"*4\r\n*0\r\n:0\r\n" + clock(),
    "numbers as clock": b"*4\r\n:1\r\n:0\r\n:1735689600\r\n:0\r\n",
    "no clock": b"*4\r\n:1\r\n:0\r\n" + bulk(b"OK") + bulk(b"OK"),
    "an error inside": b"*4\r\n-ERR no\r\n:0\r\n" + clock(),
    "1970": b"*4\r\n:1\r\n:0\r\n" + clock(79.0),
    "2100": b"*4\r\n:1\r\n:0\r\n" + clock(4102444800.0),
}


@pytest.mark.parametrize("said", BEATS.values(), ids=BEATS)
def test_a_heartbeat_that_is_answered_otherwise_is_none(said: bytes) -> None:
    async def play() -> None:
        async with fake(to(calls.HEARTBEAT, said)) as url, tried(url) as hub:
            await until(lambda: hub.errors >= 2)
            assert (hub.is_up, hub.hosts, hub.offset, hub.last_answer_at) == (False, 1, None, 0.0)
            assert "is it a Redis?" in (hub.why or "") or "its clock is wrong" in (hub.why or "")

    asyncio.run(play())


def array(*parts: bytes | int) -> bytes:
    """An answer of a script; numbers are numbers."""
    return b"*%d\r\n" % len(parts) + b"".join(b":%d\r\n" % part if isinstance(part, int) else part for part in parts)


def rate(**other: Any) -> bytes:
    """A rate's answer with something else in it."""
    said = {"known": 1, "hosts": 2, "claims": 0, "foreign": array(1000, 5), "granted": array(1000, 3, 1)}
    said |= {"level": bulk(b"0"), "now": bulk(b"2142.5"), "seconds": bulk(b"1800000000"), "rest": bulk(b"5")}
    assert other.keys() <= said.keys()
    return array(*(said | other).values())


RATES = {
    "text": bulk(b"OK"),
    "hosts": rate(hosts=-1),
    "many hosts": rate(hosts=1 << 40),
    "claims": rate(claims=-1),
    "half a cell": rate(foreign=array(1000)),
    "no cells": rate(foreign=bulk(b"none")),
    "a cell of text": rate(foreign=array(1000, bulk(b"5"))),
    "less than nothing": rate(foreign=array(1000, -5)),
    "two thirds": rate(granted=array(1000, 3)),
    "a claim of nothing": rate(granted=array(1000, b"$-1\r\n", 1)),
    "no level": rate(level=bulk(b"OK")),
    "a level of nan": rate(level=bulk(b"nan")),
    "an infinite level": rate(level=bulk(b"inf")),
    "a number as level": rate(level=5),
    "yesterday": rate(now=bulk(b"2.5")),
    "tomorrow": rate(now=bulk(b"90000")),
    "no clock": rate(seconds=bulk(b"OK")),
    "no more of a clock": rate(rest=5),
    "before there were edges": rate(seconds=bulk(b"%d" % (EPOCH - 1))),
}
TOTALS = {
    "text": bulk(b"OK"),
    "none": b"*2\r\n" + clock(),
    "a period too": b"*4\r\n:7\r\n:0\r\n" + clock(),
    "a text": b"*3\r\n" + bulk(b"x") + clock(),
}
GAUGES = {"text": bulk(b"OK"), "less than nothing": array(-1, 1), "many": array(1, 1 << 40), "short": array(1)}
OTHERS = [
    *[(calls.RATE, what, said) for what, said in RATES.items()],
    *[(calls.PERIOD, what, said) for what, said in TOTALS.items()],
    *[(calls.GAUGE, what, said.replace(b"*2", b"*4", 1) + clock()) for what, said in GAUGES.items()],
]


@pytest.mark.parametrize(
    ("script", "said"),
    [(script, said) for script, _, said in OTHERS],
    ids=[f"{script}, {what}" for script, what, _ in OTHERS],
)
def test_unexpected_report_answer_makes_its_node_unavailable(script: str, said: bytes) -> None:
    async def play() -> None:
        answered = {True: said}

        def answers(command: list[bytes]) -> bytes | None:
            return to(script, answered.pop(True))(command) if True in answered and to(script, b"x")(command) else None

        async with fake(answers) as url, reached(url) as hub:
            offset, asked = (
                hub.offset,
                {calls.RATE: lambda: hub.report_rate(SAID), calls.PERIOD: lambda: hub.report_period(PERIOD)},
            )
            ask = asked.get(script, lambda: hub.report_gauge(GAUGE))
            with pytest.raises(HubUnavailableError):
                await ask()
            assert (hub.errors, hub.hosts, hub.offset) in ((0, 1, offset), (1, 1, None))
            await until(lambda: hub.errors == 1 and hub.is_up)
            await ask()

    asyncio.run(play())


PERIOD, GAUGE = Period(b"q", 1, 7, 5), Gauge(b"g", 1, 3, 1000.0, 1005.0)


def test_answers_that_are_right_are_read() -> None:
    async def play() -> None:
        async with fake(to(calls.RATE, rate())) as url, reached(url) as hub:
            told = await hub.report_rate(SAID)
            assert (told.known, told.hosts, told.foreign, told.granted, told.now) == (
                True,
                2,
                {1000: 5},
                {1000: 3},
                2142.5,
            )
            assert await hub.report_period(PERIOD) == (7, 0)
            assert await hub.report_gauge(GAUGE) == (0, 1)

    asyncio.run(play())


@pytest.mark.parametrize("said", [b"+OK\r\n", b":5\r\n", b"*1\r\n+OK\r\n", b"%1\r\n+a\r\n+b\r\n"])
def test_a_directory_that_is_answered_otherwise_is_none(said: bytes) -> None:
    def answers(command: list[bytes]) -> bytes | None:
        return said if command[0] in (b"LINDEX", b"LRANGE") else None

    async def play() -> None:
        for read in (directory_versions.fetch_last_version, directory_versions.fetch_versions):
            async with fake(answers) as url, reached(url) as hub:
                with pytest.raises((HubUnavailableError, directory_versions.UnreadableDirectoryError)):
                    await read(hub.ask)
                if not said.startswith((b"*", b"+")):
                    await until(lambda hub=hub: hub.errors == 1)  # type: ignore[misc]

    asyncio.run(play())


LINE = directory_versions.Version(1, "a" * 32, True, 1, 10, "b" * 64, 1, 1, 1.8e9)


@pytest.mark.parametrize("other", [{"number": -1}, {"parts": 1 << 60}, {"size": -5}, {"customers": "1"}, {"at": "now"}])
def test_directory_line_with_an_invalid_value_is_unreadable(other: dict[str, Any]) -> None:
    assert directory_versions.parse_version(directory_versions.format_version(LINE)) == LINE
    with pytest.raises(directory_versions.UnreadableDirectoryError):
        directory_versions.parse_version(directory_versions.format_version(LINE._replace(**other)))


@pytest.mark.parametrize(
    ("stage", "commit", "why"),
    [
        (b":7\r\n", b":1\r\n", "has lost what was sent"),
        (b":1\r\n", b":0\r\n", "somebody else has pushed"),
        (b":1\r\n", b":-1\r\n", "has lost what was sent"),
        (b":1\r\n", b":79\r\n", "answered 79 to the last step"),
    ],
)
def test_a_push_that_is_answered_otherwise_is_none(stage: bytes, commit: bytes, why: str) -> None:
    def answers(command: list[bytes]) -> bytes | None:
        scripts = {calls.STAGE: stage, calls.COMMIT: commit}
        if command[0] == b"FCALL":
            return scripts[NAMES[command[1]].decode()]
        return b":0\r\n" if command[0] == b"LLEN" else None

    async def play() -> None:
        async with fake(answers) as url:
            link = await Link.open(url)
            with pytest.raises(hub_push.PushRejectedError, match=why):
                await hub_push.push_lines(link.ask, {"acme": b'{"customer":{"tier":"x"},"keys":{},"name":"acme"}'})
            await link.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "slots",
    [
        b"+OK\r\n",
        array(5),
        array(array(0, 16384, array(bulk(b"127.0.0.1"), 1))),
        array(array(9, 5, array(bulk(b"127.0.0.1"), 1))),
        array(array(0, 16383, array(bulk(b"127.0.0.1"), 0))),
        array(array(0, 16383, array(bulk(b"\xff"), 1))),
        array(array(0, 16383, array(5, 1))),
        array(array(bulk(b"0"), bulk(b"5"), array(bulk(b"127.0.0.1"), 1))),
    ],
)
def test_cluster_without_slots_is_unavailable_and_retried(slots: bytes) -> None:
    asked = 0

    def answers(command: list[bytes]) -> bytes | None:
        nonlocal asked
        asked += command[0] == b"CLUSTER"
        return slots if command[0] == b"CLUSTER" else None

    async def play() -> None:
        async with fake(answers) as url, tried(url.replace("redis:", "redis+cluster:").removesuffix("/0")) as hub:
            await until(lambda: asked >= 3)
            assert not hub.is_up
            assert re.search("to CLUSTER SLOTS: is it a Redis", hub.why or "")
            assert hub.errors >= 2

    asyncio.run(play())


def test_hub_with_changing_errors_is_logged_at_most_three_times(seed: int) -> None:
    chance = random.Random(seed)

    async def play() -> None:
        async with fake(lambda command: chance.randbytes(4096)) as url:
            with capture_logs() as lines:
                async with tried(url) as hub:
                    await until(lambda: hub.errors >= 20)
            assert [line["event"] for line in lines] == ["the hub is away"] * len(lines)
            assert 1 <= len(lines) <= 3

    asyncio.run(play())


def test_unrequested_answer_breaks_the_link() -> None:
    async def play() -> None:
        async with fake(lambda command: b":1\r\n:2\r\n" if command[0] == b"PING" else None) as url:
            link = await Link.open(url)
            assert await link.ask("PING") == 1
            assert await asyncio.wait_for(link.away, 10) == "it answered what was not asked"
            await link.close()

    asyncio.run(play())
