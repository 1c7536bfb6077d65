"""Overload shedding in a simulated loop: the share and the priorities. Then the driver in a real worker's loop.

In the simulation time is an argument, so no test waits. Random draws depend only on the run's seed.
"""

import asyncio
import heapq
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.proxy.exchange.overload import (
    IDLE_SAMPLE_SECONDS,
    QUEUED_PER_TURN,
    REQUESTS_MARGIN,
    REQUESTS_MIN,
    SAMPLE_SECONDS,
    SHARE_MAX,
    STANDING_SAMPLES,
    STANDING_SECONDS,
    LoadShedder,
    Overload,
    find_greedy,
)
from tests.support.http2_wire import http2, opens_websocket
from tests.support.logs import capture_logs
from tests.support.transcript import UNLIMITED, Edge, get, ok
from tests.support.wire import PATIENCE

LAG = 0.05
MANY = 4000
"""The number of open requests that is too many."""

LOW, HIGH = 0, 10

Load = Callable[[float], dict[int, float]]
"""Requests per second by priority at a given time, in multiples of the loop's capacity."""


class Done(NamedTuple):
    """A finished request. `took` is None if it was shed. Times are seconds."""

    came: float
    priority: int
    took: float | None


class Loop:
    """A simulated event loop. In each turn it does the work that was ready when the turn began.

    A request has two steps: its head and, after the upstream has answered, its answer. Shedding it costs less.
    """

    COST = 0.0005
    HEAD, ANSWER = 0.6 * COST, 0.4 * COST

    def __init__(
        self, control: LoadShedder, chance: random.Random, *, upstream: float = 0.005, refusal: float = 0.2
    ) -> None:
        """`upstream` is the seconds until an answer.

        `refusal` is the cost of shedding, as a share of the cost of serving.
        """
        self.control = control
        self._refusal = refusal * self.COST
        self.lags: list[tuple[float, float]] = []
        """Every sample: its time and its delay."""
        self.under_way = 0
        """The highest number of open requests at any sample."""
        self._chance = chance
        self._upstream = upstream

    def run(self, load: Load, seconds: float, *, stalls: Sequence[tuple[float, float]] = ()) -> list[Done]:
        """Serve this load. A stall is (time, duration): the process does not run during it."""
        still = list(reversed(stalls))
        coming = self._arrivals(load, seconds)
        coming.reverse()
        answers: list[tuple[float, float, int]] = []
        done: list[Done] = []
        now, due = 0.0, SAMPLE_SECONDS
        while coming or answers:
            turn = now
            if now >= due:
                self.lags.append((now, now - due))
                self.control.sample(now, now - due, len(answers))
                self.under_way = max(self.under_way, len(answers))
                due = now + SAMPLE_SECONDS
            heads = []
            while coming and coming[-1][0] <= turn:
                heads.append(coming.pop())
            ready = []
            while answers and answers[0][0] <= turn:
                ready.append(heapq.heappop(answers))
            if not heads and not ready:
                now = min([due, *(arrival[0] for arrival in coming[-1:]), *(answer[0] for answer in answers[:1])])
            for came, priority in heads:
                if self.control.is_watching and self.control.should_shed(priority):
                    now += self._refusal
                    done.append(Done(came, priority, None))
                else:
                    now += self.HEAD
                    heapq.heappush(answers, (now + self._upstream, came, priority))
            for _, came, priority in ready:
                now += self.ANSWER
                done.append(Done(came, priority, now - came))
            if still and now >= still[-1][0]:
                now += still.pop()[1]
        return done

    def _arrivals(self, load: Load, seconds: float) -> list[tuple[float, int]]:
        chance = self._chance
        most = max(sum(load(tenth / 10).values()) for tenth in range(int(seconds * 10) + 1)) / self.COST
        arrivals, now = [], 0.0
        while (now := now + chance.expovariate(most)) < seconds:
            drawn = chance.random() * most * self.COST
            for priority, rate in load(now).items():
                if drawn < rate:
                    arrivals.append((now, priority))
                    break
                drawn -= rate
        return arrivals


def between(done: list[Done], start: float, end: float, priority: int) -> list[Done]:
    """Return the requests of a priority that arrived between these times."""
    return [each for each in done if each.priority == priority and start <= each.came < end]


