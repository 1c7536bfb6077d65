"""The scripts in a real Redis answer like the hub in memory, for any reports of hosts in any order."""

import random
from typing import Any

import pytest
import redis

from edgeproxy.hub.calls import (
    GAUGE,
    PERIOD,
    RATE,
    build_gauge_call,
    build_period_call,
    build_rate_call,
    parse_gauge_answer,
    parse_period_answer,
    parse_rate_answer,
)
from edgeproxy.hub.functions import LIBRARY
from edgeproxy.hub.report import Bucket, Cell, Gauge, Period, Report, ReportAnswer, Window
from loadtest.testbed.memory_hub import Memory

KEYS = 60
STEPS = 40


class Server:
    """The scripts in Redis."""

    def __init__(self, port: int) -> None:
        self.client: Any = redis.Redis(port=port)
        self.client.flushall()
        self.client.function_load(LIBRARY.text, replace=True)

    def run(self, name: str, call: tuple[list[bytes], list[Any]]) -> Any:
        return self.client.fcall(LIBRARY.functions[name], len(call[0]), *call[0], *call[1])


@pytest.fixture
def server(redis_port: int) -> Server:
    return Server(redis_port)


def test_rate_script_equals_the_memory_hub(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(KEYS):
        hub = Memory()
        for report in reports(chance, b"rate-%d" % number):
            expected = hub.report(report)
            assert parse_rate_answer(server.run(RATE, build_rate_call(report)), report) == plain(expected), report


def plain(told: ReportAnswer) -> ReportAnswer:
    """Return the answer without unsettled cells: the script leaves them out."""
    return told._replace(settled={cell: many for cell, many in told.settled.items() if many})


def reports(chance: random.Random, key: bytes) -> list[Report]:
    """Return random reports of three hosts: late, repeated, with differing clocks, or after a row restarted."""
    kind = chance.choice(("window", "bucket", "both"))
    cells = chance.choice((3, 28))
    now = 50_000_000.0
    seqs, cums, spents = [0] * 3, [0] * 3, [0] * 3
    used: dict[tuple[int, int], int] = {}
    made = []
    for _ in range(STEPS):
        host = chance.randrange(3)
        now += chance.choice((0, 0.1, 1, 5, 90, 0, 0.1, 1, 5, 90, -400))
        cell = int(now / 2) + chance.choice((0, 0, 1, -1))
        seqs[host] += chance.choice((0, 1, 1, 1))
        cums[host] += chance.randrange(5)
        spents[host] += chance.randrange(3)
        changed = {}
        for _ in range(chance.randrange(4)):
            of = cell - chance.randrange(cells + 4)
            used[host, of] = used.get((host, of), 0) + chance.randrange(4)
            changed[of] = Cell(of, used[host, of], chance.randrange(3))
        window = Window(chance.choice((5, 20)), cells, cell, tuple(changed.values()))
        bucket = Bucket(10, chance.choice((0.5, 2.0)), chance.random() * 5, chance.choice((0.0, 1.5)))
        made.append(
            Report(
                key,
                host + 1,
                seqs[host],
                chance.choice((1, 1, 1, 1, 2)),
                now + chance.choice((0, -0.3)),
                float(cells * 2),
                cums[host],
                spents[host],
                chance.choice((0, 0, 3, 10)),
                None if kind == "bucket" else window,
                None if kind == "window" else bucket,
            )
        )
    return made


def test_counts_of_a_clock_that_was_ahead_take_no_room(server: Server) -> None:
    hub = Memory()
    for hour, instance in ((3600.0, 1), (0.0, 2)):
        now = 50_000_000.0 + hour
        window = Window(20, 28, int(now), (Cell(int(now), 20, 0),) if hour else ())
        bucket = Bucket(20, 0.5, 0.0, 20.0 if hour else 0.0)
        for key, kind in ((b"window", (window, None)), (b"bucket", (None, bucket))):
            said = Report(key, instance, 1, 1, now, 60.0, 20 if hour else 0, 0, 0 if hour else 5, *kind)
            told = parse_rate_answer(server.run(RATE, build_rate_call(said)), said)
            assert told == plain(hub.report(said))
            if instance == 2 and key == b"window":
                assert (told.claims, told.foreign) == (5, {})
    later = Report(b"bucket", 2, 2, 1, 50_000_100.0, 60.0, 0, 0, 5, None, Bucket(20, 0.5, 0.0, 0.0))
    told = parse_rate_answer(server.run(RATE, build_rate_call(later)), later)
    assert told == plain(hub.report(later))
    assert told.claims == 5, "it drains again"


def test_quota_script_equals_the_memory_hub(server: Server, seed: int) -> None:
    chance, hub = random.Random(seed), Memory()
    for _ in range(400):
        key, period = b"quota-%d" % chance.randrange(3), chance.randrange(1, 4)
        said = Period(key, chance.randrange(3), period, chance.randrange(9))
        assert parse_period_answer(server.run(PERIOD, build_period_call(said)), said) == hub.period(said), said


@pytest.mark.parametrize("period", [1, 24_324, 739_944])
def test_a_period_that_is_far_ahead_is_nobodys(server: Server, period: int) -> None:
    """As the edges' user of the hub can report it, or write it."""

    def count(instance: int, of: int, amount: int) -> int:
        said = Period(b"k", instance, of, amount)
        return parse_period_answer(server.run(PERIOD, build_period_call(said)), said).others

    for ahead in (period + 1, 1 << 22, 1 << 53):
        count(9, ahead, 10**9)
    assert [count(1, period, 5), count(2, period, 7), count(1, period, 6)] == [0, 5, 7]


def test_gauge_script_agrees_with_the_hub_in_memory(server: Server, seed: int) -> None:
    chance, hub, now = random.Random(seed), Memory(), 50_000_000.0
    for _ in range(400):
        now += chance.choice((0, 0.5, 3))
        until = now + chance.choice((2.0, 5.0))
        said = Gauge(b"gauge-%d" % chance.randrange(3), chance.randrange(3), chance.randrange(4), now, until)
        assert parse_gauge_answer(server.run(GAUGE, build_gauge_call(said))) == hub.gauge(said), said


def test_gauge_with_a_far_future_expiry_is_forgotten(server: Server) -> None:
    """The edges' Redis user can report such an expiry, and so can a host with a wrong clock."""
    hub, now, answers = Memory(), 50_000_000.0, []
    for instance, seconds in ((1, 300 * 86400.0), (2, 5.0), (3, 5.0)):
        said = Gauge(b"gauge", instance, 7, now, now + seconds)
        answers.append(parse_gauge_answer(server.run(GAUGE, build_gauge_call(said))))
        assert answers[-1] == hub.gauge(said)
    assert [answer.others for answer in answers] == [0, 0, 7]


def test_every_key_has_an_end(server: Server) -> None:
    window = Window(5, 28, 1000, (Cell(1000, 1, 0),))
    server.run(RATE, build_rate_call(Report(b"k", 1, 1, 1, 2000.0, 60.0, 1, window=window)))
    server.run(PERIOD, build_period_call(Period(b"k", 1, 3, 1)))
    server.run(GAUGE, build_gauge_call(Gauge(b"k", 1, 1, 2000.0, 2005.0)))
    keys = server.client.keys()
    assert sorted(keys) == [b"rl:{k}:gauge", b"rl:{k}:host:1", b"rl:{k}:quota:3", b"rl:{k}:quota:3:1", b"rl:{k}:total"]
    assert all(server.client.ttl(key) > 0 for key in keys)


def test_deleted_totals_are_reported_again_by_each_host(server: Server) -> None:
    def report(host: int, seq: int) -> ReportAnswer:
        said = Report(b"k", host, seq, 1, 2000.0, 60.0, 5, window=Window(100, 28, 1000, (Cell(1000, 5, 0),)))
        return parse_rate_answer(server.run(RATE, build_rate_call(said)), said)

    def count(host: int) -> int:
        said = Period(b"k", host, 3, 7)
        return parse_period_answer(server.run(PERIOD, build_period_call(said)), said).others

    hosts = range(1, 4)
    for seq in (1, 2):
        for host in hosts:
            report(host, seq)
            count(host)
    for key in (b"rl:{k}:total", b"rl:{k}:quota:3"):
        server.client.delete(key)
    # The hub still has the hosts' own keys, but they belong to the deleted totals.
    assert [report(host, 3).known for host in hosts] == [False] * 3
    assert [report(host, 4).foreign for host in hosts] == [{1000: 10}] * 3
    assert [count(host) for host in hosts] == [0, 7, 14]
    assert [count(host) for host in hosts] == [14] * 3
