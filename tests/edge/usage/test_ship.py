"""Shipping, with a collector that judges as the real one, and networks that lose, double, delay and make up answers."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from edgeproxy.edge.usage import ship
from edgeproxy.edge.usage.answer import RESULTS, Reply
from edgeproxy.edge.usage.backlog import REMOVED
from edgeproxy.edge.usage.ship import Send, Shipper
from edgeproxy.edge.usage.spool import DiscardedRange, Spool, fetch_watermark, list_segments, record_discarded
from edgeproxy.wire.batch import Batch, parse_batch
from loadtest.testbed.sealing import NOW, acknowledge
from tests.edge.usage.peer import Peer, append, inline
from tests.support.logs import capture_logs


class Network:
    """What is between: answers that are made up come first, then the collector's. `clock` stands still."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.answers: list[Reply | OSError] = []
        self.now = NOW

    def says(self, *answers: tuple[int, object] | OSError, retry_after: float | None = None) -> None:
        """Answer so, instead of the collector."""
        self.answers += [
            one if isinstance(one, OSError) else Reply(one[0], orjson.dumps(one[1]), retry_after) for one in answers
        ]

    async def send(self, batch: Batch, body: bytes) -> Reply:
        if not self.answers:
            return self.peer.take(batch, body)
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def clock(self) -> float:
        return self.now


class Edge:
    """A spool, who ships it, and a collector behind a network."""

    def __init__(self, folder: Path) -> None:
        self.peer = Peer()
        self.network = Network(self.peer)
        self.spool = Spool.open(folder)
        self.shipper = self.another()

    def another(self, send: Send | None = None) -> Shipper:
        """Another one who ships."""
        made = Shipper(
            self.spool, send or self.network.send, clock=self.network.clock, chance=random.Random(1), aside=inline
        )
        self.shipper = made
        return made

    def reopen(self) -> None:
        """As after a crash: nothing is known but what the disk has."""
        self.spool.close()
        self.spool = Spool.open(self.spool.folder)
        self.another()

    def steps(self, most: int = 1000) -> list[float]:
        """Step until it waits, or so often; what the steps returned."""
        found: list[float] = []
        while len(found) < most and (not found or found[-1] == 0.0):
            found.append(step(self.shipper))
        return found

    @property
    def state(self) -> str:
        return self.shipper.status.state

    def results(self) -> dict[str, int]:
        """What came of sending, as far as it happened."""
        assert tuple(self.shipper.status.results) == RESULTS
        return {result: times for result, times in self.shipper.status.results.items() if times}


def step(shipper: Shipper) -> float:
    """One step, which has nothing to wait for here, so that it takes no event loop."""
    try:
        shipper.step().send(None)
    except StopIteration as returned:
        seconds: float = returned.value
        return seconds
    raise AssertionError("it waits")


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 480)
    edge = Edge(tmp_path / "spool")
    yield edge
    edge.spool.close()


def test_while_it_catches_up_the_watermark_is_written_once_a_second(edge: Edge) -> None:
    append(edge.spool, 20)
    written = []
    for number in range(20):
        edge.network.now = NOW + number * 0.25
        edge.steps(1)
        written.append(fetch_watermark(edge.spool.folder))
    assert written == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 4 + [16] * 4
    # Whoever comes after ships a few again, one of which tells it how far the collector is.
    edge.reopen()
    assert edge.spool.watermark == 16
    edge.steps()
    assert edge.peer.asked[20:] == [17]
    assert fetch_watermark(edge.spool.folder) == 20


