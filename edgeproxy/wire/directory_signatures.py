"""The signatures of the directory: Ed25519 (RFC 8032) over its lines.

A signed line consists of its content, a space, and the signature in Base64. The signature covers the kind of line too,
so a line cannot pass for another kind.
"""

import base64
import binascii
import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Functions import it when needed, so a supervisor without a signed directory saves nine megabytes.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "ed25519:"
"""Prefix of the text of a public key."""
SIGNATURE_BYTES = 64


class LineKind(Enum):
    """The kind of a line. Its value precedes the line in the signed text."""

    VERSION = b"edgeproxy directory version\n"
    TIME = b"edgeproxy directory time\n"


class UntrustedLineError(Exception):
    """A line without a signature from a trusted key. The message completes the sentence "it ..."."""


class InvalidSigningKeyError(Exception):
    """A file without a private key. The message says why."""


class Signer:
    """A private key."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key

    @classmethod
    def load(cls, file: Path) -> "Signer":
        """Read the key of `keygen`. Raises InvalidSigningKeyError."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except OSError as error:
            raise InvalidSigningKeyError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise InvalidSigningKeyError(f"{file} has no private key in PEM without a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidSigningKeyError(f"{file} has a key of another kind: `edgeproxy directory keygen` makes one")
        return cls(key)

    @property
    def public_key(self) -> str:
        """The public key as in an edge's `trust`."""
        raw = self._key.public_key().public_bytes_raw()
        return PREFIX + base64.b64encode(raw).decode()

    def sign(self, kind: LineKind, payload: bytes) -> bytes:
        """Return the signed line of a payload."""
        return payload + b" " + base64.b64encode(self._key.sign(kind.value + payload))


class TrustedKeys:
    """The public keys of trusted signers."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Read the keys in the form of `Signer.public_key`. Raises ValueError if one is invalid."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self._keys = [Ed25519PublicKey.from_public_bytes(parse_public_key(key)) for key in keys]

    def verify(self, kind: LineKind, line: bytes) -> None:
        """Raise UntrustedLineError unless one of the keys has signed this line as this kind."""
        payload, signature = split_signature(line)
        if signature is None:
            raise UntrustedLineError("is not signed")
        from cryptography.exceptions import InvalidSignature

        for key in self._keys:
            try:
                key.verify(signature, kind.value + payload)
            except InvalidSignature:
                continue
            return
        raise UntrustedLineError("has no signature of a key that is trusted here")


def split_signature(line: bytes) -> tuple[bytes, bytes | None]:
    """Split a line into its content and its signature. None: there is no signature."""
    payload, space, encoded = line.rpartition(b" ")
    if not space:
        return line, None
    try:
        signature = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return line, None
    return (payload, signature) if len(signature) == SIGNATURE_BYTES else (line, None)


def parse_public_key(text: str) -> bytes:
    """Parse the 32 bytes of a public key; raises ValueError."""
    if not text.startswith(PREFIX):
        raise ValueError("it does not begin with ed25519:")
    raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    if len(raw) != 32:
        raise ValueError("it has not 32 bytes")
    return raw


def create_key_file(file: Path) -> str:
    """Write a new private key to a new file, readable only by its owner. Return the public key.

    Raises OSError.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        target.write(pem)
        target.flush()
        os.fsync(target.fileno())
    return Signer(key).public_key
