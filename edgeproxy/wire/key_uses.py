"""The keys that were used on a day, on their way to the collector: a field beside each batch, outside of its body.

Workers ask again and again whose a key of the directory is (edge/proxy/key_lookup.py), for as long as it is used. So
the supervisor knows of every key what it takes to say on which day it was used last, and no request does anything for
it. What is lost with the process is told the next time that the key is asked for. Pure.
"""

import base64
import binascii
import re
from collections.abc import Iterable

FIELD = "Edge-Keys"
"""`DAY;DIGESTS`: the day since 1970, and the SHA-256 of each key, one after the other, in base64."""
KEYS_PER_BATCH_MAX = 100
"""Keys that go with a batch: a field of 4 KB."""
KEYS_MAX = 100_000
"""Keys of a day that are remembered; the day of others is not told."""
DAY_SECONDS = 86_400
DIGEST_BYTES = 32
WRITTEN = re.compile(r"([0-9]{1,6});([A-Za-z0-9+/]{1,6000}={0,2})")
USAGE_KEY_DIGITS = 16


def format_usage_key(digest: bytes) -> bytes:
    """Return what a key is called in usage: the first digits of its SHA-256."""
    return digest.hex()[:USAGE_KEY_DIGITS].encode()


class KeysUsed:
    """The keys of today, and which of them the collector has heard of."""

    def __init__(self) -> None:
        self._day = 0
        self._seen: set[bytes] = set()
        self._waiting: list[bytes] = []
        self._under_way = 0

    def record(self, digests: Iterable[bytes], now: float) -> None:
        """Record that these keys are in use at this Unix second."""
        day = int(now) // DAY_SECONDS
        if day != self._day:
            self._day, self._seen, self._waiting, self._under_way = day, set(), [], 0
        for digest in digests:
            if digest not in self._seen and len(self._seen) < KEYS_MAX:
                self._seen.add(digest)
                self._waiting.append(digest)

    def format_fields(self) -> dict[str, str]:
        """Write the field that goes with the next batch; none where there is nothing to tell."""
        digests = self._waiting[-KEYS_PER_BATCH_MAX:]
        self._under_way = len(digests)
        return {FIELD: f"{self._day};{base64.b64encode(b''.join(digests)).decode()}"} if digests else {}

    def acknowledge(self) -> None:
        """Drop what `format_fields` wrote last, which the collector has."""
        del self._waiting[len(self._waiting) - self._under_way :]
        self._under_way = 0


def parse_field(written: str | None) -> tuple[int, list[str]]:
    """Read a field: the Unix second at which the day begins, and the SHA-256 of each key in hex; none where it is odd.

    It is told beside what is counted, and must never be in its way.
    """
    match = WRITTEN.fullmatch(written or "")
    if match is None:
        return 0, []
    try:
        digests = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return 0, []
    if len(digests) % DIGEST_BYTES:
        return 0, []
    pieces = [digests[at : at + DIGEST_BYTES].hex() for at in range(0, len(digests), DIGEST_BYTES)]
    return int(match[1]) * DAY_SECONDS, pieces
