"""Input that the loop does not read: it is discarded, or nothing but its end has come. Over real TCP connections."""

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from edgeproxy.edge.proxy.transport.reset import AT_ONCE
from edgeproxy.edge.proxy.transport.socket_input import discard_input, has_left
from loadtest.testbed.waiting import until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the server's, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        accepted, _ = listening.accept()
        with accepted:
            accepted.setblocking(False)
            yield peer, accepted


class Transport:
    """Replaces uvloop's transport. The code under test uses only its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def get_extra_info(self, name: str) -> socket.socket:
        return self._socket


def test_all_input_is_discarded_until_the_peer_closes(pair: tuple[socket.socket, socket.socket]) -> None:
    peer, sock = pair
    transport, dropped = cast("asyncio.Transport", Transport(sock)), 0
    assert discard_input(transport) == 0
    peer.sendall(bytes(300_000))
    peer.close()

    def discard() -> bool:
        nonlocal dropped
        count = discard_input(transport)
        dropped += count or 0
        return count is None

    until(discard, "the end")
    assert dropped == 300_000


def test_a_reset_ends_the_discarding(pair: tuple[socket.socket, socket.socket]) -> None:
    peer, sock = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    peer.close()
    until(lambda: discard_input(cast("asyncio.Transport", Transport(sock))) is None, "the reset")


@pytest.mark.parametrize(("sends", "closes", "left"), [(b"", False, False), (b"G", True, False), (b"", True, True)])
def test_a_peer_has_left_if_it_closed_and_nothing_is_left_to_read(
    pair: tuple[socket.socket, socket.socket], sends: bytes, closes: bool, left: bool
) -> None:
    peer, sock = pair
    peer.sendall(sends)
    if closes:
        peer.shutdown(socket.SHUT_WR)
    until(lambda: has_left(sock) is left, "the peer's state")
    assert not left or sock.recv(1) == b""