def shed(done: list[Done]) -> float:
    """Return the share of requests that were shed."""
    return sum(each.took is None for each in done) / len(done)


def within(done: list[Done], share: float) -> float:
    """Return the time in seconds within which this share of the served requests finished."""
    took = sorted(each.took for each in done if each.took is not None)
    return took[int(share * (len(took) - 1))]


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


def overloaded(low: float, high: float, *, until: float = 8.0) -> Load:
    """Return a load that is light, then heavy from the first second on, then light again."""
    little = {LOW: 0.2, HIGH: 0.2}
    return lambda now: {LOW: low, HIGH: high} if 1.0 <= now < until else little


# ---- how much, and whom


def test_normal_load_sheds_nothing(chance: random.Random) -> None:
    control = LoadShedder(LAG, MANY)
    done = Loop(control, chance).run(lambda now: {LOW: 0.5, HIGH: 0.4}, 5.0)
    assert not any(each.took is None for each in done)
    assert control.share == 0.0


@pytest.mark.parametrize("refusal", [0.1, 0.5])
def test_overload_sheds_the_low_class_and_serves_the_high_one_in_time(chance: random.Random, refusal: float) -> None:
    """The load is 1.2 times the capacity, so 0.2 is excess. Shedding one request saves 1 - refusal of its cost."""
    loop = Loop(LoadShedder(LAG, MANY), chance, refusal=refusal)
    done = loop.run(overloaded(0.6, 0.6), 8.0)
    high, low = between(done, 3.0, 8.0, HIGH), between(done, 3.0, 8.0, LOW)
    assert shed(high) < 0.01
    assert shed(low) == pytest.approx(0.2 / (1 - refusal) / 0.6, abs=0.08 / (1 - refusal))
    # Head and answer each wait for up to a turn, and a turn is as long as the lag and the time to the next sample.
    assert within(high, 0.5) < 3 * (LAG + SAMPLE_SECONDS)
    assert within(high, 0.99) < 5 * (LAG + SAMPLE_SECONDS)
    # The loop does not shed more than necessary: it always has work to do.
    assert within(low, 0.5) > LAG


def test_the_lag_is_held_near_its_target(chance: random.Random) -> None:
    loop = Loop(LoadShedder(LAG, MANY), chance)
    loop.run(overloaded(1.0, 0.3), 8.0)
    lags = [lag for now, lag in loop.lags if 3.0 <= now < 8.0]
    assert sum(lags) / len(lags) == pytest.approx(LAG, rel=0.25)
    assert max(lags) < 2.5 * LAG


def test_overload_sheds_the_low_priority_class_first(chance: random.Random) -> None:
    """The load is twice the capacity. The loop must shed 1 / 0.8 / 2 of all requests, and half of all are low."""
    done = Loop(LoadShedder(LAG, MANY), chance).run(overloaded(1.0, 1.0), 8.0)
    high, low = between(done, 4.0, 8.0, HIGH), between(done, 4.0, 8.0, LOW)
    assert shed(low) > 0.97
    assert shed(high) == pytest.approx(2 * (1 / 0.8 / 2 - 0.5), abs=0.08)
    assert within(high, 0.99) < 6 * (LAG + SAMPLE_SECONDS)


@pytest.mark.parametrize("upstream", [0.001, 0.1, 0.3])
def test_share_does_not_oscillate_with_slow_upstreams(chance: random.Random, upstream: float) -> None:
    done = Loop(LoadShedder(LAG, MANY), chance, upstream=upstream).run(overloaded(1.0, 0.3), 8.0)
    assert shed(between(done, 4.0, 8.0, HIGH)) < 0.02
    assert within(between(done, 4.0, 8.0, HIGH), 0.99) < upstream + 6 * (LAG + SAMPLE_SECONDS)


# ---- short stalls are no overload


@pytest.mark.parametrize("busy", [0.05, 0.4])
@pytest.mark.parametrize("stall", [0.06, 0.3, 2.0])
def test_single_stall_of_any_length_sheds_nothing(chance: random.Random, busy: float, stall: float) -> None:
    """The loop also sheds none of the requests that queued during the stall, because it catches up alone."""
    loop = Loop(LoadShedder(LAG, MANY), chance)
    done = loop.run(lambda now: {LOW: busy / 2, HIGH: busy / 2}, 6.0, stalls=[(1.0, stall)])
    assert max(lag for _, lag in loop.lags) > stall - SAMPLE_SECONDS
    assert not any(each.took is None for each in done)


