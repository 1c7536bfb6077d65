import errno
import select
import socket

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.edge.proxy.process.handshake_filter import admit_handshakes, refuse_handshakes
from edgeproxy.edge.supervisor import sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_refusing_handshakes_keeps_the_queue_and_admits_no_new_connection(host: str) -> None:
    bound = sockets.bind(Address(host, 0))
    bound.listen()
    address = sockets.get_address(bound)
    with socket.create_connection(address) as early, socket.socket(bound.family) as late:
        refuse_handshakes([bound])
        late.setblocking(False)
        assert late.connect_ex(address) == errno.EINPROGRESS
        accepted, _ = bound.accept()
        with pytest.raises(BlockingIOError):
            bound.accept()
        bound.close()
        accepted.sendall(b"served")
        assert early.recv(6) == b"served"
        accepted.close()
        assert select.select([], [late], [], 10)[1]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_handshakes_are_admitted_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound, socket.socket() as client:
        admit_handshakes([bound])  # None was refused.
        refuse_handshakes([bound])
        client.setblocking(False)
        client.connect_ex(bound.getsockname())
        assert not select.select([bound], [], [], 0)[0]
        admit_handshakes([bound])
        assert select.select([bound], [], [], 10)[0], "the client asks again"
