"""What Stripe sent, encrypted at rest: it has names and addresses of customers.

The key is made of the secret that webhooks are signed by. Once that secret is taken out of the configuration nobody can
read what came under it, and need not: what changed is asked of Stripe, not of the event.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_BYTES = 32


class Payloads:
    """Closes and opens payloads under these secrets, of which the first one closes; there must be one."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [AESGCM(_key(secret)) for secret in secrets]

    def close(self, payload: bytes, event: str) -> bytes:
        """Encrypt the payload of an event; it can be opened under the id of this event alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._keys[0].encrypt(nonce, payload, event.encode())

    def open(self, closed: bytes, event: str) -> bytes | None:
        """Decrypt it; None where it was closed under a secret that is not known any more."""
        for key in self._keys:
            try:
                return key.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], event.encode())
            except InvalidTag:
                pass
        return None


def _key(secret: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, b"edgeproxy webhook payloads").derive(secret.encode())
