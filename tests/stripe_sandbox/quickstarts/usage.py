"""Stripe's guide "Usage-based billing": a meter, a price, a subscription, usage in a stream. The address is ours."""

import os
from typing import Any

import stripe
from flask import Flask, Response, jsonify, request

addresses: Any = {"api": os.environ["STRIPE_BASE"], "meter_events": os.environ["STRIPE_BASE"]}
client = stripe.StripeClient("sk_test_quickstart", base_addresses=addresses)
app = Flask(__name__)


@app.post("/create-subscription")
def create_subscription() -> Response:
    """Sell tokens to a new customer, at 4 cents each."""
    event_name = request.json["event_name"]
    meter = client.v1.billing.meters.create(
        {
            "display_name": "Tokens",
            "event_name": event_name,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "value_settings": {"event_payload_key": "value"},
        }
    )
    price = client.v1.prices.create(
        {
            "currency": "usd",
            "unit_amount": 4,
            "billing_scheme": "per_unit",
            "recurring": {"usage_type": "metered", "interval": "month", "meter": meter.id},
            "product_data": {"name": "Tokens"},
        }
    )
    customer = client.v1.customers.create({"name": "Jenny Rosen", "email": "jenny@example.com"})
    subscription = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    return jsonify(customer=customer.id, subscription=subscription.id)


@app.post("/record-usage")
def record_usage() -> Response:
    """Send events in a stream."""
    session = client.v2.billing.meter_event_session.create()
    sender = stripe.StripeClient(session.authentication_token, base_addresses=addresses)
    payload = {"stripe_customer_id": request.json["customer"], "value": "25"}
    sender.v2.billing.meter_event_stream.create(
        {"events": [{"event_name": request.json["event_name"], "payload": payload}] * 4}
    )
    return jsonify(status="success")


@app.get("/upcoming-invoice")
def preview_invoice() -> Response:
    """Return the amount that the customer will pay."""
    invoice = client.v1.invoices.create_preview({"subscription": request.args["subscription"]})
    return jsonify(total=invoice.total)
