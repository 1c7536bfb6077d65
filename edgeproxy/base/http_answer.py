"""What is read of the answers of HTTP servers that are asked: no more than a beginning, and when to ask again."""

import re

import aiohttp

SECONDS = re.compile(r"[0-9]{1,9}")


async def read_prefix(content: aiohttp.StreamReader, most: int) -> bytes:
    """Read the first bytes of a body, `most` at most; where there is more, the connection is closed with the answer."""
    pieces, size = [], 0
    while size < most and (piece := await content.read(most - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def parse_retry_after(retry_after: str | None) -> float | None:
    """Parse the seconds of a Retry-After; None where it has a date, or nothing."""
    return float(retry_after) if retry_after is not None and SECONDS.fullmatch(retry_after.strip()) else None
