"""Stripe's quickstart "Checkout": a button of the shop leads to Stripe's page. Only the address of the API is ours."""

import os

import stripe
from flask import Flask, Response, jsonify, redirect, request

stripe.api_key = "sk_test_quickstart"
stripe.api_base = os.environ["STRIPE_BASE"]
app = Flask(__name__)

YOUR_DOMAIN = "http://localhost:4242"


@app.post("/create-checkout-session")
def create_checkout_session() -> object:
    """Send the customer to the page of a new session."""
    session = stripe.checkout.Session.create(
        line_items=[{"price": os.environ["PRICE_ID"], "quantity": 1}],
        mode="payment",
        success_url=YOUR_DOMAIN + "/success.html?session_id={CHECKOUT_SESSION_ID}",
        cancel_url=YOUR_DOMAIN + "/cancel.html",
        automatic_tax={"enabled": True},
    )
    assert session.url is not None
    return redirect(session.url, code=303)


@app.get("/session-status")
def session_status() -> Response:
    """Return the outcome of a session to the page of the shop."""
    session = stripe.checkout.Session.retrieve(request.args["session_id"])
    assert session.customer_details is not None
    return jsonify(status=session.status, customer_email=session.customer_details.email)
