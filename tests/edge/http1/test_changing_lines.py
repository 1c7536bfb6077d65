"""The lines of a header block that change with each request, and the constant rest."""

import pytest

from edgeproxy.edge.http1.changing_lines import Changing, cut_key, cut_lines, find_changing, fits_rest
from edgeproxy.edge.http1.fields import FieldRules
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.http1.request import read_fields

TRACE = (b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331", b"01")
PARENT = b"traceparent: 00-%b-%b-%b\r\n" % TRACE
LATER = PARENT.replace(b": 00-", b": 01-").replace(b"\r\n", b"-\0\r\n")
USUAL = b"Host: a.example\r\nAccept: */*\r\n"


@pytest.fixture
def request_lines() -> RequestLines:
    """Return the lines of a worker that has read a usual request."""
    lines = RequestLines(FieldRules())
    read_fields(USUAL, request_lines=lines)
    return lines


FOUND: list[tuple[bytes, Changing | None]] = [
    (b"", None),
    (PARENT, (b"\r\ntraceparent:",)),
    (b"Cookie: a=1\r\nX-Seq:2\r\n", (b"", b"\r\nCookie:", b"\r\nX-Seq:")),
    (b"X-Seq: 2\r\n" + PARENT, (b"\r\ntraceparent:", b"\r\nX-Seq:")),
    (b"A: 1\r\nB: 1\r\nC: 1\r\n", (b"", b"\r\nA:", b"\r\nB:", b"\r\nC:")),
    (b"A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n", None),
    (b"X-Seq: 1\r\nx-seq: 2\r\n", None),
    (b"X-Seq: 1\r\nX_Seq: 2\r\n", None),
    (b"X%b: 1\r\n" % (b"x" * 64), None),
    (b"Authorization: Bearer k\r\nX-Customer-Id: me\r\nno colon\r\n", None),
]


@pytest.mark.parametrize(("more", "changing"), FOUND)
def test_lines_that_are_new_and_pass_change(
    request_lines: RequestLines, more: bytes, changing: Changing | None
) -> None:
    assert find_changing(USUAL + more, request_lines, 100) == changing


def test_a_head_that_is_refused_for_its_lines_is_not_looked_at(request_lines: RequestLines) -> None:
    assert find_changing(USUAL + b"X-Seq: 1\r\n", request_lines, 2) is None


def test_cut_lines_returns_the_constant_rest_of_a_block() -> None:
    block = b"\r\nX-Seq: 7\r\nHost: a.example\r\n" + PARENT + b"Accept: */*\r\n"
    cut = cut_lines(block, (b"\r\ntraceparent:", b"\r\nX-Seq:"))
    assert cut == (b"\r\n" + USUAL, b"X-Seq: 7\r\n", TRACE)
    assert cut_lines(block, (b"", b"\r\nX-Seq:")) == (
        b"\r\nHost: a.example\r\n" + PARENT + b"Accept: */*\r\n",
        b"X-Seq: 7\r\n",
        None,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"traceparent: 00-1-2-01\r\n",
        PARENT.replace(b"00-", b"ff-", 1),
        PARENT + b"X-Seq: \0\r\n",
        PARENT,
        LATER + b"X-Seq: 1\r\n",
    ],
)
def test_cut_lines_returns_none_for_a_missing_or_invalid_line(line: bytes) -> None:
    assert cut_lines(b"\r\n" + USUAL + line, (b"\r\ntraceparent:", b"\r\nX-Seq:")) is None


FITS = [
    (USUAL, 6, True),
    (USUAL, 5, False),  # Four more lines may have been cut.
    (USUAL + b"x-seq: 1\r\n", 100, False),
    (USUAL + b"TraceParent: 1\r\n", 100, False),
    (USUAL + b"X-Sequence: 1\r\n", 100, True),
]


@pytest.mark.parametrize(("rest", "most", "fits"), FITS)
def test_no_name_may_be_left_in_the_rest(request_lines: RequestLines, rest: bytes, most: int, fits: bool) -> None:
    changing = (b"\r\ntraceparent:", b"\r\nX-Seq:")
    assert fits_rest(b"\r\n" + rest, changing, request_lines, most) is fits


def test_a_configuration_that_says_otherwise_of_a_name_is_heeded() -> None:
    stripping = RequestLines(FieldRules(strip=("x-seq",)))
    assert not fits_rest(b"\r\n" + USUAL, (b"", b"\r\nX-Seq:"), stripping, 100)


@pytest.mark.parametrize("key", [b"", b" ek_1", b"ek_1 ", b"ek\0_1"])
def test_invalid_line_of_a_key_is_not_cut(key: bytes) -> None:
    assert cut_key(b"\r\nHost: a\r\nX-API-Key: %b\r\n" % key, (b"\r\nX-API-Key: ",)) is None


def test_key_is_cut_out_of_its_line() -> None:
    block = b"\r\nHost: a\r\nX-API-Key: ek_1\r\nAccept: b\r\n"
    cut = cut_key(block, (b"\r\nx-api-key: ", b"\r\nX-API-Key: "))
    assert cut == (b"\r\nHost: a\r\nX-API-Key: \r\nAccept: b\r\n", b"ek_1", 9, 22)
    assert cut_key(b"\r\nHost: a\r\n", (b"\r\nX-API-Key: ",)) is None
