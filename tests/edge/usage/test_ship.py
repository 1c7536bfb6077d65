"""Shipping of batches to a collector with the real verdicts, over a network that can fail or answer by itself."""

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
    """The network to the collector. Prepared answers come first, then the collector's. `clock` stands still."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.answers: list[Reply | OSError] = []
        self.now = NOW

    def says(self, *answers: tuple[int, object] | OSError, retry_after: float | None = None) -> None:
        """Prepare answers to send instead of the collector's."""
        self.answers += [
            answer if isinstance(answer, OSError) else Reply(answer[0], orjson.dumps(answer[1]), retry_after)
            for answer in answers
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
    """A spool, its shipper, and a collector behind a network."""

    def __init__(self, folder: Path) -> None:
        self.peer = Peer()
        self.network = Network(self.peer)
        self.spool = Spool.open(folder)
        self.shipper = self.another()

    def another(self, send: Send | None = None) -> Shipper:
        """Create a new shipper for the spool and use it from now on."""
        shipper = Shipper(
            self.spool, send or self.network.send, clock=self.network.clock, chance=random.Random(1), aside=inline
        )
        self.shipper = shipper
        return shipper

    def reopen(self) -> None:
        """Reopen the spool as after a crash: only the state on disk remains."""
        self.spool.close()
        self.spool = Spool.open(self.spool.folder)
        self.another()

    def steps(self, most: int = 1000) -> list[float]:
        """Step until the shipper waits, or `most` times. Return the seconds that the steps returned."""
        found: list[float] = []
        while len(found) < most and (not found or found[-1] == 0.0):
            found.append(step(self.shipper))
        return found

    @property
    def state(self) -> str:
        return self.shipper.status.state

    def results(self) -> dict[str, int]:
        """Return how often each result of sending occurred, without zeros."""
        assert tuple(self.shipper.status.results) == RESULTS
        return {result: times for result, times in self.shipper.status.results.items() if times}


def step(shipper: Shipper) -> float:
    """Run one step of the shipper. In these tests a step never awaits, so it needs no event loop."""
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


def test_watermark_is_written_once_a_second_during_catch_up(edge: Edge) -> None:
    append(edge.spool, 20)
    written = []
    for number in range(20):
        edge.network.now = NOW + number * 0.25
        edge.steps(1)
        written.append(fetch_watermark(edge.spool.folder))
    assert written == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 4 + [16] * 4
    # After a crash, the edge ships a batch again. The answer says how far the collector is.
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
def test_a_failed_delivery_is_retried_with_growing_delays(
    edge: Edge, answer: tuple[int, object] | OSError, result: str, why: str
) -> None:
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
    # The shipper logs a failure once. After a success, the delay starts again from its first value.
    assert [one["event"] for one in said] == ["shipping waits"]
    append(edge.spool)
    edge.network.says(answer)
    assert edge.steps()[0] <= 0.1


def test_retry_after_is_followed_up_to_five_minutes(edge: Edge) -> None:
    append(edge.spool)
    edge.network.says((429, {}), retry_after=7.0)
    assert 7.0 <= edge.steps()[0] <= 7.1
    edge.network.says((503, {}), retry_after=1e9)
    assert 300.0 <= edge.steps()[0] <= 300.2


def test_a_batch_that_the_collector_cannot_read_does_not_block_others(edge: Edge) -> None:
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


def test_pruned_batches_that_a_restored_collector_lacks_become_a_gap(edge: Edge) -> None:
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
    # A collector restored again from that backup gets an equal gap.
    edge.peer.restore(kept)
    append(edge.spool)
    edge.steps()
    assert edge.state == "idle"
    assert parse_batch(edge.peer.has[3]) == gap


def test_a_gap_over_batches_that_the_collector_has_is_no_fork(edge: Edge) -> None:
    """This happens if the collector is restored a second time, from a newer backup, after it asked for batches."""
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
def test_shipping_stops_when_another_edge_uses_the_identity(edge: Edge, tmp_path: Path, way: str) -> None:
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
    # Sealing goes on, and an operator may start shipping again.
    append(edge.spool)
    edge.another()
    assert edge.steps() == [math.inf]
    assert edge.results() == {way: 1}


def test_damage_stops_shipping_until_the_batch_is_recorded_as_discarded(edge: Edge) -> None:
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


def test_a_spool_read_error_is_retried(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
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
        # The shipper ships old batches again only after the lower watermark is on disk.
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


def test_old_shipped_segments_are_removed(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    append(edge.spool, 8)
    edge.steps()
    assert len(list_segments(edge.spool.folder)) == 3
    # The age of a segment follows from its modification time.
    edge.network.now = list_segments(edge.spool.folder)[-1].stat().st_mtime + 8 * 86400
    with monkeypatch.context() as patched, capture_logs() as said:
        patched.setattr(Path, "unlink", fail)
        edge.steps()
    assert [one["event"] for one in said] == ["what was shipped cannot be removed"]
    edge.network.now += 61
    edge.steps()
    assert [path.name for path in list_segments(edge.spool.folder)] == ["0000000007.seg"]


def test_shipper_backs_off_when_two_collectors_share_an_address(edge: Edge) -> None:
    """One collector lacks batches of the other, and either may answer. The shipper backs off between attempts."""
    append(edge.spool, 9)
    edge.steps()
    append(edge.spool)
    waited = []
    for _ in range(40):
        edge.network.says((409, {"error": "gap", "expected": 3}), (200, {"watermark": 9}))
        waited += edge.steps(2)
    assert waited[0] == 0.0
    assert sum(waited) > 60


# ---- the running shipper


def running(edge: Edge, work: Callable[[Shipper], "asyncio.Future[None] | object"]) -> None:
    """Run the shipper while `work`, a coroutine function, runs."""

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
    """Wait until `what` returns True. `running` sets the deadline."""
    while not what():  # noqa: ASYNC110, the condition may change in a thread, without an event
        await asyncio.sleep(0.001)


def test_wake_ships_a_newly_sealed_batch(edge: Edge) -> None:
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


def test_wake_does_not_shorten_the_delay_after_a_failure(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
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
        # `finish` does retry at once.
        del edge.network.answers[1:]
        assert not await shipper.finish(0.02)
        assert edge.network.answers == []
        assert await shipper.finish(5.0)

    running(edge, work)
    assert edge.peer.asked == [1]


def test_cancelled_shipper_saves_its_watermark(edge: Edge) -> None:
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


def test_finish_gives_up_on_a_collector_that_does_not_answer(edge: Edge) -> None:
    async def never(batch: Batch, body: bytes) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    threaded(edge, never)

    async def work(shipper: Shipper) -> None:
        append(edge.spool)
        assert not await shipper.finish(0.02)

    running(edge, work)


@pytest.mark.parametrize("why", ["fork", "damage"])
def test_finish_returns_at_once_when_shipping_has_stopped(edge: Edge, why: str) -> None:
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
