"""The form of keys from edgeproxy: `PREFIX_v1_RANDOM_CHECK`.

PREFIX (by default `edge`) has 2 to 12 lower-case letters and digits, RANDOM 32 characters of base62 (190 bits), and
CHECK 6 characters of base62: the CRC-32 of `PREFIX_v1_RANDOM`. So no supervisor is asked for mistyped and most
invented keys, and scanners find keys with `REGEX`. Keys of any other form work as well.
"""

import re
import secrets
import zlib

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARACTERS, CHECK_CHARACTERS = 32, 6
PREFIX_REGEX = "[a-z0-9]{2,12}"
PREFIX, TEST_PREFIX = "edge", "edgetest"
"""The default prefix, and the prefix of test keys."""
REGEX = rf"{PREFIX_REGEX}_v1_[0-9A-Za-z]{{{RANDOM_CHARACTERS}}}_[0-9A-Za-z]{{{CHECK_CHARACTERS}}}"
FORM = re.compile(REGEX.encode())
START_CHARACTERS = 6
"""Characters of RANDOM that people see."""


def generate_key(prefix: str = PREFIX) -> str:
    """Generate a key from the system's randomness."""
    random = "".join(secrets.choice(BASE62) for _ in range(RANDOM_CHARACTERS))
    return _append_checksum(f"{prefix}_v1_{random}")


def get_key_start(key: str) -> str:
    """Return the first characters of a key. People recognise it by them, and cannot guess the rest."""
    return key[: key.index("_v1_") + len("_v1_") + START_CHARACTERS]


def is_miswritten(secret: bytes) -> bool:
    """Return whether a secret has the form of keys from edgeproxy but a wrong check."""
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
