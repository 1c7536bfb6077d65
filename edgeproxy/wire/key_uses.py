"""The keys that were used on a day, on their way to the collector: a field of each batch, outside its body. Pure.

While a key of the directory is in use, workers look it up at intervals (edge/proxy/routing/key_lookup.py). So the
supervisor knows the last day of use of each key without extra work for requests. If a process loses this data, the next
look-up of a key restores it.
"""

import base64
import binascii
import re
from collections.abc import Iterable

FIELD = "Edge-Keys"
"""`DAY;DIGESTS`: the day since 1970, and the concatenated SHA-256 of the keys in base64."""
KEYS_PER_BATCH_MAX = 100
"""Maximum keys per batch, which make a field of 4 KB."""
KEYS_MAX = 100_000
"""Maximum keys of a day that are stored. The use of further keys is not reported."""
DAY_SECONDS = 86_400
DIGEST_BYTES = 32
WRITTEN = re.compile(r"([0-9]{1,6});([A-Za-z0-9+/]{1,6000}={0,2})")
USAGE_KEY_DIGITS = 16


def format_usage_key(digest: bytes) -> bytes:
    """Return the name of a key in usage: the first digits of its SHA-256."""
    return digest.hex()[:USAGE_KEY_DIGITS].encode()


class KeysUsed:
    """The keys of today, and which of them the collector knows."""

    def __init__(self) -> None:
        self._day = 0
        self._seen: set[bytes] = set()
        self._waiting: list[bytes] = []
        self._under_way = 0

    def record(self, digests: Iterable[bytes], now: float) -> None:
        """Record the use of these keys at this Unix second."""
        day = int(now) // DAY_SECONDS
        if day != self._day:
            self._day, self._seen, self._waiting, self._under_way = day, set(), [], 0
        for digest in digests:
            if digest not in self._seen and len(self._seen) < KEYS_MAX:
                self._seen.add(digest)
                self._waiting.append(digest)

    def format_fields(self) -> dict[str, str]:
        """Return the field for the next batch, or nothing if there is no news."""
        digests = self._waiting[-KEYS_PER_BATCH_MAX:]
        self._under_way = len(digests)
        return {FIELD: f"{self._day};{base64.b64encode(b''.join(digests)).decode()}"} if digests else {}

    def acknowledge(self) -> None:
        """Drop the keys of the last `format_fields`, which the collector has received."""
        del self._waiting[len(self._waiting) - self._under_way :]
        self._under_way = 0


def parse_field(written: str | None) -> tuple[int, list[str]]:
    """Parse a field: the first Unix second of the day, and the SHA-256 of each key in hex.

    An invalid field gives no keys and no error, because it must not prevent the counting of its batch.
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