@pytest.mark.parametrize(
    ("answer", "result", "why"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "unreachable",
            "nobody answers: [Errno 111] Connection refused",
        ),
        (TimeoutError(), "unreachable", "nobody answers: TimeoutError"),
        ((503, {"detail": "the database"}), "failed", "the collector answers 503: the database"),
        ((429, {}), "busy", "the collector answers 429"),
        ((401, {"detail": "who?"}), "refused", "the collector answers 401: who?"),
        ((200, [1]), "refused", "the collector answers 200"),
    ],
)
def test_what_fails_is_tried_again(edge: Edge, answer: tuple[int, object] | OSError, result: str, why: str) -> None:
    append(edge.spool, 2)
    with capture_logs() as said:
        for times in range(12):
            edge.network.now = NOW + times
            edge.network.says(answer)
            (seconds,) = edge.steps()
            assert 0 < seconds <= min(30.0, 0.1 * 2**times)
            assert edge.shipper.status[:3] == ("waiting", why, NOW)
    assert edge.results() == {result: 12}
    assert edge.peer.asked == []
    assert edge.steps() == [0.0, 0.0, math.inf]
    assert edge.peer.asked == [1, 2]
    # It was said once, and begins at the beginning the next time.
    assert [one["event"] for one in said] == ["shipping waits"]
    append(edge.spool)
    edge.network.says(answer)
    assert edge.steps()[0] <= 0.1


def test_a_retry_after_is_heeded_within_reason(edge: Edge) -> None:
    append(edge.spool)
    edge.network.says((429, {}), retry_after=7.0)
    assert 7.0 <= edge.steps()[0] <= 7.1
    edge.network.says((503, {}), retry_after=1e9)
    assert 300.0 <= edge.steps()[0] <= 300.2


def test_a_batch_that_cannot_be_read_there_does_not_block_the_others(edge: Edge) -> None:
    append(edge.spool, 4)
    edge.peer.unreadable[2] = 2
    with capture_logs() as said:
        edge.steps()
    assert edge.results() == {"acknowledged": 3, "quarantined": 2}
    assert edge.peer.asked == [1, 2, 2, 3, 4]
    assert edge.peer.values == {1: 1, 3: 3, 4: 4}
    (one,) = said
    assert (one["event"], one["first"], one["what"]) == ("batches are not counted", 2, "quarantined")
    assert one["why"] == "batch 2: cannot be read"


def test_what_is_gone_by_then_becomes_a_gap(edge: Edge) -> None:
    append(edge.spool, 2)
    edge.steps()
    kept = edge.peer.backup()
    append(edge.spool, 8)
    edge.steps()
    edge.spool.prune(NOW, retention_bytes=0)
    edge.peer.restore(kept)
    append(edge.spool)
    with capture_logs() as said:
        edge.steps()
    assert edge.peer.asked[10:] == [11, 3, 10, 11]
    gap = parse_batch(edge.peer.has[3])
    assert gap.gap is not None
    assert (gap.gap.from_seq, gap.gap.to_seq) == (3, 9)
    assert edge.results() == {"acknowledged": 12, "expected": 1, "gap": 1}
    assert [one["event"] for one in said] == ["the collector lacks what it had", "batches are not counted"]
    assert (said[1]["first"], said[1]["last"], said[1]["why"]) == (3, 9, REMOVED)
    # One that was restored once more has the same gap, or none.
    edge.peer.restore(kept)
    append(edge.spool)
    edge.steps()
    assert edge.state == "idle"
    assert parse_batch(edge.peer.has[3]) == gap


def test_a_gap_of_what_the_collector_has_after_all_is_no_fork(edge: Edge) -> None:
    """As when it was restored from a better backup than the one from which it had asked."""
    append(edge.spool, 5)
    edge.steps()
    kept = edge.peer.backup()
    append(edge.spool, 5)
    edge.steps()
    edge.spool.prune(NOW, retention_bytes=0)
    acknowledge(edge.spool, 2)
    edge.peer.restore(kept)
    edge.another()
    edge.steps()
    assert edge.peer.asked[10:] == [3, 6, 10]
    assert [edge.peer.has[seq] == edge.peer.has[seq] for seq in range(1, 7)]
    gap = parse_batch(edge.peer.has[6])
    assert gap.gap is not None
    assert (gap.gap.from_seq, gap.gap.to_seq) == (6, 9)
    assert edge.state == "idle"


