"""The fields that name the region of an answer."""

import pytest

from edgeproxy.edge.http1.region_fields import LINES, format_region_lines, remove_region

EVERY = tuple(LINES)


def test_each_field_has_the_form_of_its_specification() -> None:
    assert format_region_lines(EVERY, "us-east") == (
        b'X-Edge-Region: us-east\r\nServer-Timing: region;desc="us-east"\r\n'
        b'Proxy-Status: edgeproxy; next-hop="us-east"\r\n'
    )
    assert format_region_lines((), "us-east") == b""


def test_an_answer_of_the_edge_alone_names_no_next_hop() -> None:
    own = format_region_lines(EVERY, "eu", own=True)
    assert own == b'X-Edge-Region: eu\r\nServer-Timing: region;desc="eu"\r\n'


@pytest.mark.parametrize("line", [b"X-Edge-Region: moon", b"x-edge-region:", b"X-EDGE-REGION: a, b"])
def test_remove_region_removes_only_region_lines(line: bytes) -> None:
    before, after = b"HTTP/1.1 200 OK\r\nA: 1\r\n", b"X-Edge-Region-Of: b\r\n"
    assert remove_region(before + line + b"\r\n" + line + b"\r\n" + after) == before + after
