"""Rejected events of customers. No column names the customer; only the event does, in any encoding. Pure."""

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from urllib.parse import unquote

import orjson
import sqlalchemy as sa
import zstandard

from edgeproxy.collector.database.schema import dead_letters
from edgeproxy.config.parsers import NAME

BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{4,}")
HEX_RUN = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")
JSON_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/]))')
BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\x80-\x9f]")
"""A character of bytes that are not text, for example MessagePack."""
ZSTD = b"\x28\xb5\x2f\xfd"
PACKED = (b"\x1f\x8b\x08", ZSTD, b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""The first bytes of gzip, Zstandard and zlib data."""
DEPTH_MAX = 4
"""The most nested encodings, for example compressed JSON in Base64."""
FORMS_CHARACTERS_MAX = 8 << 20
"""The most characters of all forms of an event that are searched.

An event with more is built to waste time, so it is taken to match any customer.
"""
INFLATED_BYTES_MAX = 1 << 20
ZSTD_WINDOW_BYTES_MAX = 8 << 20


def match_events(names: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a rejected event may contain one of these names. `names_one` decides.

    A name may be in plain text, in Base64 or hexadecimal, or in URL or JSON escapes or compressed data, which only
    `names_one` reads.
    """
    contents = [name.encode(encoding) for name in names for encoding in ("utf-8", "utf-16-le", "utf-16-be")]
    contents.append(b"\\u00")  # A JSON escape within Base64.
    texts = {form for content in contents for form in (*_encode_base64(content), *_encode_hex(content))} | set(names)
    texts |= {form for begin in PACKED for form in (*_encode_begin(begin), *_encode_hex(begin))}
    return sa.or_(*(dead_letters.c.event.contains(one, autoescape=True) for one in sorted({*texts, "%", "\\u"})))


def has_text(event: str, texts: Collection[str]) -> bool:
    """Return whether a rejected event contains one of these texts, encoded or not."""
    written = {form for text in texts for form in (text, orjson.dumps(text).decode()[1:-1], _as_bytes(text))}
    return _search(event, lambda form: any(one in form for one in written))


def names_one(event: str, names: Collection[str], *, if_doubtful: bool) -> bool:
    """Return whether a rejected event belongs to one of these customers, in our form or as a CloudEvent's subject.

    An event without a customer, for example a truncated one, may belong to them if it contains a name, encoded or not.
    The result is then `if_doubtful`.
    """
    try:
        content = orjson.loads(event)
    except orjson.JSONDecodeError:
        content = None
    named = content.get("customer", content.get("subject")) if isinstance(content, dict) else None
    if _names_one(named, names):
        return True
    if isinstance(named, str) and NAME.fullmatch(named):
        return False  # It belongs to another customer.
    if not if_doubtful:
        return False
    any_name = "|".join(map(re.escape, names))
    word = re.compile(rf"(?<![A-Za-z0-9_-])({any_name})(?![A-Za-z0-9_-])")
    # In binary data a name may follow a length or a number that looks like a letter.
    part = re.compile(any_name)
    return _search(event, lambda form: (part if BINARY.search(form) else word).search(form) is not None)


def _names_one(value: object, names: Collection[str]) -> bool:
    """Return whether a value is or contains one of these names. A service may have sent a list of customers."""
    if isinstance(value, dict | list):
        return any(_names_one(one, names) for one in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value in names


def _encode_base64(content: bytes) -> Iterator[str]:
    """Yield the Base64 of bytes after 0, 1 or 2 other bytes, without letters that depend on neighbouring bytes."""
    for offset in range(3):
        begin, end = -(-offset * 8 // 6), (offset + len(content)) * 8 // 6
        yield base64.b64encode(bytes(offset) + content).decode()[begin:end]


def _encode_begin(begin: bytes) -> Iterator[str]:
    """Yield the possible Base64 beginnings of content that begins with these bytes, in both alphabets."""
    whole = len(begin) * 8 // 6
    written = {base64.b64encode(begin + bytes((following, 0))).decode()[: whole + 1] for following in range(256)}
    yield from (form for one in written for form in (one, one.replace("+", "-").replace("/", "_")))


def _encode_hex(content: bytes) -> tuple[str, str]:
    return content.hex(), content.hex().upper()


def _as_bytes(text: str) -> str:
    """Return a text as its UTF-8 bytes read as Latin-1, like the forms of `_list_forms`."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _search(event: str, matches: Callable[[str], bool]) -> bool:
    """Return whether a form of an event matches, or the event has more forms than are searched."""
    characters = 0
    for form in _list_forms(event):
        characters += len(form)
        if characters > FORMS_CHARACTERS_MAX or matches(form):
            return True
    return False


def _list_forms(text: str, depth: int = DEPTH_MAX) -> Iterator[str]:
    """Yield a text and its decoded contents: URL and JSON escapes, Base64, hexadecimal, UTF-16, and compressed data."""
    yield text
    if not depth:
        return
    if "%" in text and (plain := unquote(text)) != text:
        yield from _list_forms(plain, depth - 1)
    if JSON_ESCAPE.search(text):
        plain = JSON_ESCAPE.sub(lambda match: match[2] or chr(int(match[1], 16)), text)
        yield from _list_forms(plain, depth - 1)
    if "\0" in text:
        yield from _list_forms(text.replace("\0", ""), depth - 1)
    decoded = [content for run in BASE64_RUN.findall(text) if (content := _decode_base64(run)) is not None]
    decoded += [bytes.fromhex(run) for run in HEX_RUN.findall(text)]
    for content in decoded:
        yield from _list_forms(_unpack(content).decode("latin-1"), depth - 1)


def _decode_base64(run: str) -> bytes | None:
    """Return the content of Base64, or None for other text."""
    padded = run.translate(str.maketrans("-_", "+/")) + "=" * (-len(run) % 4)
    try:
        return base64.b64decode(padded)
    except binascii.Error:
        return None


def _unpack(content: bytes) -> bytes:
    """Return compressed bytes uncompressed, even if they are cut off.

    Other and damaged bytes are returned unchanged.
    """
    if not content.startswith(PACKED):
        return content
    try:
        if content.startswith(ZSTD):
            reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).stream_reader(content)
            return reader.read(INFLATED_BYTES_MAX)
        return zlib.decompressobj(wbits=47).decompress(content, INFLATED_BYTES_MAX)  # gzip or zlib.
    except (zlib.error, zstandard.ZstdError):
        return content
