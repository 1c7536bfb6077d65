"""Addresses to listen on."""

import pytest

from edgeproxy.config.addresses import split_address


@pytest.mark.parametrize(
    ("written", "reachable"),
    [
        ("0.0.0.0:9", "127.0.0.1:9"),
        ("[::]:9", "[::1]:9"),
        ("[::2]:9", "[::2]:9"),
        ("edge.test:9", "edge.test:9"),
    ],
)
def test_listener_at_every_address_is_reached_at_loopback(written: str, reachable: str) -> None:
    address = split_address(written)
    assert address is not None
    assert str(address.reachable) == reachable
