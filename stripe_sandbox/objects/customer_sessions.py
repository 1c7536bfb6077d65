"""Secrets for a customer's browser or app, which are over soon: customer sessions and ephemeral keys."""

import os

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects.fields import get_customer, require_supported
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id

SESSION_SECONDS = 1800
KEY_SECONDS = 3600
COMPONENTS = (
    "active_entitlements",
    "buy_button",
    "customer_portal",
    "customer_sheet",
    "mobile_payment_element",
    "payment_element",
    "pricing_table",
)


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a session of a customer for parts of Stripe's pages."""
    customer = get_customer(tx, params)
    components = params["components"]
    if not any(part.get("enabled") for part in components.values()):
        raise invalid_request("You must enable at least one component.", "components")
    session: Body = {
        "id": generate_id("cuss"),
        "object": "customer_session",
        "client_secret": f"cuss_secret_{os.urandom(24).hex()}",
        "components": {
            name: {"enabled": components.get(name, {}).get("enabled", False)}
            | ({"features": components[name].get("features")} if name in components else {})
            for name in COMPONENTS
        },
        "created": tx.now,
        "customer": customer["id"],
        "expires_at": tx.now + SESSION_SECONDS,
        "livemode": tx.live,
    }
    tx.record_effect("customer_session.created", session["id"], customer=customer["id"])
    return session


def create_key(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create an ephemeral key of a customer; its secret is in this answer alone."""
    require_supported(params, "issuing_card", "nonce", "verification_session")
    customer = get_customer(tx, params)
    key: Body = {
        "id": generate_id("ephkey"),
        "object": "ephemeral_key",
        "created": tx.now,
        "expires": tx.now + KEY_SECONDS,
        "livemode": tx.live,
    }
    tx.insert(key)
    tx.record_effect("ephemeral_key.created", key["id"], customer=customer["id"])
    return {**key, "secret": f"ek_{'live' if tx.live else 'test'}_{os.urandom(24).hex()}"}


def delete_key(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """End an ephemeral key."""
    key = tx.get("ephemeral_key", ids["id"])
    tx.delete(key)
    return {**key, "expires": tx.now}
