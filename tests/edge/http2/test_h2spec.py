"""The cases of h2spec on the protocol alone; tests/e2e/test_h2spec.py has them at a whole edge."""

import pytest

from edgeproxy.edge.http2.errors import ErrorCode
from tests.edge.http2.peer import ACK, DATA, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, Peer, settings
from tests.support.h2spec import CASES, INVALID_PREFACE, Expected


@pytest.mark.parametrize(("case", "frames", "expected"), CASES, ids=[case[0] for case in CASES])
def test_parser_answers_each_h2spec_case(case: str, frames: bytes, expected: Expected) -> None:
    peer = Peer(b"hello", greets=False)
    if case != INVALID_PREFACE:
        peer.send(PREFACE + settings())
        if frames:
            peer.frames()
    peer.send(frames)
    written = peer.frames()
    last = written[-1]
    if expected[0] == "pong":
        assert [(frame.flags, frame.payload) for frame in written if frame.kind == PING] == [(ACK, b"h2spec\0\0")]
    elif expected[0] == "head":
        assert [(frame.number, frame.payload[-1:]) for frame in written if frame.kind == HEADERS] == [(1, b"\x88")]
    elif expected[0] == "data of 1 byte":
        assert [(frame.number, len(frame.payload), frame.flags) for frame in written if frame.kind == DATA][-1] == (
            1,
            1,
            0,
        )
    elif expected[0] == "settings acknowledged":
        assert (last.kind, last.flags, last.payload) == (SETTINGS, ACK, b"")
    else:
        kind = RST_STREAM if expected[0] == "stream error" else GOAWAY
        assert (last.kind, ErrorCode(last.code)) == (kind, expected[1])
    assert (peer.closed is not None) is (expected[0] == "connection error")


def test_there_are_as_many_cases_as_h2spec_has() -> None:
    assert len(CASES) == 147