@pytest.mark.parametrize("way", ["fork", "chain", "ahead"])
def test_where_another_ships_as_this_edge_it_stops_for_good(edge: Edge, tmp_path: Path, way: str) -> None:
    other = Edge(tmp_path / "other")
    other.peer = other.network.peer = edge.peer
    append(other.spool, {"fork": 3, "chain": 2, "ahead": 9}[way], (("acme", "requests", "v1", 77),))
    other.steps()
    other.spool.close()
    append(edge.spool, 4)
    if way == "chain":
        acknowledge(edge.spool, 2)
        edge.another()
    with capture_logs() as said:
        assert edge.steps() == [math.inf]
        assert edge.steps() == [math.inf]
    assert edge.results() == {way: 1}
    standing = edge.shipper.status
    assert standing.state == "stopped"
    assert standing.pending.batches == (2 if way == "chain" else 4)
    assert [(one["event"], one["why"]) for one in said] == [("shipping has stopped", standing.why)]
    # Sealing goes on, and somebody may have it tried again.
    append(edge.spool)
    edge.another()
    assert edge.steps() == [math.inf]
    assert edge.results() == {way: 1}


def test_damage_stops_shipping_and_names_the_place_until_somebody_owns_up(edge: Edge) -> None:
    append(edge.spool, 8)
    path = list_segments(edge.spool.folder)[1]
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    assert edge.steps() == [0.0, 0.0, 0.0, 30.0]
    assert edge.state == "stopped"
    assert edge.shipper.status.why.startswith(f"{path}:16: has another checksum")
    append(edge.spool)
    with capture_logs() as said:
        assert edge.steps() == [30.0]
    assert said == []
    assert edge.shipper.status.pending == (6, 4 + 5 + 6 + 7 + 8 + 9, int(NOW) + 4)
    record_discarded(edge.spool.folder, (DiscardedRange(4, 4, "was damaged"),))
    edge.steps()
    assert edge.peer.asked == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert edge.results() == {"acknowledged": 8, "gap": 1}
    assert edge.peer.values.total() == sum(range(1, 10)) - 4
    assert edge.state == "idle"


