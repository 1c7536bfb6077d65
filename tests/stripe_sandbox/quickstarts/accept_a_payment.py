"""Stripe's quickstart "Accept a payment": a page pays an intent of the server. Only the address is ours."""

import os

import stripe
from flask import Flask, Response, jsonify, request

stripe.api_key = "sk_test_quickstart"
stripe.api_base = os.environ["STRIPE_BASE"]
app = Flask(__name__)


def calculate_order_amount(items: list[dict[str, int]]) -> int:
    """Sum the order here, so that no page can name its own price."""
    return sum(item["amount"] for item in items)


@app.post("/create-payment-intent")
def create_payment() -> Response:
    """Create the intent that the page confirms by its secret."""
    intent = stripe.PaymentIntent.create(
        amount=calculate_order_amount(request.json["items"]),
        currency="usd",
        automatic_payment_methods={"enabled": True},
    )
    return jsonify({"clientSecret": intent["client_secret"]})
