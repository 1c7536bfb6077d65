"""Encryption of columns at rest, with keys derived from secrets of the configuration.

Stripe's events hold names and addresses of customers. Their key is derived from the secret that signs webhooks. After
that secret has left the configuration, their payloads are unreadable. They are not needed then: changes are fetched
from Stripe.
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
"""The purpose of payloads from Stripe."""


class ColumnCipher:
    """Encrypts and decrypts values with keys from at least one secret. The first secret encrypts.

    A value encrypted for one `purpose` cannot be decrypted for another.
    """

    def __init__(self, secrets: Sequence[str], purpose: str = STRIPE_PAYLOADS) -> None:
        self._keys = [AESGCM(_derive_key(secret, purpose)) for secret in secrets]

    def encrypt(self, value: bytes, row: str) -> bytes:
        """Encrypt a value of a row. It can only be decrypted with the id of this row."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._keys[0].encrypt(nonce, value, row.encode())

    def decrypt(self, closed: bytes, row: str) -> bytes | None:
        """Decrypt a value. Return None if its secret is no longer configured."""
        for key in self._keys:
            try:
                return key.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], row.encode())
            except InvalidTag:
                pass
        return None


def _derive_key(secret: str, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, purpose.encode()).derive(secret.encode())
