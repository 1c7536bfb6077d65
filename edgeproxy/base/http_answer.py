"""Reading answers of other HTTP servers: only the beginning of a body, and the time of the next attempt."""

import re

import aiohttp

SECONDS = re.compile(r"[0-9]{1,9}")


async def read_prefix(content: aiohttp.StreamReader, most: int) -> bytes:
    """Read at most `most` first bytes of a body. If it is longer, closing the response closes the connection."""
    pieces, size = [], 0
    while size < most and (piece := await content.read(most - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def parse_retry_after(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After. None: it is absent or a date."""
    return float(retry_after) if retry_after is not None and SECONDS.fullmatch(retry_after.strip()) else None
