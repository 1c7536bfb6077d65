"""API models of key rotation and of a customer's public key."""

from typing import Literal

from pydantic import JsonValue
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.webhooks.deliveries import WebhookState


class PutPublicKeyRequest(Body):
    """The public key to which secrets of new keys are encrypted."""

    jwk: dict[str, JsonValue]
    """A public JWK: RSA of 2048 to 8192 bits, EC of P-256, P-384 or P-521, or OKP of X25519. No private one."""


class PublicKey(TypedDict):
    """A public key that a customer has registered."""

    kty: str
    """The kind of the key: `RSA`, `EC` or `OKP`."""
    kid: str
    """The name of the key, which each message to it has."""
    alg: str
    """The algorithm by which secrets are encrypted to it: `RSA-OAEP-256` or `ECDH-ES+A256KW`, with `A256GCM`."""
    thumbprint: str
    """The SHA-256 thumbprint of the key (RFC 7638)."""


class KeyInRotation(TypedDict):
    """A key that is due for rotation, or was replaced and still works."""

    id: str
    """The id of the key."""
    start: str
    """The first characters of the key."""
    name: str | None
    """A name for people; null where there is none."""
    state: Literal["due", "sent", "rotating"]
    """`due`: its replacement is to be made; `sent`: it is on its way to the customer's webhook; `rotating`: it was
    collected."""
    rotate_by: str | None
    """The time by which the key should be rotated; null where it was."""
    next_key: str | None
    """The id of the key that is on its way, or has replaced it; null where there is none."""
    delivery: WebhookState | None
    """The state of the message with the replacement: `due`, `sent`, or `dead` where no endpoint takes it; null where
    there is none."""
    expires_at: str | None
    """The time at which the key ends; null: not before its replacement is collected."""


class KeyRotation(TypedDict):
    """The rotation of a customer's keys."""

    customer: str
    """The customer, by name."""
    every: str | None
    """The age at which a key is due; null where keys never are."""
    grace: str
    """The time for which a key works on once its replacement was collected."""
    deliver: Literal["portal", "webhook"]
    """The way in which the customer gets new keys: `portal` also without a public key, or an endpoint for them."""
    public_key: PublicKey | None
    """The public key to which secrets are encrypted; null where the customer has registered none."""
    endpoints: int
    """The number of enabled webhook endpoints that name the type `key.delivered`."""
    keys: list[KeyInRotation]
    """The keys that are due, on their way or replaced, oldest first, 100 at most."""
