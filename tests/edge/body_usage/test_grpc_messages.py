"""Messages of gRPC in one direction: as many as there are, wherever pieces begin and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.body_usage.grpc_messages import MessageScanner

MESSAGES = st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=12)


def prefixed(payload: bytes, *, packed: bool = False) -> bytes:
    return bytes([packed]) + len(payload).to_bytes(4, "big") + payload


@given(MESSAGES, st.lists(st.integers(0, 400), max_size=12))
def test_grpc_message_counts_at_its_last_byte_for_any_split(
    messages: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    data = b"".join(prefixed(payload, packed=packed) for packed, payload in messages)
    ends = [sum(5 + len(payload) for _, payload in messages[: n + 1]) for n in range(len(messages))]
    scanner, position, counted = MessageScanner(), 0, 0
    for cut in sorted({min(cut, len(data)) for cut in (*cuts, len(data))}):
        counted += scanner.count_ends(data[position:cut])
        position = cut
        assert counted == sum(end <= position for end in ends)


@pytest.mark.parametrize("size", [1, 4, 5, 6, 11])
def test_a_message_that_is_cut_off_does_not_count(size: int) -> None:
    scanner = MessageScanner()
    assert scanner.count_ends(prefixed(b"") + prefixed(b"hello!!")[:size]) == 1
    assert scanner.count_ends(b"") == 0


def test_a_long_message_is_not_kept() -> None:
    scanner = MessageScanner()
    assert scanner.count_ends(b"\0" + (1 << 20).to_bytes(4, "big")) == 0
    for _ in range(15):
        assert scanner.count_ends(bytes(1 << 16)) == 0
    assert scanner.count_ends(bytes(1 << 16) + prefixed(b"x") + b"\0") == 2
