"""The form of keys that edgeproxy makes: `PREFIX_v1_RANDOM_CHECK`, such as `edge_v1_` and so on.

PREFIX is 2 to 12 lower-case letters and digits, RANDOM 32 characters of base62 (190 bits), and CHECK 6 characters of
base62: the CRC-32 of `PREFIX_v1_RANDOM`. So a key that was mistyped, or made up, is known for one without a look-up,
and scanners find keys by `REGEX`. Keys of any other form work as well.
"""

import re
import secrets
import zlib

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARACTERS, CHECK_CHARACTERS = 32, 6
PREFIX_REGEX = "[a-z0-9]{2,12}"
PREFIX, TEST_PREFIX = "edge", "edgetest"
"""The prefix by default, and that of keys to test with."""
REGEX = rf"{PREFIX_REGEX}_v1_[0-9A-Za-z]{{{RANDOM_CHARACTERS}}}_[0-9A-Za-z]{{{CHECK_CHARACTERS}}}"
FORM = re.compile(REGEX.encode())
START_CHARACTERS = 6
"""Characters of RANDOM that people see of a key."""


def generate_key(prefix: str = PREFIX) -> str:
    """Make a key of the system's randomness."""
    random = "".join(secrets.choice(BASE62) for _ in range(RANDOM_CHARACTERS))
    return _append_checksum(f"{prefix}_v1_{random}")


def get_key_start(key: str) -> str:
    """Return the first characters of a key, by which people know it; too few to guess the rest by."""
    return key[: key.index("_v1_") + len("_v1_") + START_CHARACTERS]


def is_miswritten(secret: bytes) -> bool:
    """Return whether a secret has the form of a key that was made here, and its check is another one."""
    if FORM.fullmatch(secret) is None:
        return False
    body = secret[: -CHECK_CHARACTERS - 1]
    return secret[-CHECK_CHARACTERS:] != _compute_checksum(body)


def _append_checksum(body: str) -> str:
    return f"{body}_{_compute_checksum(body.encode()).decode()}"


def _compute_checksum(body: bytes) -> bytes:
    rest, digits = zlib.crc32(body), bytearray()
    for _ in range(CHECK_CHARACTERS):
        rest, digit = divmod(rest, len(BASE62))
        digits.append(ord(BASE62[digit]))
    return bytes(reversed(digits))
