"""Another Host in the place of the client's, and nothing else changed."""

import pytest

from edgeproxy.edge.http1.host import replace_host


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        (b"Host: a\r\nX-A: 1\r\n", b"Host: new\r\nX-A: 1\r\n"),
        (b"X-Host: 1\r\nhOsT \t:a\r\n", b"X-Host: 1\r\nHost: new\r\n"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\nHost: b\r\n", b"GET / HTTP/1.1\r\nHost: new\r\n\r\nHost: b\r\n"),
    ],
    ids=["first", "in any case", "a body stays"],
)
def test_the_line_is_replaced(lines: bytes, changed: bytes) -> None:
    assert replace_host(lines, b"new") == changed


def test_the_name_is_taken_as_it_is() -> None:
    assert replace_host(b"Host: a\r\n", rb"\1") == b"Host: \\1\r\n"
