"""Stripe's guide "Save and reuse": a card is set up, and charged later. Only the address is ours."""

import os

import stripe
from flask import Flask, Response, jsonify, request

stripe.api_key = "sk_test_quickstart"
stripe.api_base = os.environ["STRIPE_BASE"]
app = Flask(__name__)


@app.post("/create-setup-intent")
def create_setup_intent() -> Response:
    """Create the intent for saving a new customer's card."""
    customer = stripe.Customer.create()
    setup_intent = stripe.SetupIntent.create(customer=customer["id"], automatic_payment_methods={"enabled": True})
    return jsonify({"customer": customer["id"], "clientSecret": setup_intent.client_secret})


@app.post("/charge")
def charge() -> tuple[Response, int]:
    """Charge the saved card while its owner is away."""
    customer = request.json["customer"]
    payment_methods = stripe.PaymentMethod.list(customer=customer, type="card")
    try:
        intent = stripe.PaymentIntent.create(
            amount=1099,
            currency="usd",
            automatic_payment_methods={"enabled": True},
            customer=customer,
            payment_method=payment_methods.data[0].id,
            return_url="https://example.com/order/123/complete",
            off_session=True,
            confirm=True,
        )
    except stripe.CardError as error:
        return jsonify({"code": error.code}), 402
    return jsonify({"status": intent.status}), 200
