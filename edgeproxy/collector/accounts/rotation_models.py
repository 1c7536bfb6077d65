"""API models of key rotation and of a customer's public key."""

from typing import Literal

from pydantic import JsonValue
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.webhooks.deliveries import WebhookState


class PutPublicKeyRequest(Body):
    """The public key that encrypts the secrets of new keys."""

    jwk: dict[str, JsonValue]
    """A public JWK: RSA of 2048 to 8192 bits, EC on P-256, P-384 or P-521, or OKP with X25519. A private JWK is
    refused.
    """


class PublicKey(TypedDict):
    """A public key that a customer has registered."""

    kty: str
    """The kind of the key: `RSA`, `EC` or `OKP`."""
    kid: str
    """The id of the key. Each message encrypted to it carries this id."""
    alg: str
    """The algorithm that encrypts secrets: `RSA-OAEP-256` or `ECDH-ES+A256KW`, with `A256GCM`."""
    thumbprint: str
    """The SHA-256 thumbprint of the key (RFC 7638)."""


class KeyInRotation(TypedDict):
    """A key that is due for rotation, or that was replaced and is still valid."""

    id: str
    """The id of the key."""
    start: str
    """The first characters of the key."""
    name: str | None
    """A name for people; null if there is none."""
    state: Literal["due", "sent", "rotating"]
    """`due`: no replacement exists yet; `sent`: the replacement is on its way to the customer's webhook; `rotating`:
    the customer has collected the replacement.
    """
    rotate_by: str | None
    """The deadline for rotating the key; null if it was rotated."""
    next_key: str | None
    """The id of the replacement key; null if there is none."""
    delivery: WebhookState | None
    """The state of the message with the replacement: `due`, `sent`, or `dead` if no endpoint accepted it; null without
    a message.
    """
    expires_at: str | None
    """The time when the key expires; null: the key stays valid until its replacement is collected."""


class KeyRotation(TypedDict):
    """The rotation of a customer's keys."""

    customer: str
    """The customer, by name."""
    every: str | None
    """The age that makes a key due; null if keys never are."""
    grace: str
    """The time that a key stays valid after its replacement was collected."""
    deliver: Literal["portal", "webhook"]
    """The delivery of new keys. It is `portal` also for a customer without a public key or an endpoint for keys."""
    public_key: PublicKey | None
    """The public key that encrypts secrets; null if the customer has registered none."""
    endpoints: int
    """The number of enabled webhook endpoints that subscribe to the type `key.delivered`."""
    keys: list[KeyInRotation]
    """The keys that are due, on their way or replaced, oldest first, at most 100."""