def late(control: LoadShedder, lags: list[float], *, requests: int = REQUESTS_MIN, start: float = 100.0) -> list[bool]:
    """Feed samples with these delays to the shedder. Return for each whether requests were shed."""
    now, shedding = start, []
    for lag in lags:
        now += SAMPLE_SECONDS + lag
        control.sample(now, lag, requests)
        shedding.append(control.share > 0.0)
    return shedding


def test_only_a_standing_lag_sheds() -> None:
    control = LoadShedder(LAG, MANY)
    shedding = late(control, [0.06] * 10)
    first = shedding.index(True)
    assert (first - 1) * (SAMPLE_SECONDS + 0.06) < STANDING_SECONDS <= first * (SAMPLE_SECONDS + 0.06)
    assert all(shedding[first:])
    assert not any(late(LoadShedder(LAG, MANY), [0.06, 0.06, 0.06, 0.04] * 10))
    assert not any(late(LoadShedder(LAG, MANY), [0.049] * 100))


def test_lag_without_requests_sheds_nothing() -> None:
    control = LoadShedder(LAG, MANY)
    assert not any(late(control, [0.2] * 50, requests=REQUESTS_MIN - 1))
    assert late(control, [0.2], start=120.0) == [True]


def test_share_falls_at_once_after_an_enormous_lag() -> None:
    control = LoadShedder(LAG, MANY)
    assert late(control, [5.0] * (STANDING_SAMPLES + 1))[-1]
    assert control.share == SHARE_MAX
    late(control, [0.0], start=130.0)
    assert control.share < 0.2


# ---- requests under way


def test_shed_share_follows_the_number_of_active_requests() -> None:
    control = LoadShedder(LAG, 1000)
    shares = []
    for requests in (750, 751, 875, 1000, 9000, 875, 750, 0):
        control.sample(len(shares) * SAMPLE_SECONDS, 0.0, requests)
        shares.append(control.share)
    assert shares == pytest.approx([0.0, 0.001 / REQUESTS_MARGIN, 0.5, SHARE_MAX, SHARE_MAX, 0.5, 0.0, 0.0])


def test_load_shedder_bounds_concurrent_requests_with_slow_upstreams(chance: random.Random) -> None:
    """Upstreams take two seconds and the loop has spare capacity: 0.5 / COST * 2 would be 2000 requests."""
    loop = Loop(LoadShedder(LAG, 500), chance, upstream=2.0)
    done = loop.run(lambda now: {LOW: 0.4, HIGH: 0.1}, 6.0)
    assert 375 < loop.under_way < 750
    assert shed(between(done, 0.0, 6.0, LOW)) > shed(between(done, 0.0, 6.0, HIGH))


# ---- which requests


def pressed(share: float, *, arrivals: dict[int, int] | None = None) -> LoadShedder:
    """Return a shedder that sheds this share and has seen these arrivals."""
    control = LoadShedder(LAG, 100_000)
    requests = round(100_000 * (1 + (share - 1) * REQUESTS_MARGIN))
    for _ in range(60):
        for priority, n in (arrivals or {0: 20}).items():
            for _ in range(n):
                control.should_shed(priority)
        control.sample(0.0, 0.0, requests)
    return control


def asked(control: LoadShedder, *priorities: int, times: int = 100) -> dict[int, int]:
    """Return how many of `times` requests of each priority are shed."""
    return dict(Counter({p: sum(control.should_shed(p) for _ in range(times)) for p in priorities}))


def test_share_of_a_quarter_sheds_every_fourth_request_of_a_priority() -> None:
    control = pressed(0.25)
    control._debt = 0.0
    assert [control.should_shed(0) for _ in range(12)] == [False, False, False, True] * 3


def test_the_share_is_taken_from_the_lowest_priority_upwards() -> None:
    arrivals = {0: 10, 5: 20, 9: 10}
    assert asked(pressed(0.1, arrivals=arrivals), 0, 5, 9) == {0: pytest.approx(40, abs=1), 5: 0, 9: 0}
    assert asked(pressed(0.5, arrivals=arrivals), 0, 5, 9) == {0: 100, 5: pytest.approx(50, abs=1), 9: 0}
    assert asked(pressed(0.8, arrivals=arrivals), 0, 5, 9) == {0: 100, 5: 100, 9: pytest.approx(20, abs=1)}


