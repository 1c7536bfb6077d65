"""Signatures of webhooks, by Standard Webhooks (standardwebhooks.com, specification 1.0.0). Pure."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from edgeproxy.config.collector.alerts import SECRET_PREFIX

VERSION = "v1"


def sign_webhook(message_id: str, second: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Return the header fields for a body: its id, the time of the attempt, and a signature with each secret.

    `second` is the Unix second of this attempt: receivers refuse old messages by it. The id is equal in all attempts:
    receivers recognize duplicates by it.
    """
    content = b".".join((message_id.encode(), str(second).encode(), body))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(f"{VERSION},{_compute_mac(secret, content)}" for secret in secrets),
    }


def _compute_mac(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
