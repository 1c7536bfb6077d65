"""Floods: the end of each, and the cost of each of its frames. An honest client with a little of it is served."""

import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from time import process_time

import pytest

from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.patience import TRUSTED_SCALE, Patience
from tests.edge.http2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GET,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PRIORITIZED,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    Peer,
    block,
    data,
    frame,
    get,
    integer,
    literal,
    post,
    reset,
    settings,
    update,
    word,
)

ENHANCE_YOUR_CALM = 11
UNIT_SECONDS_MAX = 0.02 * (1 if sys.gettrace() is None else 5)
"""The average CPU seconds that a unit of a flood may take: many times the dearest unit, a block of 16 KiB.

Coverage makes each unit about five times slower.
"""


def streams(unit: Callable[[int], bytes]) -> Iterator[bytes]:
    """A unit for each stream."""
    return (unit(number) for number in range(1, 1 << 20, 2))


def after(first: bytes, rest: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield rest


def fresh_huffman(number: int) -> bytes:
    noise = random.Random(number)
    packed = huffman.encode(bytes(noise.choices(b"!@~^|{}#", k=3000)))
    return frame(HEADERS, 5, number, block(GET) + b"\x00\x01a" + integer(len(packed), 7, 0x80) + packed)


WRONG_LENGTH = block([*POST, (b"content-length", b"5")])
BOMB = literal(b"a", b"x" * 3900, 0x40)
SHORT = literal(b"a", b"b", 0x40)

FLOODS: list[tuple[str, Callable[[], Iterator[bytes]], int]] = [
    # attack, its units, the unit that ends it at the latest
    ("CVE-2023-44487 Rapid Reset", lambda: streams(lambda n: get(n) + reset(n)), 101),
    ("CVE-2025-8671 WINDOW_UPDATE by 0", lambda: streams(lambda n: get(n) + update(n, 0)), 101),
    ("CVE-2025-8671 a window above 2^31-1", lambda: streams(lambda n: get(n) + update(n, (1 << 31) - 1)), 101),
    ("CVE-2025-8671 DATA behind the end", lambda: streams(lambda n: get(n) + data(n, b"x")), 101),
    ("CVE-2025-8671 HEADERS behind the end", lambda: streams(lambda n: get(n) + frame(HEADERS, 5, n, b"\x82")), 101),
    ("CVE-2025-8671 PRIORITY of 4 bytes", lambda: streams(lambda n: get(n) + frame(PRIORITY, 0, n, b"1234")), 101),
    (
        "CVE-2025-8671 a body of another length",
        lambda: streams(lambda n: frame(HEADERS, END_HEADERS, n, WRONG_LENGTH) + data(n, b"123456")),
        101,
    ),
    ("malformed requests", lambda: streams(lambda n: get(n, (b"X", b"y"))), 101),
    ("more streams than 100", lambda: streams(get), 201),
    ("CVE-2024-27316 CONTINUATION", lambda: after(frame(HEADERS, 1, 1), frame(CONTINUATION, 0, 1, b"x" * 16384)), 10),
    ("CVE-2024-27316 CONTINUATION of nothing", lambda: after(frame(HEADERS, 1, 1), frame(CONTINUATION, 0, 1)), 10),
    (
        "CVE-2016-6581 16,000 × an entry of 3,900 bytes",
        lambda: streams(lambda n: frame(HEADERS, 5, n, block(GET) + (b"\xbe" * 16000 if n > 1 else BOMB))),
        102,
    ),
    ("insertions that evict", lambda: streams(lambda n: frame(HEADERS, 5, n, SHORT * 1500)), 101),
    ("CVE-2019-9512 PING", lambda: after(b"", frame(PING, 0, 0, b"12345678")), 1001),
    ("CVE-2019-9513 PRIORITY", lambda: streams(lambda n: frame(PRIORITY, 0, n, word(0) + b"\0")), 1001),
    ("CVE-2019-9515 SETTINGS", lambda: after(b"", frame(SETTINGS)), 1001),
    ("acknowledgements", lambda: after(b"", settings(flags=1)), 1001),
    ("SETTINGS of 100 windows", lambda: (b"".join(map(get, range(1, 200, 2) if n == 1 else ())) + settings((4, n))
                                         for n in range(1, 2000)), 1001),
    ("CVE-2019-9518 empty DATA", lambda: after(post(), data(1)), 1001),
    ("CVE-2019-9518 padding alone", lambda: after(post(), frame(DATA, PADDED, 1, b"\xff" + b"\0" * 255)), 1001),
    ("DATA of a stream that was reset", lambda: after(post() + update(1, 0), data(1, b"x")), 1001),
    ("HEADERS of a stream that was reset", lambda: after(post() + update(1, 0), frame(HEADERS, 5, 1, b"\x82")), 1001),
    ("RST_STREAM of a closed stream", lambda: after(get() + reset(1), reset(1)), 101),
    ("WINDOW_UPDATE by 1", lambda: after(get(), update(1, 1)), 1001),
    ("WINDOW_UPDATE of the connection by 1", lambda: after(b"", update(0, 1)), 1001),
    ("frames of no type", lambda: after(b"", frame(0x77, 0, 0, b"x")), 1001),
    ("GOAWAY", lambda: after(b"", frame(GOAWAY, 0, 0, b"\0" * 8)), 1001),
    ("one that depends on itself", lambda: streams(lambda n: frame(HEADERS, 5 | PRIORITIZED, n, word(n) + b"\0")), 1),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "units", "last"), FLOODS, ids=[flood[0] for flood in FLOODS])