def test_some_work_always_gets_through_that_of_the_topmost_priority_first() -> None:
    assert asked(pressed(1.0), 0) == {0: pytest.approx(90, abs=1)}
    assert asked(pressed(1.0, arrivals={0: 10, 5: 10}), 0, 5) == {0: 100, 5: pytest.approx(80, abs=1)}
    assert asked(pressed(1.0, arrivals={0: 19, 5: 1}), 0, 5) == {0: pytest.approx(94.7, abs=1), 5: 0}


def test_absent_priority_does_not_affect_shedding() -> None:
    control = LoadShedder(LAG, 1000)
    for n in range(400):
        for priority in (0, 10) if n < 50 else (0,):
            for _ in range(20):
                control.should_shed(priority)
        control.sample(n * SAMPLE_SECONDS, 0.0, 2000)
    assert asked(control, 0) == {0: pytest.approx(90, abs=1)}


def test_priorities_are_watched_before_shedding_starts() -> None:
    """The shedder counts priorities after the first sample with too long a lag.

    Counting is cheap. Without counts the shedder would need another turn before it could shed.
    """
    control = LoadShedder(LAG, MANY)
    assert not control.is_watching
    late(control, [0.2])
    assert control.is_watching
    assert asked(control, 7, times=20) == {7: 0}
    late(control, [0.2, 0.2], start=101.0)
    assert asked(control, 5, 7, 9, times=20) == {5: 20, 7: pytest.approx(15, abs=4), 9: 0}


def test_new_priority_is_ranked_between_known_ones() -> None:
    control = pressed(0.5, arrivals={10: 10, 20: 10, 30: 10})
    assert (control.should_shed(5), control.should_shed(15)) == (True, True)
    assert (control.should_shed(25), control.should_shed(40)) == (False, False)


@given(
    samples=st.lists(
        st.tuples(
            st.floats(0.0, 5.0),
            st.integers(0, 3000),
            st.dictionaries(st.integers(0, 6), st.integers(1, 30), max_size=4),
        ),
        max_size=60,
    )
)
def test_no_request_is_shed_while_a_lower_priority_passes(
    samples: list[tuple[float, int, dict[int, int]]],
) -> None:
    control, now = LoadShedder(LAG, 1000), 0.0
    for lag, requests, arrivals in samples:
        now += SAMPLE_SECONDS + lag
        control.sample(now, lag, requests)
        assert 0.0 <= control.share <= SHARE_MAX
        assert len(control._recent) <= 7
        verdicts = {p: {control.should_shed(p) for _ in range(n)} for p, n in arrivals.items()}
        for priority, verdict in verdicts.items():
            if True in verdict:
                assert control.share > 0.0
                assert all(lower == {True} for p, lower in verdicts.items() if p < priority)


# ---- in a worker


class Seen(LoadShedder):
    """A shedder that records its samples."""

    def __init__(self) -> None:
        super().__init__(LAG, MANY)
        self.samples: list[tuple[float, float, int]] = []

    def sample(self, now: float, late: float, requests: int) -> None:
        self.samples.append((now, late, requests))
        super().sample(now, late, requests)

    def periods(self) -> list[float]:
        """Return the seconds from each sample to the due time of the next one."""
        return [now - late - before for (before, *_), (now, late, _) in pairwise(self.samples)]


async def test_idle_worker_samples_less_often_than_a_busy_one(edge: Edge) -> None:
    await edge.starts()
    over, endpoint = edge.runtime.overload, edge.endpoint()
    idle, busy = Seen(), Seen()
    over._control = idle
    await edge.until(lambda: len(idle.samples) >= 5)
    assert min(idle.periods()) == pytest.approx(IDLE_SAMPLE_SECONDS, abs=0.002)
    assert {requests for *_, requests in idle.samples} == {0}
    assert min(late for _, late, _ in idle.samples) < LAG
    assert not over.shedding
    endpoint.outstanding += REQUESTS_MIN
    over._control = busy
    await edge.until(lambda: len(busy.samples) >= 5)
    assert min(busy.periods()) == pytest.approx(SAMPLE_SECONDS, abs=0.002)
    endpoint.outstanding -= REQUESTS_MIN
    over.stop()
    assert over._timer is not None
    assert over._timer.cancelled()


