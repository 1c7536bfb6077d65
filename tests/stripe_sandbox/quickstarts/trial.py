"""Stripe's quickstart "Subscriptions" with a free trial: Checkout and the portal. Only the address is ours."""

import os

import stripe
from flask import Flask, redirect, request

stripe.api_key = "sk_test_quickstart"
stripe.api_base = os.environ["STRIPE_BASE"]
app = Flask(__name__)

YOUR_DOMAIN = "http://localhost:4242"


@app.post("/create-checkout-session")
def create_checkout_session() -> object:
    """Send the customer to the page of a new session."""
    prices = stripe.Price.list(lookup_keys=[request.json["lookup_key"]], expand=["data.product"])
    session = stripe.checkout.Session.create(
        line_items=[{"price": prices.data[0].id, "quantity": 1}],
        mode="subscription",
        payment_method_collection="if_required",
        subscription_data={
            "trial_period_days": 30,
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
        },
        success_url=YOUR_DOMAIN + "/success.html?session_id={CHECKOUT_SESSION_ID}",
        cancel_url=YOUR_DOMAIN + "/cancel.html",
    )
    assert session.url is not None
    return redirect(session.url, code=303)


@app.post("/create-portal-session")
def create_portal_session() -> object:
    """Send a customer who has bought to the portal."""
    session = stripe.checkout.Session.retrieve(request.json["session_id"])
    portal = stripe.billing_portal.Session.create(customer=str(session.customer), return_url=YOUR_DOMAIN)
    return redirect(portal.url, code=303)