def test_a_flood_ends(attack: str, units: Callable[[], Iterator[bytes]], last: int) -> None:
    peer = Peer()
    count = 0
    began = process_time()
    for unit in islice(units(), last + 1):
        peer.send(unit)
        count += 1
        assert len(peer.connection.streams) <= 100
        if peer.closed is not None:
            break
    spent = process_time() - began
    assert peer.closed is not None
    assert count <= last
    assert peer.frames()[-1].kind == GOAWAY
    assert spent < UNIT_SECONDS_MAX * count + 0.05


def answered(number: int) -> Callable[[Peer], None]:
    """A request that is answered at once, as one to nowhere is."""

    def ask(peer: Peer) -> None:
        peer.send(get(number))
        peer.connection.respond(peer.stream(number), b"\x88", b"")

    return ask


@pytest.mark.parametrize(("answers", "last"), [(0, 101), (1, 113), (2, 127), (8, 502)])
def test_interleaved_answers_barely_delay_the_end_of_a_reset_flood(answers: int, last: int) -> None:
    peer = Peer()
    resets = 0
    numbers = iter(range(1, 1 << 20, 2))
    while peer.closed is None:
        for _ in range(answers):
            answered(next(numbers))(peer)
        number = next(numbers)
        peer.send(get(number) + reset(number))
        resets += 1
        assert resets <= last
    assert peer.closed[0] == ENHANCE_YOUR_CALM


def test_streams_that_are_reset_behind_their_answer_end_the_connection() -> None:
    peer = Peer()
    for number in range(1, 2 * 113, 2):
        answered(number)(peer)
        peer.send(reset(number))
        if peer.closed is not None:
            break
    assert peer.closed is not None


def test_windows_that_open_byte_by_byte_are_a_flood_though_they_move_data() -> None:
    """CVE-2019-9511: each WINDOW_UPDATE makes the edge send a frame of one byte."""
    peer = Peer(b"x" * 20_000).send(settings((4, 1)), get())
    sent = 0
    while peer.closed is None:
        peer.send(update(1, 1))
        sent += 1
    assert sent <= 1001


def test_blocks_with_new_huffman_strings_stay_within_the_time_bound() -> None:
    peer = Peer()
    units = [fresh_huffman(number) for number in range(1, 101, 2)]
    began = process_time()
    peer.send(*units)
    assert (process_time() - began) / len(units) < UNIT_SECONDS_MAX
    assert peer.closed is None


def test_a_long_download_may_send_a_window_update_for_each_piece() -> None:
    peer = Peer()
    peer.send(get())
    peer.connection.send_head(peer.stream(), b"\x88")
    for _ in range(3000):
        peer.connection.send_data(peer.stream(), b"x" * 4096)
        peer.send(update(1, 4096), update(0, 4096))
        peer.written.clear()
    assert peer.closed is None
    assert not peer.connection.waiting_bytes


def test_a_client_that_cancels_one_request_of_twenty_is_served_on() -> None:
    peer = Peer()
    for number in range(1, 20_000, 2):
        peer.send(get(number))
        if number % 40 == 1:
            peer.send(reset(number))
        else:
            peer.connection.respond(peer.stream(number), b"\x88", b"")
    assert peer.closed is None
    assert peer.connection.patience.frames > 900
    assert peer.connection.patience.resets > 900


def test_a_client_that_pings_fifty_times_a_second_is_served_on() -> None:
    peer = Peer()
    for _ in range(400):
        peer.send(*[frame(PING, 0, 0, b"12345678")] * 25)
        peer.connection.sweep()
    assert peer.closed is None


def test_a_trusted_proxy_has_the_patience_of_many_clients() -> None:
    peer = Peer()
    peer.connection.patience.set_scale(TRUSTED_SCALE)
    cancelled = 0
    for number in range(1, 1 << 20, 2):
        if peer.closed is None:
            peer.send(get(number) + reset(number))
            cancelled += 1
            if cancelled == TRUSTED_SCALE * 100:
                peer.connection.sweep()
    assert cancelled == TRUSTED_SCALE * 105 + 1


def test_a_hundred_streams_that_are_never_answered_let_no_other_begin() -> None:
    peer = Peer().send(*map(get, range(1, 200, 2)))
    for number in range(201, 221, 2):
        peer.send(get(number))
    refused = [frame for frame in peer.frames() if frame.kind == RST_STREAM]
    assert [(frame.number, frame.code) for frame in refused] == [(number, 7) for number in range(201, 221, 2)]
    peer.send(reset(1), get(221))
    assert peer.stream(221).number == 221


def test_setting_the_same_scale_again_gives_no_patience_back() -> None:
    patience = Patience()
    patience.set_scale(TRUSTED_SCALE)
    patience.spend()
    left = patience.frames
    patience.set_scale(TRUSTED_SCALE)
    assert patience.frames == left