async def test_overload_that_never_started_can_change_bounds_and_stop(edge: Edge) -> None:
    await edge.starts()
    nothing: dict[str, Any] = {"time_turn": lambda: None, "observe_lag": lambda _: None}
    over = Overload(edge.worker.generations.count_requests, lambda: 0, edge.worker.take_queued, **nothing)
    over.change_bounds(edge.runtime.snapshot.overload)
    over.stop()
    assert not over.shedding


async def test_a_loop_that_lags_sheds_until_it_lags_no_longer(edge: Edge) -> None:
    edge.config["tiers"]["free"]["priority"] = 5
    await edge.starts()
    endpoint = edge.endpoint()
    endpoint.outstanding += REQUESTS_MIN
    over = edge.runtime.overload
    lags = edge.runtime.metrics.loop_lag_seconds()
    loop = asyncio.get_running_loop()
    busy = True

    def work() -> None:
        time.sleep(0.08)
        if busy:
            loop.call_later(0.0, work)

    with capture_logs() as said:
        work()
        await edge.until(lambda: over._control.share, "a loop that lags sheds")
        assert over.shedding
        edge.runtime.metrics.settle()
        assert lags._sum > 0.05e9
        busy = False
        await edge.until(lambda: not over.shedding, "a loop that does not lag sheds nothing")
    endpoint.outstanding -= REQUESTS_MIN
    assert [line["event"] for line in said if line["event"] == "requests are shed"] == ["requests are shed"]


async def test_too_many_requests_under_way_shed_the_lowest_first(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 100}
    edge.config["tiers"]["free"]["priority"] = 5
    await edge.starts()
    over, endpoint = edge.runtime.overload, edge.endpoint()
    endpoint.outstanding += 85
    await edge.until(lambda: over.shedding)
    assert [over.should_shed(5, b"") for _ in range(20)] == [False] * 20
    assert any(over.should_shed(0, b"") for _ in range(20))
    endpoint.outstanding -= 85
    await edge.until(lambda: not over.shedding)


async def test_burst_admits_at_most_the_configured_open_requests(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 4}
    clients = [await edge.client() for _ in range(60)]
    for client in clients:
        await client.sends(get())
    upstreams = [await edge.upstream.accepts() for _ in range(4)]
    for upstream in upstreams:
        await upstream.gets_request()
    await edge.until(lambda: edge.count("edge_shed_total", "0") == 56, "all others are refused")
    assert not edge.upstream.is_asked()
    for upstream in upstreams:
        await upstream.sends(ok())
    statuses = Counter([(await client.gets_answer()).status for client in clients])
    assert statuses == {200: 4, 503: 56}
    # All connections are still open, and idle ones do not count as requests.
    await clients[-1].sends(get())
    served = await upstreams[-1].gets_request()
    assert served.first == "GET /public/ HTTP/1.1"
    await upstreams[-1].sends(ok())
    assert (await clients[-1].gets_answer()).status == 200


async def test_streams_of_one_connection_are_held_to_the_same_bound(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 4}
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client = await http2(edge)
    streams = [await client.begins_request("GET", "/public/") for _ in range(60)]
    upstreams = [await edge.upstream.takes() for _ in range(4)]
    await edge.until(lambda: edge.count("edge_shed_total", "0") == 56, "all others are refused")
    assert not edge.upstream.is_asked()
    for upstream in upstreams:
        await upstream.sends(ok())
    statuses = Counter([(await client.answer_of(stream)).status for stream in streams])
    assert statuses == {200: 4, 503: 56}


