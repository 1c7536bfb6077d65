"""The simulated link between a region and its hub has the given latency, and obeys its commands."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from loadtest.regions.relay import Link
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until

PATIENCE = 10.0


class Echo(threading.Thread):
    """A hub that echoes its input, and records each piece as received."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.pieces: list[bytes] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while piece := connection.recv(65536):
                    self.pieces.append(piece)
                    connection.sendall(piece)
            except OSError:
                pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def hub() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def link(hub: Echo, seed: int) -> Iterator[Link]:
    with Link(hub.port, 0.1, seed) as link:
        yield link


def reach(link: Link) -> socket.socket:
    """A connection to the hub."""
    created = socket.create_connection((HOST, link.port), timeout=PATIENCE)
    created.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return created


def took(what: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    what()
    return time.monotonic() - began


def there_and_back(connection: socket.socket, data: bytes = b"ping") -> float:
    """Seconds that this takes."""

    def ask() -> None:
        connection.sendall(data)
        got = b""
        while len(got) < len(data):
            got += connection.recv(65536)
        assert got == data

    return took(ask)


def ended(connection: socket.socket) -> bool:
    """Return whether the connection was reset, rather than closed or silent."""
    try:
        connection.sendall(b"ping")
        connection.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_relay_adds_the_configured_round_trip_time(link: Link) -> None:
    with reach(link) as connection:
        times = [there_and_back(connection) for _ in range(5)]
    assert 0.1 <= min(times) < 0.15
    assert link.bytes == [20, 20]


def test_relay_delays_each_piece_and_keeps_the_order(link: Link, hub: Echo) -> None:
    sent = [b"%03d" % number for number in range(40)]
    with reach(link) as connection:
        began = time.monotonic()
        for piece in sent:
            connection.sendall(piece)
            time.sleep(0.005)
        sending = time.monotonic() - began
        got = b""
        while len(got) < 3 * len(sent):
            got += connection.recv(65536)
    assert got == b"".join(sent)
    assert b"".join(hub.pieces) == got
    assert len(hub.pieces) > len(sent) / 2, "pieces are not put together on the way"
    assert time.monotonic() - began < sending + 0.25, "nor do they wait for each other"


def test_relay_delivers_data_before_the_end_of_the_connection(link: Link, hub: Echo) -> None:
    with reach(link) as connection:
        connection.sendall(b"last words")
    until(lambda: hub.pieces == [b"last words"], "the words arrive")


def test_cut_resets_and_refuses_until_it_is_healed(link: Link) -> None:
    with reach(link) as connection:
        there_and_back(connection)
        link.cut()
        assert ended(connection)
        with pytest.raises(ConnectionRefusedError):
            reach(link)
    link.heal()
    with reach(link) as connection:
        assert there_and_back(connection) >= 0.1


def test_relay_hole_holds_data_until_healed(link: Link, hub: Echo) -> None:
    with reach(link) as before:
        there_and_back(before)
        link.hole()
        with reach(link) as after:
            for connection in (before, after):
                connection.sendall(b"hello")
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                connection.settimeout(PATIENCE)
            assert hub.pieces == [b"ping"]
            link.heal()
            assert before.recv(5) == after.recv(5) == b"hello"


def test_drop_loses_connections_again_and_again(link: Link) -> None:
    link.drop(0.05)
    for _ in range(3):
        with reach(link) as connection:
            until(partial(ended, connection), "the answer is lost")
    link.heal()
    with reach(link) as connection:
        assert there_and_back(connection) < 0.3
