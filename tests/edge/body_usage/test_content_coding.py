"""Decoding bodies beside the relay, with a bound on the decoded size."""

import gzip
import random
import zlib

import pytest
import zstandard

from edgeproxy.edge.body_usage.content_coding import (
    BYTES_FREE,
    MEMBERS_MAX,
    PIECE_BYTES_MAX,
    RATIO_MAX,
    Inflater,
    ZstdDecoder,
    create_decoder,
)

TEXT = random.Random(1).randbytes(100_000) + b"data: {}\n\n" * 10_000


@pytest.mark.parametrize(
    "packed", [gzip.compress(TEXT), zlib.compress(TEXT), gzip.compress(TEXT[:7]) * 2], ids=range(3)
)
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_any_split_becomes_the_text(packed: bytes, size: int) -> None:
    inflater = Inflater()
    pieces = [piece for at in range(0, len(packed), size) for piece in inflater.feed(packed[at : at + size])]
    assert b"".join(pieces) in (TEXT, TEXT[:7] * 2)
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX
    assert not inflater.is_broken


NOT_PACKED = [b"{}", gzip.compress(TEXT)[:50_000] + b"x" * 100_000, gzip.compress(b"{}") + b"xyz"]


@pytest.mark.parametrize("body", NOT_PACKED, ids=range(3))
def test_inflater_reports_invalid_data_as_broken(body: bytes) -> None:
    inflater = Inflater()
    list(inflater.feed(body))
    assert inflater.is_broken
    assert list(inflater.feed(gzip.compress(b"{}"))) == []


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_bomb_does_not_go_off(size: int) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    inflater, length = Inflater(), 0
    for at in range(0, len(bomb), size):
        length += sum(map(len, inflater.feed(bomb[at : at + size])))
    assert inflater.is_broken
    assert length <= BYTES_FREE + RATIO_MAX * len(bomb)
    assert length < 50 << 20


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_members_of_nothing_are_not_decoded_for_long(size: int) -> None:
    """Each takes 20 bytes and some microseconds, and the rest behind it is copied: 0.7 s of CPU for a MiB at once."""
    body = gzip.compress(b"") * (MEMBERS_MAX + 1)
    inflater = Inflater()
    assert [piece for at in range(0, len(body), size) for piece in inflater.feed(body[at : at + size]) if piece] == []
    assert inflater.is_broken


def test_each_coding_has_its_decoder() -> None:
    assert create_decoder(b"") is None
    assert isinstance(create_decoder(b"x-gzip"), Inflater)
    assert isinstance(create_decoder(b"zstd"), ZstdDecoder)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_in_any_split_becomes_the_text(size: int, frames: int) -> None:
    packed = zstandard.compress(TEXT, 3) * frames
    decoder = ZstdDecoder()
    pieces = [piece for at in range(0, len(packed), size) for piece in decoder.feed(packed[at : at + size])]
    assert b"".join(pieces) == TEXT * frames
    assert not decoder.is_broken


@pytest.mark.parametrize(
    "body",
    [
        b"{}" * 20,
        zstandard.compress(TEXT)[:50_000] + b"x" * 100_000,
        zstandard.compress(b"{}") + b"xyz!",
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
        ).compressobj().compress(TEXT * 30),
    ],
    ids=["text", "cut", "text behind it", "a window of 128 MiB"],
)  # fmt: skip
def test_zstd_decoder_reports_invalid_data_as_broken(body: bytes) -> None:
    decoder = ZstdDecoder()
    list(decoder.feed(body))
    assert decoder.is_broken
    assert list(decoder.feed(zstandard.compress(b"{}"))) == []


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_bomb_of_zstd_does_not_go_off(size: int) -> None:
    """A thousand million zero bytes. Only a small part of them is ever in memory."""
    block = (128 << 10) << 3 | 1 << 1  # RFC 8878 section 3.1.1.2: a byte that is repeated 128 Ki times.
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + (block.to_bytes(3, "little") + b"\0") * 8000
    decoder, lengths = ZstdDecoder(), [0]
    for at in range(0, len(frame), size):
        lengths += map(len, decoder.feed(frame[at : at + size]))
    assert decoder.is_broken
    assert sum(lengths) <= BYTES_FREE + RATIO_MAX * len(frame)
    assert max(lengths) <= 4 << 20
