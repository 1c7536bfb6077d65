"""Servers' statements about their timeout of idle connections."""

from math import inf

import pytest

from edgeproxy.edge.http1.keep_alive import parse_idle_timeout


def block(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines)).encode()


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("Keep-Alive: timeout=5", 4.0),
        ("Keep-Alive: timeout=5, max=100", 4.0),
        ("Keep-Alive: max=100, timeout=75", 74.0),
        ("Keep-Alive: max=100,timeout=75", 74.0),
        ("keep-alive:TIMEOUT = 20", 19.0),
        ('KEEP-ALIVE: timeout="20"', 19.0),
        ("Keep-Alive: timeout=2", 1.0),
        ("Keep-Alive: timeout=1", 0.5),
        ("Keep-Alive: timeout=0", 0.0),
        ("Keep-Alive: timeout=999999999", 999999998.0),
    ],
)
def test_an_idle_connection_is_closed_a_second_before_the_server_or_at_half_time(line: str, seconds: float) -> None:
    assert parse_idle_timeout(block("Content-Length: 0", line, "X-A: b")) == seconds
    assert parse_idle_timeout(block(line)) == seconds


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Connection: keep-alive",),
        ("Keep-Alive: max=100",),
        ("Keep-Alive: timeout",),
        ("Keep-Alive: timeout=",),
        ("Keep-Alive: timeout=soon",),
        ("Keep-Alive: timeout=-5",),
        ("Keep-Alive: xtimeout=5",),
        ("X-Keep-Alive: timeout=5",),
        ("X-A: Keep-Alive: timeout=5",),
        ("Keep-Alive: max=5", "X-A: timeout=5"),
    ],
)
def test_idle_timeout_is_infinite_without_a_valid_keep_alive_field(lines: tuple[str, ...]) -> None:
    assert parse_idle_timeout(block(*lines)) == inf
