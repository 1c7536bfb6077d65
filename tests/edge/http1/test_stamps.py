"""The table of stamps: only the edge can add these fields to a request."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.edge.stamps import STAMPS, StampValues
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import stamps
from edgeproxy.edge.http1.request import read_fields, read_head

ADDED = """
from edgeproxy.config.edge.stamps import STAMPS, StampValues
from edgeproxy.edge.http1 import stamps

STAMPS[b"X-Plan"] = lambda binding: "ours"

from edgeproxy.edge.http1.request import read_fields

block = b"Host: a\\r\\nX-Plan: theirs\\r\\nx-plan: theirs\\r\\nX_PLAN: theirs\\r\\nX-Planet: earth\\r\\n"
kept = b"".join([read_fields(block, trusted)[3] for trusted in (False, True)])
assert kept.count(b"earth") == 2
assert b"theirs" not in kept, kept
assert b"X-Plan: ours\\r\\n" in stamps.format_lines(StampValues("eu", None, None))
"""


def test_a_stamp_that_is_added_to_the_table_is_dropped_from_requests() -> None:
    subprocess.run([sys.executable, "-c", ADDED], check=True, timeout=60)


def test_stamp_lines_omit_missing_values() -> None:
    assert stamps.format_lines(StampValues("eu", "acme", "basic")) == (
        b"X-Edge-Region: eu\r\nX-Customer-Id: acme\r\nX-Customer-Tier: basic\r\n"
    )
    assert stamps.format_lines(StampValues("eu", None, "anonymous")) == (
        b"X-Edge-Region: eu\r\nX-Customer-Tier: anonymous\r\n"
    )
    assert stamps.format_opening(b"X-Edge-Signature") == b"X-Edge-Signature: "


def test_a_stamp_without_a_value_can_be_stated_as_empty() -> None:
    block = stamps.format_lines(StampValues("eu", None, None))
    assert stamps.append_empty(block) == block + b"X-Customer-Id: \r\nX-Customer-Tier: \r\n"
    block = stamps.format_lines(StampValues("eu", "acme", "basic"))
    assert stamps.append_empty(block) == block


def test_a_field_that_clients_could_send_is_no_stamp() -> None:
    with pytest.raises(ValueError, match="X-Plan is no stamp"):
        stamps.format_opening(b"X-Plan")


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A field line with a stamp's name in any spelling; now and then one that is odd, or any bytes with a colon."""
    oddity = draw(st.integers(0, 9))
    if oddity == 9:
        return draw(st.binary(max_size=12)) + b":" + draw(st.binary(max_size=12))
    name = draw(st.sampled_from(sorted(STAMPS))).decode()
    spelled = [draw(st.sampled_from((each.lower(), each.upper(), "_" if each == "-" else each))) for each in name]
    odd = st.sampled_from((" ", "\t", "\r\n ", "X-Thing: 1\r\n")) if oddity > 6 else st.just("")
    return "".join((draw(odd), *spelled, draw(odd), ":", draw(odd), "forged", draw(odd))).encode()


@given(
    block=st.lists(lines(), max_size=4).map(b"\r\n".join),
    named=st.sampled_from((b"", b"Connection: X-Customer-Id\r\n", b"Connection: close, x-edge-region\r\n")),
    trusted=st.booleans(),
    minor=st.integers(0, 1),
)
def test_no_bytes_of_a_client_put_a_stamp_upstream(block: bytes, named: bytes, trusted: bool, minor: int) -> None:
    block = b"Host: a\r\n" + named + block + b"\r\n"
    try:
        _, _, credentials, quick, *_ = read_fields(block, trusted)
        head = read_head(block, trusted, minor=minor)
    except RejectedError:
        return
    dropped = {name.lower() for name in STAMPS}
    for line in (credentials + quick + head.credentials + head.keep).split(b"\r\n"):
        assert line.partition(b":")[0].strip().lower().replace(b"_", b"-") not in dropped
