"""Encryption of webhook payloads at rest: they have names and addresses of customers.

The key is derived from the secret that signs webhooks. Once that secret leaves the configuration, its payloads
cannot be read, and need not be: changes are fetched from Stripe, not read from the event.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_BYTES = 32


class PayloadCipher:
    """Encrypts and decrypts payloads under these secrets, of which the first one encrypts; there must be one."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [AESGCM(_key(secret)) for secret in secrets]

    def encrypt(self, payload: bytes, event: str) -> bytes:
        """Encrypt the payload of an event; it can be decrypted under the id of this event alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._keys[0].encrypt(nonce, payload, event.encode())

    def decrypt(self, closed: bytes, event: str) -> bytes | None:
        """Decrypt a payload; return None where its secret is not known any more."""
        for key in self._keys:
            try:
                return key.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], event.encode())
            except InvalidTag:
                pass
        return None


def _key(secret: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, b"edgeproxy webhook payloads").derive(secret.encode())
