import socket

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.edge.supervisor import sockets

HERE = Address("127.0.0.1", 0)


def test_two_supervisors_can_bind_the_same_address() -> None:
    with sockets.bind(HERE) as first, sockets.bind(sockets.get_address(first)) as second:
        assert sockets.get_address(first) == sockets.get_address(second)
        assert not first.getblocking()


def test_bound_socket_refuses_connections_before_it_listens() -> None:
    with sockets.bind(HERE) as bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sockets.get_address(bound), timeout=5)
        bound.listen()
        socket.create_connection(sockets.get_address(bound), timeout=5).close()


def test_a_foreign_listener_is_named_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = Address(*foreign.getsockname())
        with pytest.raises(sockets.AddressUnavailableError, match=rf"cannot listen on {taken}: Address already in use"):
            sockets.bind(taken)


def test_an_address_of_another_host_is_unavailable() -> None:
    with pytest.raises(sockets.AddressUnavailableError, match=r"192\.0\.2\.1:0: Cannot assign"):
        sockets.bind(Address("192.0.2.1", 0))


def test_all_addresses_are_bound_or_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign, sockets.bind(HERE) as held:
        expected = sockets.get_address(held)
        held.close()
        with pytest.raises(sockets.AddressUnavailableError):
            sockets.bind_all([expected, Address(*foreign.getsockname())])
        # Without SO_REUSEPORT this fails if the first socket is still bound.
        with socket.create_server(expected):
            pass


def test_ipv4_and_ipv6_take_the_same_port_side_by_side() -> None:
    with sockets.bind(Address("0.0.0.0", 0)) as four:
        port = sockets.get_address(four).port
        with sockets.bind(Address("::", port)) as six:
            assert str(sockets.get_address(six)) == f"[::]:{port}"


def test_is_listened_on_tells_a_listening_socket_from_a_bound_one() -> None:
    with sockets.bind(HERE) as bound:
        assert not sockets.is_listened_on(sockets.get_address(bound))
        bound.listen()
        assert sockets.is_listened_on(sockets.get_address(bound))
    assert not sockets.is_listened_on(HERE)
