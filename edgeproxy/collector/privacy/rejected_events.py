"""Rejected events of customers. No column says whose they are: the event itself does, in whatever form. Pure."""

import base64
import binascii
import re
import zlib
from collections.abc import Collection, Iterator
from urllib.parse import unquote

import orjson
import sqlalchemy as sa

from edgeproxy.collector.database.schema import dead_letters
from edgeproxy.config.parsers import NAME

BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{4,}")
GZIP, GZIP_BASE64 = b"\x1f\x8b\x08", "H4sI"
"""The beginning of what gzip writes, and of its Base64."""
DEPTH_MAX = 3
"""Forms within forms, such as JSON that is compressed and in Base64."""
INFLATED_BYTES_MAX = 1 << 20


def match_events(names: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a rejected event may have one of these names anywhere; `names_one` says whether.

    A name may be in the clear, in Base64, or behind an escape of URLs or in something compressed, which only
    `names_one` reads.
    """
    event = dead_letters.c.event
    texts = {text for name in names for text in (name, *_encode_base64(name))}
    return sa.or_(*(event.contains(text, autoescape=True) for text in sorted({*texts, GZIP_BASE64, "%"})))


def names_one(event: str, names: Collection[str], *, if_doubtful: bool) -> bool:
    """Return whether a rejected event is of one of these customers: in its own form, or as a CloudEvent's subject.

    An event that says no customer, as one that was cut off, and has such a name anywhere, encoded or not, may be
    theirs: then it is `if_doubtful`.
    """
    try:
        content = orjson.loads(event)
    except orjson.JSONDecodeError:
        content = None
    named = content.get("customer", content.get("subject")) if isinstance(content, dict) else None
    if _names_one(named, names):
        return True
    if isinstance(named, str) and NAME.fullmatch(named):
        return False  # It is somebody else's.
    word = re.compile(rf"(?<![A-Za-z0-9_-])({'|'.join(map(re.escape, names))})(?![A-Za-z0-9_-])")
    return if_doubtful and any(word.search(text) for text in _list_forms(event))


def _names_one(value: object, names: Collection[str]) -> bool:
    """Return whether a value is one of these names, or has one in it: a service may have sent a list of customers."""
    if isinstance(value, dict | list):
        return any(_names_one(one, names) for one in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value in names


def _encode_base64(name: str) -> Iterator[str]:
    """Yield what Base64 makes of a name after 0, 1 or 2 bytes, without the letters that its neighbours decide."""
    for offset in range(3):
        begin, end = -(-offset * 8 // 6), (offset + len(name)) * 8 // 6
        yield base64.b64encode(bytes(offset) + name.encode()).decode()[begin:end]


def _list_forms(text: str, depth: int = DEPTH_MAX) -> Iterator[str]:
    """Yield a text, and what is encoded in it: escapes of URLs, Base64, and gzip in Base64."""
    yield text
    if not depth:
        return
    if "%" in text and (plain := unquote(text)) != text:
        yield from _list_forms(plain, depth - 1)
    for run in BASE64_RUN.findall(text):
        if (content := _decode_base64(run)) is not None:
            yield from _list_forms(content.decode("latin-1"), depth - 1)


def _decode_base64(run: str) -> bytes | None:
    """Return what is in Base64, uncompressed as far as it is whole; None for other text."""
    padded = run.translate(str.maketrans("-_", "+/")) + "=" * (-len(run) % 4)
    try:
        content = base64.b64decode(padded)
    except binascii.Error:
        return None
    if not content.startswith(GZIP):
        return content
    try:
        return zlib.decompressobj(wbits=31).decompress(content, INFLATED_BYTES_MAX)
    except zlib.error:
        return None
