"""The seal of the cached directory on the disk: plain text, or encrypted so that only the holder of a key can read it.

Rows are found by a keyed hash of their look-up value, and each value is encrypted by AES-256-GCM under a nonce of its
own, bound to its row and column. So the file shows only how many customers and keys there are, and which keys belong
together.
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
    """The key is unavailable; the text gives the reason, and does not show the key."""


class Seal(Protocol):
    """The form of values on the disk."""

    layout: int
    """Number of the form in the file: no seal reads another form."""

    def index(self, value: bytes) -> bytes:
        """Return the index that finds the row of a value."""

    def close(self, value: bytes, row: bytes) -> bytes:
        """Return the written form of a value, for the row with this index."""

    def open(self, written: bytes, row: bytes) -> bytes:
        """Return the value of a written form.

        Raises sqlite3.DatabaseError if it is invalid, or was written with another key.
        """


class PlainSeal:
    """Values in plain text."""

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
        # Not imported at the top: it takes nine megabytes of a supervisor, and most of them encrypt nothing.
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


def load_seal(settings: CacheKey | None, started: "list[subprocess.Popen[bytes]]") -> Seal:
    """Return the configured seal. Raises KeyUnavailableError.

    If there is a command, its process is added to `started`. Whoever no longer waits for the seal must kill it.
    """
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
            # In a thread, like everything here.
            text = parse_secret(_run_command(settings.command, started))
        except (OSError, subprocess.SubprocessError, InvalidSecretError) as error:
            raise KeyUnavailableError(f"cache_key: {where} printed no key: {type(error).__name__}") from error
    try:
        return EncryptedSeal(parse_secret_key(text))
    except ValueError as error:
        raise KeyUnavailableError(f"cache_key: what {where} has is no key: {error}") from error


def _run_command(command: tuple[str, ...], started: "list[subprocess.Popen[bytes]]") -> bytes:
    """Return the output of a command. Raises OSError and SubprocessError."""
    pipe, environ = subprocess.PIPE, build_child_environment(os.environ)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ) as process:
        started.append(process)
        try:
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        finally:
            process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[0])
    return output
