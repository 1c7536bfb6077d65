"""Encryption of columns at rest, under keys that are derived from secrets of the configuration.

What Stripe sends has names and addresses of customers; its key comes from the secret that signs webhooks. Once that
secret leaves the configuration, its payloads cannot be read, and need not be: changes are fetched from Stripe.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_BYTES = 32
STRIPE_PAYLOADS = "edgeproxy webhook payloads"
"""The purpose of what Stripe sends."""


class ColumnCipher:
    """Encrypts and decrypts values under these secrets, of which the first one encrypts; there must be one.

    What is encrypted for one `purpose` cannot be decrypted for another one.
    """

    def __init__(self, secrets: Sequence[str], purpose: str = STRIPE_PAYLOADS) -> None:
        self._keys = [AESGCM(_derive_key(secret, purpose)) for secret in secrets]

    def encrypt(self, value: bytes, row: str) -> bytes:
        """Encrypt a value of a row; it can be decrypted under the id of this row alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._keys[0].encrypt(nonce, value, row.encode())

    def decrypt(self, closed: bytes, row: str) -> bytes | None:
        """Decrypt a value; return None where its secret is not known any more."""
        for key in self._keys:
            try:
                return key.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], row.encode())
            except InvalidTag:
                pass
        return None


def _derive_key(secret: str, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, purpose.encode()).derive(secret.encode())
