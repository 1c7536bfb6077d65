"""Search bytes for marks of people, in every encoding that a program may have used.

A mark begins with STEM and ends with the number of a person, for example `planted-eu-017`. It consists of letters,
digits and hyphens, so URLs, JSON and HTML do not change it.
"""

import base64
import binascii
import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import zstandard

STEM = "planted-"
MARK = re.compile(rb"planted-(?:[a-z]{2}-)?[0-9]{3}")
ADDRESS = re.compile(rb"2001:db8:77:[ea][0-9]{3}")
"""The part of a person's IPv6 address that identifies the person; `mask_addresses` keeps the part before it."""
WIDE = re.compile(rb"p\0l\0a\0n\0t\0e\0d\0(?:[!-~]\0)*[!-~]")
ADDRESS_STEM = b"2001:db8:77:"
HEX = re.compile(rb"706c616e746564(?:[0-9a-f]{2})*")
BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{8,}")
ZSTD, GZIP, PARQUET, ZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"PAR1", b"PK\x03\x04"
DEPTH_MAX = 4
"""The deepest nesting of encodings, for example Base64 in a compressed batch."""


def _encode_stem(offset: int) -> bytes:
    """Return the Base64 of the stem at this byte offset, without the letters that depend on adjacent bytes."""
    begin, end = -(-offset * 8 // 6), (offset + len(STEM)) * 8 // 6
    return base64.b64encode(bytes(offset) + STEM.encode())[begin:end]


BASE64_STEMS = [_encode_stem(offset) for offset in range(3)]
WIDE_STEM = STEM.encode("utf-16-le")[:-1]
HEX_STEM = binascii.hexlify(STEM.encode())


def find_marks(content: bytes) -> Iterator[str]:
    """Yield the marks in bytes, in plain form and in all encodings."""
    for form in expand(content):
        lower = form.lower()
        for pattern in (MARK, ADDRESS) if STEM.encode() in lower or ADDRESS_STEM in lower else ():
            yield from (mark.decode() for mark in pattern.findall(lower))


def expand(content: bytes, depth: int = DEPTH_MAX) -> Iterator[bytes]:
    """Yield the bytes, and all bytes that are compressed or encoded in them."""
    yield content
    for inner in _list_inner(content, content.lower()) if depth else ():
        yield from expand(inner, depth - 1)


def _list_inner(content: bytes, lower: bytes) -> Iterator[bytes]:
    """Yield the compressed or encoded parts of bytes, decoded."""
    if WIDE_STEM in lower:
        yield from (found[::2] for found in WIDE.findall(lower))
    if HEX_STEM in lower:
        yield from (binascii.unhexlify(found) for found in HEX.findall(lower))
    if any(stem in content for stem in BASE64_STEMS):
        for run in BASE64_RUN.findall(content):
            if any(stem in run for stem in BASE64_STEMS):
                text = run.translate(bytes.maketrans(b"-_", b"+/"))
                for at in range(4):  # It may begin amidst other letters.
                    yield base64.b64decode(text[at : at + (len(text) - at) // 4 * 4])
                yield base64.b64decode(text + b"=" * (-len(text) % 4)) if len(text) % 4 != 1 else b""
    if content.startswith(PARQUET):
        yield _read_parquet(content)
    if content.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    yield from _list_frames(content, ZSTD)
    yield from _list_frames(content, GZIP)


def _list_frames(content: bytes, magic: bytes) -> Iterator[bytes]:
    """Yield the content of each compressed frame, up to the first missing byte."""
    at = content.find(magic)
    while at >= 0:
        try:
            if magic == ZSTD:
                yield zstandard.ZstdDecompressor().decompressobj().decompress(memoryview(content)[at:])
            else:
                yield zlib.decompressobj(wbits=31).decompress(memoryview(content)[at:])
        except (zstandard.ZstdError, zlib.error):
            pass  # Bytes that only look like a frame, or a frame split over database pages.
        at = content.find(magic, at + 1)


def _read_parquet(content: bytes) -> bytes:
    """Return all values of a Parquet file as text."""
    from pyarrow import parquet

    return repr(parquet.read_table(io.BytesIO(content)).to_pylist()).encode()


def search_files(*folders: Path) -> dict[str, set[str]]:
    """Return the marks in names and contents of files below folders, each with its files."""
    files_by_mark: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            name = str(file.relative_to(folder.parent))
            content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
            for mark in find_marks(name.encode() + b"\n" + content if not content.startswith(PARQUET) else content):
                files_by_mark[mark].add(name)
    return dict(files_by_mark)


def search_texts(texts: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Return the marks in texts, each with the names of its texts."""
    names_by_mark: dict[str, set[str]] = defaultdict(set)
    for name, content in texts.items():
        for mark in find_marks(content):
            names_by_mark[mark].add(name)
    return dict(names_by_mark)