async def test_an_address_with_most_requests_leaves_room_for_the_others(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 64}
    client, other = await edge.client("127.0.0.1"), await edge.client("127.0.0.2")
    upstream = await edge.brings(client, get())
    over, endpoint = edge.runtime.overload, edge.endpoint()
    ((greedy, count),) = edge.runtime.connections.count_by_address().items()
    assert count == 1
    # Opening as many connections would make the test slow.
    over._clients = lambda: 100
    over._count_by_address = lambda: Counter({greedy: 64})
    endpoint.outstanding += 63
    await edge.until(lambda: over._greedy == {greedy}, "the address is above the level")
    again = await edge.client("127.0.0.1")
    assert (await again.asks(get())).status == 503
    edge.upstream.answers(lambda request: ok())
    edge.upstream.begins()
    assert (await other.asks(get())).status == 200
    endpoint.outstanding += 8
    assert (await other.asks(get())).status == 503
    endpoint.outstanding -= 63 + 8
    await edge.until(lambda: not over._greedy, "the bound is far")
    assert (await upstream.tells(client, ok())).status == 200


async def test_tunnels_do_not_count_as_requests_of_their_address(edge: Edge) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["routes"].append({"name": "ws", "path": "/ws", "upstream": "api", "auth": "none"})
    client = await http2(edge)
    number, tunnel = await opens_websocket(edge, client)
    await client.head_of(number)
    assert not edge.runtime.connections.count_by_address()
    numbers = [await client.begins_request("GET", "/public/") for _ in range(3)]
    upstreams = [await edge.upstream.takes() for _ in numbers]
    assert [*edge.runtime.connections.count_by_address().values()] == [3]
    for upstream in upstreams:
        await upstream.sends(ok())
    assert {(await client.answer_of(number)).status for number in numbers} == {200}
    tunnel.closes()


@given(st.dictionaries(st.binary(min_size=4, max_size=4), st.integers(1, 5000), max_size=40), st.integers(1, 10_000))
def test_an_address_is_greedy_above_the_level_alone(counts: dict[bytes, int], total: int) -> None:
    greedy = find_greedy(Counter(counts), total)
    if sum(counts.values()) <= total:
        assert not greedy
        return
    modest = sum(count for address, count in counts.items() if address not in greedy)
    level = (total - modest) / len(greedy)
    assert {address for address, count in counts.items() if count > level} == greedy


async def test_reload_changes_the_bound_of_open_requests(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 100}
    await edge.starts()
    over, endpoint = edge.runtime.overload, edge.endpoint()
    endpoint.outstanding += 200
    await edge.until(lambda: over.shedding)
    control = over._control
    edge.config["overload"] = {"requests": 1000}
    await edge.reloads()
    assert over.shedding
    assert over._control is control
    await edge.until(lambda: not over.shedding)
    endpoint.outstanding -= 200


async def test_shed_request_answers_503_with_retry_after(edge: Edge) -> None:
    edge.config["overload"] = {"requests": 100}
    edge.config["tiers"]["free"]["priority"] = 5
    edge.upstream.answers(lambda request: ok())
    await edge.starts()
    over, endpoint = edge.runtime.overload, edge.endpoint()
    endpoint.outstanding += 87
    await edge.until(lambda: over.shedding)
    answers = []
    client = await edge.client()
    for _ in range(10):
        answers.append(await client.asks(get()))
    refused = [answer for answer in answers if answer.status == 503]
    assert refused
    assert {answer["Retry-After"] for answer in refused} == {"1"}
    assert edge.count("edge_shed_total", "0") == len(refused)
    # The other requests share this connection. A refusal does not affect it.
    assert {answer.status for answer in answers} <= {200, 503}
    for _ in range(10):
        assert (await client.asks(get("/v1/x", f"X-API-Key: {UNLIMITED}"))).status == 200
    assert edge.count("edge_shed_total", "5") == 0
    endpoint.outstanding -= 87


async def test_queued_connections_are_accepted_in_one_turn(edge: Edge) -> None:
    """By default asyncio accepts one connection per turn: the last of fifty would wait for fifty long turns."""
    await edge.starts()
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(edge.address, timeout=PATIENCE)) for _ in range(50)]
        edge.worker.take_queued(QUEUED_PER_TURN)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(edge.runtime.connections.clients) == len(waiting)
    await edge.until(lambda: not edge.runtime.connections.clients, "all clients have left")


async def test_departed_queued_clients_take_no_slot(edge: Edge) -> None:
    await edge.starts()
    for _ in range(7):
        socket.create_connection(edge.address, timeout=PATIENCE).close()
    with socket.create_connection(edge.address, timeout=PATIENCE):
        edge.worker.take_queued(1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(edge.runtime.connections.clients) == 1
    await edge.until(lambda: not edge.runtime.connections.clients, "all have left")