def test_a_spool_that_cannot_be_read_now_is_read_later(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    append(edge.spool, 4)
    with monkeypatch.context() as patched:
        patched.setattr("os.pread", fail)
        assert edge.steps()[-1] > 0
        assert edge.shipper.status.why == "the spool cannot be read: [Errno 5] Input/output error"
    edge.steps()
    assert edge.peer.asked == [1, 2, 3, 4]


def test_a_watermark_that_cannot_be_written_does_not_stop_shipping(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    append(edge.spool, 4)
    with monkeypatch.context() as patched, capture_logs() as said:
        patched.setattr("edgeproxy.edge.usage.spool.write_whole", fail)
        edge.steps()
        assert (edge.state, edge.spool.watermark, fetch_watermark(edge.spool.folder)) == ("idle", 4, 0)
        # But nothing is shipped anew of which the disk does not know.
        edge.peer.restore(Peer().backup())
        append(edge.spool)
        assert edge.steps()[-1] > 0
        assert edge.shipper.status.why.startswith("the watermark cannot be moved: ")
    assert [one["event"] for one in said] == ["the watermark cannot be written"]
    edge.steps()
    assert edge.peer.asked == [1, 2, 3, 4, 5, 5, 1, 2, 3, 4, 5]
    assert fetch_watermark(edge.spool.folder) == 5


def fail(*_: object) -> bytes:
    raise OSError(5, "Input/output error")


def test_what_was_shipped_long_ago_is_removed(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    append(edge.spool, 8)
    edge.steps()
    assert len(list_segments(edge.spool.folder)) == 3
    # Whatever stands on the files.
    edge.network.now = list_segments(edge.spool.folder)[-1].stat().st_mtime + 8 * 86400
    with monkeypatch.context() as patched, capture_logs() as said:
        patched.setattr(Path, "unlink", fail)
        edge.steps()
    assert [one["event"] for one in said] == ["what was shipped cannot be removed"]
    edge.network.now += 61
    edge.steps()
    assert [path.name for path in list_segments(edge.spool.folder)] == ["0000000007.seg"]


def test_two_collectors_under_one_address_are_not_asked_in_a_hurry(edge: Edge) -> None:
    """One of them has lost what the other one has; whose answer comes is left to chance."""
    append(edge.spool, 9)
    edge.steps()
    append(edge.spool)
    waited = []
    for _ in range(40):
        edge.network.says((409, {"error": "gap", "expected": 3}), (200, {"watermark": 9}))
        waited += edge.steps(2)
    assert waited[0] == 0.0
    assert sum(waited) > 60


# ---- as it runs


def running(edge: Edge, work: Callable[[Shipper], "asyncio.Future[None] | object"]) -> None:
    """Have it run while `work`, a coroutine function, is at work."""

    async def both() -> None:
        task = asyncio.get_running_loop().create_task(edge.shipper.run())
        try:
            async with asyncio.timeout(10):
                await work(edge.shipper)  # type: ignore[misc]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(both())


def threaded(edge: Edge, send: Send | None = None) -> None:
    edge.shipper = Shipper(edge.spool, send or edge.network.send)


async def until(what: Callable[[], bool]) -> None:
    """Wait for it; `running` sets the deadline."""
    while not what():  # noqa: ASYNC110, what it waits for happens in threads too
        await asyncio.sleep(0.001)


def test_it_wakes_when_something_was_sealed(edge: Edge) -> None:
    threaded(edge)

    async def work(shipper: Shipper) -> None:
        for number in range(1, 6):
            await until(lambda: shipper.status.state == "idle")
            append(edge.spool)
            shipper.wake()
            await until(lambda number=number: edge.spool.watermark == number)  # type: ignore[misc]

    running(edge, work)
    assert edge.peer.asked == [1, 2, 3, 4, 5]
    assert fetch_watermark(edge.spool.folder) == 5


def test_what_is_sealed_does_not_hurry_what_failed(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "RETRY_SECONDS_FIRST", 1e9)
    monkeypatch.setattr(ship, "RETRY_SECONDS_MAX", 1e9)
    threaded(edge)

    async def work(shipper: Shipper) -> None:
        edge.network.says(*[(503, {})] * 9)
        append(edge.spool)
        shipper.wake()
        await until(lambda: shipper.status.state == "waiting")
        for _ in range(20):
            shipper.wake()
            await asyncio.sleep(0)
        assert len(edge.network.answers) == 8
        # The end does.
        del edge.network.answers[1:]
        assert not await shipper.finish(0.02)
        assert edge.network.answers == []
        assert await shipper.finish(5.0)

    running(edge, work)
    assert edge.peer.asked == [1]


def test_whoever_is_cancelled_in_the_midst_of_it_says_how_far_it_has_come(edge: Edge) -> None:
    edge.network.now = NOW

    async def some(batch: Batch, body: bytes) -> Reply:
        if batch.seq > 3:
            await asyncio.Event().wait()
        return edge.peer.take(batch, body)

    edge.shipper = Shipper(edge.spool, some, clock=edge.network.clock)
    append(edge.spool, 9)

    async def work(shipper: Shipper) -> None:
        await until(lambda: edge.spool.watermark == 3)
        assert fetch_watermark(edge.spool.folder) == 0

    running(edge, work)
    assert fetch_watermark(edge.spool.folder) == 3


def test_at_the_end_nobody_waits_for_a_collector_that_does_not_answer(edge: Edge) -> None:
    async def never(batch: Batch, body: bytes) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    threaded(edge, never)

    async def work(shipper: Shipper) -> None:
        append(edge.spool)
        assert not await shipper.finish(0.02)

    running(edge, work)


@pytest.mark.parametrize("why", ["fork", "damage"])
def test_at_the_end_nobody_waits_for_what_has_stopped(edge: Edge, why: str) -> None:
    append(edge.spool, 2)
    if why == "fork":
        edge.network.says((409, {"error": "fork"}))
    else:
        path = list_segments(edge.spool.folder)[0]
        path.write_bytes(path.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"junk", 1))
    threaded(edge)

    async def work(shipper: Shipper) -> None:
        for _ in range(2):
            assert not await shipper.finish(60.0)
            assert shipper.status.state == "stopped"

    running(edge, work)
