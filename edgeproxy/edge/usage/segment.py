"""A segment: a file of records that are only ever appended. Its content, and the readable part after damage.

    head      8 bytes `edge.seg`, and the version, 64 bits
    record    length of the payload, 32 bits; CRC-32C of that length and the payload, 32 bits; payload
    payload   zstd of: length of the body, 32 bits; sum of counts, 64 bits; body; marks

The body is exactly a batch's (batch.py). The sum of counts covers all values of this batch and the earlier ones, modulo
2^64, so that the unshipped sum is known without reading them. The marks are JSON:
`[[file, [row, …], [index, …], [total, …]], …]`, for each file of usage the numbers of its rows, which row of the batch
each went into, and its total when the batch was sealed. `file` is the number in its name; 0 is the durable base, whose
rows have the number 0. All numbers are little-endian.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import orjson
import zstandard
from google_crc32c import extend

HEAD = b"edge.seg" + (1).to_bytes(8, "little")
RECORD = struct.Struct("<II")
LENGTH = struct.Struct("<I")
BODY = struct.Struct("<IQ")
MODULUS = 1 << 64
"""Modulus of all counts."""
PAYLOAD_BYTES_MAX = 64 << 20
"""Bytes of an unpacked payload at most: a batch and its marks have half as many."""
FRAME = b"\x28\xb5\x2f\xfd"
"""First bytes of a payload, as of any zstd frame; they locate the next record after a damaged one."""
ZSTD_LEVEL = 3
BASE = 0
"""The number of the durable base among files."""


class Mark(NamedTuple):
    """A row's total when a batch was sealed. `of`: the index of the batch's row that its increase went into."""

    file: int
    row: int
    of: int
    total: int


class Record(NamedTuple):
    """A readable record. `offset` and `size` in bytes, with its eight bytes of length and checksum."""

    offset: int
    size: int
    body: bytes
    marks: tuple[Mark, ...]
    counted: int = 0


class Damage(NamedTuple):
    """Bytes that are not a record, up to `until`: the start of the next record, or the end of the file."""

    offset: int
    until: int
    why: str


def pack_record(body: bytes, marks: tuple[Mark, ...], counted: int = 0) -> bytes:
    """Return a record's bytes; `counted` is the sum of all values up to and including this batch's."""
    by_file: dict[int, tuple[list[int], list[int], list[int]]] = {}
    for file, row, of, total in marks:
        rows, indices, totals = by_file.setdefault(file, ([], [], []))
        rows.append(row)
        indices.append(of)
        totals.append(total)
    private = orjson.dumps([[file, *lists] for file, lists in by_file.items()])
    payload = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(
        BODY.pack(len(body), counted % MODULUS) + body + private
    )
    return RECORD.pack(len(payload), _compute_checksum(len(payload), payload)) + payload


def parse_records(content: bytes, start: int = 0, *, marked: bool = True) -> Iterator[Record | Damage]:
    """Yield the records of a segment in order, and the damage between them; no byte is left out.

    `content` has its bytes from `start` on: from its head, or from the start of a record. Without `marked`, marks are
    not parsed.
    """
    offset = 0
    if not start:
        offset = len(HEAD)
        if content[: len(HEAD)] != HEAD:
            yield Damage(0, min(len(content), offset), "does not begin as a segment of this version")
    while offset < len(content):
        payload = _find_payload(content, offset)
        if isinstance(payload, bytes):
            read = _unpack_payload(start + offset, payload, marked)
            if isinstance(read, Record):
                yield read
            else:
                yield Damage(start + offset, start + offset + RECORD.size + len(payload), read)
            offset += RECORD.size + len(payload)
        else:
            until = _find_next_record(content, offset + 1)
            yield Damage(start + offset, start + until, payload)
            offset = until


def _find_payload(content: bytes, offset: int) -> bytes | str:
    """Return the payload of the record at `offset`, or why there is none."""
    if len(content) - offset < RECORD.size:
        return "is cut off"
    length, checked = RECORD.unpack_from(content, offset)
    start = offset + RECORD.size
    if start + length > len(content):
        return "is cut off, or its length is wrong"
    payload = content[start : start + length]
    # A length of zeros has a checksum other than 0, so zeros are not a record.
    return payload if _compute_checksum(length, payload) == checked else "has another checksum than it should"


def _compute_checksum(length: int, payload: bytes) -> int:
    checked: int = extend(extend(0, LENGTH.pack(length)), payload)
    return checked


def _find_next_record(content: bytes, offset: int) -> int:
    """Find the next record from `offset` on; the end if there is none."""
    frame_at = content.find(FRAME, offset + RECORD.size)
    while frame_at >= 0:
        if isinstance(_find_payload(content, frame_at - RECORD.size), bytes):
            return frame_at - RECORD.size
        frame_at = content.find(FRAME, frame_at + 1)
    return len(content)


def _unpack_payload(offset: int, payload: bytes, marked: bool) -> Record | str:
    """Unpack a payload whose checksum is right, or return why it cannot be unpacked."""
    try:
        if not 0 <= zstandard.frame_content_size(payload) <= PAYLOAD_BYTES_MAX:
            return "unpacks to more than a batch has"
        content = zstandard.ZstdDecompressor().decompress(payload)
        length, counted = BODY.unpack_from(content)
        body, private = content[BODY.size : BODY.size + length], content[BODY.size + length :]
        marks = tuple(
            Mark(file, row, of, total)
            for file, rows, indices, totals in (orjson.loads(private) if marked else ())
            for row, of, total in zip(rows, indices, totals, strict=True)
        )
    except (zstandard.ZstdError, struct.error, ValueError, TypeError) as error:
        return f"was written by something else: {error}"
    return Record(offset, RECORD.size + len(payload), body, marks, counted)


class Disk:
    """The disk as appending uses it; tests replace it by one that fails, or kills the process."""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, fd: int) -> None:
        """Wait until the disk has it."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Drop everything after `size` bytes."""
        os.ftruncate(fd, size)
