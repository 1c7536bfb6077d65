"""Slices of input: their length and their order. The clock and the loop are arguments."""

from collections.abc import Callable

import pytest

from edgeproxy.edge.http2.stream import Stream
from edgeproxy.edge.proxy.exchange.lost_streams import LostStreams
from edgeproxy.edge.proxy.transport.turns import (
    ACCEPTED_PER_TURN,
    BULK_BYTES,
    FULL_TURN_SECONDS,
    PIECE_BYTES,
    PIECE_BYTES_MAX,
    PIECE_BYTES_MIN,
    SLICE_SECONDS,
    TURN_SECONDS,
    InputBacklog,
    Turns,
)


class Loop:
    """An event loop whose turns a test runs by hand. Its clock advances only while input is processed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.callbacks: list[Callable[[], None]] = []
        self.observed: list[float] = []
        self.reported: list[tuple[str, str]] = []
        self.turns = Turns(
            lambda: self.now,
            self.callbacks.append,
            self.observed.append,
            lambda _, kind, peer: self.reported.append((kind, peer)),
        )

    def turn(self) -> float:
        """Run the callbacks of one turn. Return the seconds that they took."""
        callbacks, begun = self.callbacks[:], self.now
        self.callbacks.clear()
        for callback in callbacks:
            callback()
        return self.now - begun

    def finish(self) -> None:
        while self.callbacks:
            self.turn()


class Side:
    """A connection that needs an equal time for each byte."""

    def __init__(self, loop: Loop, seconds_per_byte: float, name: str = "", log: list[str] | None = None) -> None:
        self.loop, self.seconds_per_byte = loop, seconds_per_byte
        self.name, self.log = name, log if log is not None else []
        self.pieces: list[bytes] = []
        self.takes_bulk, self.room = False, True
        self.piece_bytes_max = PIECE_BYTES_MAX
        self.reading, self.aborted = True, False
        self.fault: Exception | None = None
        self.backlog = InputBacklog(loop.turns, self)

    def receive(self, data: bytes) -> None:
        """Deliver input as a socket does."""
        assert self.reading
        if not self.backlog.receive(data):
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.log.append(self.name)
        self.pieces.append(data)
        self.loop.now += len(data) * self.seconds_per_byte

    def has_room_for_input(self) -> bool:
        return self.room

    def hold_input(self) -> None:
        self.reading = False

    def on_backlog_done(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def describe(self) -> tuple[str, str]:
        return "side", self.name

    @property
    def taken(self) -> bytes:
        return b"".join(self.pieces)


MILLISECOND = 0.001
INPUT = bytes(range(256)) * 1024
COSTLY = 0.06 * MILLISECOND / 1024
"""Seconds per byte at a rate of 15 ms for INPUT."""


def test_costly_input_is_cut_into_slices_and_stays_whole():
    loop = Loop()
    side = Side(loop, COSTLY)
    side.receive(INPUT)
    assert loop.now - 100.0 <= SLICE_SECONDS * 2  # The first piece may take longer, because its cost is not known yet.
    assert not side.reading
    turns = 0
    while loop.callbacks:
        assert loop.turn() <= SLICE_SECONDS * 1.5
        turns += 1
    assert turns >= 10
    assert side.taken == INPUT
    assert side.reading


def test_cheap_input_is_processed_in_one_slice_without_a_pause():
    loop = Loop()
    side = Side(loop, 0.0)
    side.receive(INPUT)
    assert side.taken == INPUT
    assert side.reading
    assert max(map(len, side.pieces)) == PIECE_BYTES_MAX
    assert len(side.pieces[0]) == PIECE_BYTES


def test_pieces_follow_their_cost_within_bounds():
    loop = Loop()
    side = Side(loop, MILLISECOND)
    side.receive(INPUT)
    loop.finish()
    assert len(side.pieces[-1]) == PIECE_BYTES_MIN
    side.pieces.clear()
    side.seconds_per_byte = 0.0
    side.receive(INPUT)
    assert max(map(len, side.pieces)) == PIECE_BYTES_MAX


def test_side_bounds_its_pieces():
    loop = Loop()
    side = Side(loop, 0.0)
    side.piece_bytes_max = 512
    side.receive(INPUT)
    assert set(map(len, side.pieces)) == {512}


@pytest.mark.parametrize("connections", [6, 100, 1000])
def test_slices_of_many_connections_share_one_turn(connections):
    loop = Loop()
    sides = [Side(loop, COSTLY) for _ in range(connections)]
    begun = loop.now
    for side in sides:
        side.receive(INPUT)
    # The bound holds for the turn that brings the input, and for each later turn.
    assert loop.now - begun <= TURN_SECONDS + SLICE_SECONDS
    for _ in range(15):
        assert loop.turn() <= TURN_SECONDS + SLICE_SECONDS
    assert loop.callbacks


def test_connections_within_their_slices_share_one_turn():
    loop = Loop()
    sides = [Side(loop, SLICE_SECONDS * 0.9 / PIECE_BYTES) for _ in range(100)]
    begun = loop.now
    for side in sides:
        side.receive(INPUT[:PIECE_BYTES])
    assert loop.now - begun <= TURN_SECONDS + SLICE_SECONDS
    loop.finish()
    assert all(side.taken == INPUT[:PIECE_BYTES] for side in sides)
    assert all(side.reading for side in sides)


def test_the_queue_is_served_round_robin():
    loop = Loop()
    log: list[str] = []
    sides = [Side(loop, COSTLY, name, log) for name in "abcdef"]
    for side in sides:
        side.receive(INPUT)
    while set(log) != set("abcdef"):
        loop.turn()  # Until each of them has had its first slice.
    log.clear()
    order: list[str] = []
    for _ in range(12):
        loop.turn()
    for name in log:
        if not order or order[-1] != name:
            order.append(name)
    assert len(order) > 12
    assert set(order[:6]) == set("abcdef")
    assert order == [(order[:6] * 20)[n] for n in range(len(order))]


def test_the_queue_gets_one_slice_after_a_long_turn():
    loop = Loop()
    for _ in range(6):
        Side(loop, COSTLY).receive(INPUT)
    for _ in range(6):
        assert loop.turn() > SLICE_SECONDS * 1.5
    loop.now += FULL_TURN_SECONDS  # Answers that upstreams sent in this turn.
    assert loop.turn() <= SLICE_SECONDS * 1.5
    assert loop.turn() > SLICE_SECONDS * 1.5


@pytest.mark.parametrize("is_long", [False, True])
def test_newcomers_and_the_queue_alternate_in_turns_of_any_length(is_long):
    loop = Loop()
    hostile = [Side(loop, COSTLY) for _ in range(6)]
    for side in hostile:
        side.receive(INPUT)
    for _ in range(4):
        loop.turn()
    served = sum(len(side.taken) for side in hostile)
    newcomers = [Side(loop, COSTLY) for _ in range(40)]
    for side in newcomers:
        side.receive(INPUT[:PIECE_BYTES_MIN])
    for _ in range(8):
        loop.now += FULL_TURN_SECONDS * is_long
        loop.turn()
    assert sum(len(side.taken) for side in hostile) > served
    assert any(side.taken for side in newcomers)


class Request(Stream):
    """A stream whose end takes 0.2 ms."""

    def __init__(self, loop: Loop, ended: list["Request"]) -> None:
        self.loop, self.ended = loop, ended

    def on_reset(self, code: int) -> None:
        self.loop.now += 0.2 * MILLISECOND
        self.ended.append(self)


def test_requests_of_a_lost_connection_end_in_slices():
    loop = Loop()
    ended: list[Request] = []
    lost: set[LostStreams] = set()
    LostStreams(loop.turns, lost, [Request(loop, ended) for _ in range(30)], "192.0.2.1").begin()
    counts = []
    while lost:
        assert loop.turn() <= SLICE_SECONDS + 0.2 * MILLISECOND
        counts.append(len(ended))
    assert len(counts) == 10
    assert counts[-1] == 30


def test_input_waits_at_once_while_others_wait():
    loop = Loop()
    hostile, polite = Side(loop, COSTLY), Side(loop, COSTLY)
    hostile.receive(INPUT)
    polite.receive(INPUT[:2000])
    assert polite.taken == b""
    assert not polite.reading
    loop.turn()
    assert polite.taken == INPUT[:2000]
    assert polite.reading


def test_the_next_turn_has_time_again():
    loop = Loop()
    sides = [Side(loop, TURN_SECONDS / 2000) for _ in range(3)]
    sides[0].receive(INPUT[:2000])
    sides[1].receive(INPUT[:2000])
    assert sides[0].taken
    assert not sides[1].taken
    loop.finish()
    sides[2].receive(INPUT[:2000])
    assert sides[2].taken


def test_bulk_passes_whole_and_long_bulk_is_a_matter_of_slices():
    loop = Loop()
    side = Side(loop, 0.0)
    side.takes_bulk = True
    assert not side.backlog.receive(INPUT[:BULK_BYTES])
    side.seconds_per_byte = 2 * TURN_SECONDS / len(INPUT)
    side.receive(INPUT)
    assert side.pieces == [INPUT]
    side.receive(INPUT)
    assert not side.reading  # The turn has no time left. The pause ends libuv's loop of reads.
    assert side.pieces == [INPUT]
    loop.finish()
    assert side.pieces == [INPUT, INPUT]
    assert side.reading


def test_input_without_room_stays_and_is_read_no_further():
    loop = Loop()
    side = Side(loop, COSTLY)
    side.receive(INPUT)
    side.room = False
    loop.finish()
    taken = len(side.taken)
    assert taken < len(INPUT)
    assert not side.reading
    assert not loop.callbacks  # The backlog does not poll.
    side.room = True
    assert side.backlog.blocks_reading()
    loop.finish()
    assert side.taken == INPUT
    assert side.reading


def test_rest_of_a_slice_is_read_before_later_input():
    loop = Loop()
    side = Side(loop, COSTLY)
    side.receive(INPUT)
    behind = side.backlog.take()
    side.backlog.put_back(behind)
    side.backlog.put_back(b"before")
    loop.finish()
    done = INPUT[: len(INPUT) - len(behind)]
    assert side.taken == done + b"before" + behind


def test_lost_connection_leaves_the_queue():
    loop = Loop()
    lost, other = Side(loop, COSTLY), Side(loop, COSTLY)
    lost.receive(INPUT)
    other.receive(INPUT)
    lost.backlog.close()
    taken = lost.taken
    loop.finish()
    assert lost.taken == taken
    assert not lost.reading
    assert other.taken == INPUT


def test_fault_closes_only_its_own_connection():
    loop = Loop()
    broken, other = Side(loop, COSTLY), Side(loop, COSTLY)
    broken.receive(INPUT)
    other.receive(INPUT)
    broken.fault = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        loop.turn()
    assert broken.aborted
    loop.finish()
    assert other.taken == INPUT
    assert not other.aborted


def test_turns_are_measured_while_input_waits():
    loop, sockets = Loop(), 0.0002
    for _ in range(6):
        Side(loop, COSTLY).receive(INPUT)
    for _ in range(5):
        loop.turn()
        loop.now += sockets  # They take time in each turn as well.
    assert len(loop.observed) == 4
    assert all(TURN_SECONDS + sockets <= seconds <= TURN_SECONDS + SLICE_SECONDS + sockets for seconds in loop.observed)
    loop.finish()
    measured = len(loop.observed)
    loop.now += 10.0  # The loop sleeps.
    Side(loop, COSTLY).receive(INPUT[:2000])
    loop.finish()
    assert len(loop.observed) == measured
    assert not loop.reported


def test_long_slice_is_reported_with_its_connection():
    loop = Loop()
    Side(loop, 0.1 / 2000, "192.0.2.1").receive(INPUT[:2000])
    loop.finish()
    assert loop.reported == [("side", "192.0.2.1")]


def test_long_turn_without_a_slice_names_no_connection():
    loop = Loop()
    Side(loop, COSTLY, "192.0.2.1").receive(INPUT)
    loop.turn()
    loop.now += 0.2
    loop.turn()
    assert loop.reported == [("other", "")]


def test_newcomer_waits_for_one_slice_and_not_for_a_round():
    loop = Loop()
    log: list[str] = []
    for _ in range(50):
        Side(loop, COSTLY, "hostile", log).receive(INPUT)
    for _ in range(60):
        loop.turn()  # Now all of them have had their first slices.
    polite = Side(loop, COSTLY, "polite", log)
    polite.receive(INPUT[:2000])
    loop.turn()
    assert polite.taken == INPUT[:2000]


def test_new_connections_leave_time_for_one_that_waits_longer():
    loop = Loop()
    log: list[str] = []
    old = Side(loop, COSTLY, "old", log)
    old.receive(INPUT)
    turns = 0
    while not old.reading:
        for _ in range(10):  # More connections than one turn can serve.
            Side(loop, SLICE_SECONDS / 2000, "new", log).receive(INPUT[:2000])
        loop.turn()
        turns += 1
        assert turns < 30


def test_waiting_clients_are_accepted_in_each_turn_in_which_input_waits() -> None:
    loop = Loop()
    accepted: list[int] = []
    loop.turns.accept = accepted.append
    side = Side(loop, SLICE_SECONDS / PIECE_BYTES_MIN)
    side.receive(bytes(PIECE_BYTES * 5))
    loop.finish()
    assert len(accepted) >= 2
    assert set(accepted) == {ACCEPTED_PER_TURN}
