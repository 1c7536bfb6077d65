"""The seal of the cached directory on the disk: in the clear, or so that only the holder of a key can read it.

Rows are found by a keyed hash of what they are looked up by, and each value is encrypted by AES-256-GCM under a nonce
of its own, bound to its row and column. So who has the file sees how many customers and keys there are, which keys
belong together, and nothing else.
"""

import hashlib
import hmac
import os
import sqlite3
import subprocess
from typing import Protocol

from edgeproxy.config.edge.directory_settings import CacheKey, parse_secret_key
from edgeproxy.config.environment import build_child_environment
from edgeproxy.config.secret_text import InvalidSecretError, parse_secret, read_secret_file

NONCE_BYTES = 12
COMMAND_SECONDS = 10.0
"""Seconds that a program may take to print the key."""


class KeyUnavailableError(OSError):
    """The key cannot be had; the text says why, and does not show it."""


class Seal(Protocol):
    """The form in which values are written to the disk."""

    layout: int
    """Number of the form in the file: no seal reads what another wrote."""

    def index(self, value: bytes) -> bytes:
        """Return the index by which the row of a value is found."""

    def close(self, value: bytes, row: bytes) -> bytes:
        """Return a value of the row with this index as it is written."""

    def open(self, written: bytes, row: bytes) -> bytes:
        """Return the value that was written so; raises sqlite3.DatabaseError where it was not, or by another key."""


class PlainSeal:
    """Values in the clear."""

    layout = 0

    def index(self, value: bytes) -> bytes:
        """See Seal."""
        return value

    def close(self, value: bytes, row: bytes) -> bytes:
        """See Seal."""
        return value

    def open(self, written: bytes, row: bytes) -> bytes:
        """See Seal."""
        return bytes(written)


class EncryptedSeal:
    """Values encrypted with a key of 32 bytes."""

    layout = 1

    def __init__(self, key: bytes) -> None:
        # Not at the top: it takes nine megabytes of a supervisor, most of which encrypt nothing.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        self._errors = (InvalidTag, ValueError)
        derived = HKDF(SHA256(), 64, salt=None, info=b"edgeproxy directory cache").derive(key)
        self._cipher = AESGCM(derived[:32])
        self._keyed = hmac.new(derived[32:], digestmod=hashlib.sha256)

    def index(self, value: bytes) -> bytes:
        """See Seal."""
        keyed = self._keyed.copy()
        keyed.update(value)
        return keyed.digest()

    def close(self, value: bytes, row: bytes) -> bytes:
        """See Seal."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, row)

    def open(self, written: bytes, row: bytes) -> bytes:
        """See Seal."""
        try:
            return self._cipher.decrypt(written[:NONCE_BYTES], written[NONCE_BYTES:], row)
        except self._errors as error:
            raise sqlite3.DatabaseError("what is there was not encrypted with this key") from error


def load_seal(settings: CacheKey | None) -> Seal:
    """Return the seal that is configured. Runs the command, if there is one. Raises KeyUnavailableError."""
    if settings is None:
        return PlainSeal()
    if settings.key is not None:
        return EncryptedSeal(parse_secret_key(settings.key))
    if settings.file is not None:
        where = str(settings.file)
        try:
            text = read_secret_file(settings.file)
        except InvalidSecretError as error:
            raise KeyUnavailableError(f"cache_key: {error}") from error
    else:
        assert settings.command is not None
        where = settings.command[0]
        try:
            # In a thread, as everything here.
            completed = subprocess.run(
                settings.command,
                capture_output=True,
                timeout=COMMAND_SECONDS,
                check=True,
                env=build_child_environment(os.environ),
            )
            text = parse_secret(completed.stdout)
        except (OSError, subprocess.SubprocessError, InvalidSecretError) as error:
            raise KeyUnavailableError(f"cache_key: {where} printed no key: {type(error).__name__}") from error
    try:
        return EncryptedSeal(parse_secret_key(text))
    except ValueError as error:
        raise KeyUnavailableError(f"cache_key: what {where} has is no key: {error}") from error
