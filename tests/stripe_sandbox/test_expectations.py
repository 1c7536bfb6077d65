"""Objects have the fields, of the types, that the fixtures of others' software have: dj-stripe's and pay's.

expectations.json holds the JSON types that were seen, by the object and the path of the field in it: of the fields
that stripe 16.1.0 still has. They are of dj-stripe f04d5d7e and pay 5b018bc1, both under the MIT licence.
`next_action` is an object here, as in Stripe's description of its API: dj-stripe's fixture has text.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import stripe

from tests.support.stripe_sandbox import Sandbox

EXPECTED: dict[str, dict[str, list[str]]] = orjson.loads(Path(__file__).with_name("expectations.json").read_bytes())
JSON_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
ABSENT = {
    "accounts are not connected": ("charge.transfer", "event.account", "payment_intent.transfer_data."),
    "answered only where a call expands it": (
        "customer.sources",
        "customer.subscriptions",
        "customer.tax_ids",
        "plan.tiers",
        "price.tiers",
    ),
    "answered once, to the call that creates it": ("webhook_endpoint.secret",),
    "not set in what is done here": (
        "invoice.automatic_tax.liability.",
        "invoice.payment_settings.payment_method_options.",
    ),
    "of an invoice that has a template": ("invoice.rendering.",),
    "a prediction about a person, which no test card has": ("charge.radar_options",),
    "cards are the only way to pay": ("payment_method.link",),
    "an amount that the fixture has as text": ("payout.amount",),
    "expanded in the fixture": ("invoice.total_discount_amounts[].discount",),
}
"""The fields of the fixtures that the sandbox lacks, as prefixes of paths, by reason."""


async def do_everything(client: stripe.StripeClient) -> tuple[str, str]:
    """Create one of each object. Return the customer and an unpaid session."""
    v1 = client.v1
    card = "pm_card_visa"
    customer = (
        await v1.customers.create_async(
            {
                "email": "a@example.com",
                "name": "A",
                "address": {"country": "US", "line1": "1 Way", "city": "Town", "postal_code": "1", "state": "CA"},
                "payment_method": card,
                "invoice_settings": {"default_payment_method": card},
            }
        )
    ).id
    vat = await v1.tax_rates.create_async({"display_name": "VAT", "percentage": 19, "inclusive": False})
    await v1.webhook_endpoints.create_async(
        {"url": "https://example.com", "enabled_events": ["radar.early_fraud_warning.created"]}
    )
    coupon = await v1.coupons.create_async({"percent_off": 10, "duration": "forever"})
    price = await v1.prices.create_async(
        {"currency": "usd", "unit_amount": 2000, "recurring": {"interval": "month"}, "product_data": {"name": "Pro"}}
    )
    await v1.subscriptions.create_async(
        {
            "customer": customer,
            "items": [{"price": price.id}],
            "discounts": [{"coupon": coupon.id}],
            "default_tax_rates": [vat.id],
        }
    )
    session = await v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "customer": customer,
            "line_items": [
                {"price_data": {"currency": "usd", "unit_amount": 500, "product_data": {"name": "T"}}, "quantity": 1}
            ],
            "success_url": "https://example.com",
        }
    )
    await v1.setup_intents.create_async({"customer": customer, "payment_method": card, "usage": "off_session"})
    await v1.payment_intents.create_async(
        {
            "amount": 900,
            "currency": "usd",
            "customer": customer,
            "payment_method": "pm_card_createDispute",
            "confirm": True,
            "return_url": "https://example.com",
            "description": "one",
        }
    )
    bypass = await v1.payment_intents.create_async(
        {
            "amount": 9000,
            "currency": "usd",
            "payment_method": "pm_card_bypassPending",
            "confirm": True,
            "return_url": "https://example.com",
        }
    )
    await v1.refunds.create_async({"payment_intent": bypass.id, "amount": 100})
    await v1.payouts.create_async({"amount": 1000, "currency": "usd"})
    invoice = await v1.invoices.create_async({"customer": customer})
    await v1.invoice_items.create_async({"customer": customer, "invoice": invoice.id, "amount": 100, "currency": "usd"})
    return customer, session.id


LISTS = (
    *("customers", "products", "prices", "coupons", "tax_rates", "webhook_endpoints", "subscriptions", "invoices"),
    *(
        "charges",
        "payment_intents",
        "setup_intents",
        "refunds",
        "disputes",
        "payouts",
        "balance_transactions",
        "events",
    ),
    *("invoiceitems", "invoice_payments", "checkout/sessions"),
)


def list_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside, at any depth."""
    if isinstance(value, list):
        for one in value:
            yield from list_objects(one)
    elif isinstance(value, dict):
        if isinstance(value.get("object"), str) and value["object"] != "list":
            yield value
        for one in value.values():
            yield from list_objects(one)


def read_paths(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field of an object with its path. Fields of nested objects are left out."""
    for name, value in body.items():
        yield prefix + name, value
        first, mark = (value[0], "[].") if isinstance(value, list) and value else (value, ".")
        if isinstance(first, dict) and "object" not in first:
            yield from read_paths(first, prefix + name + mark)


def test_objects_have_the_fields_that_clients_read(new_sandbox: Sandbox) -> None:
    customer, session = new_sandbox.run(do_everything)
    new_sandbox.control(f"checkout/{session}/pay", {"card": "pm_card_visa"})
    seen: dict[str, dict[str, set[str]]] = {}
    for name in (*LISTS, f"customers/{customer}/payment_methods", "subscriptions?expand[]=data.discounts"):
        answer = new_sandbox.call("GET", f"/v1/{name}")
        assert answer.status == 200, (name, answer.body)
        for body in list_objects(answer.json()):
            paths = seen.setdefault(body["object"], {})
            for path, value in read_paths(body):
                paths.setdefault(path, set()).update([] if value is None else [JSON_TYPES[type(value)]])
    assert EXPECTED.keys() <= seen.keys()
    absent = tuple(path for paths in ABSENT.values() for path in paths)
    differing = {
        f"{kind}.{path}": (types, seen[kind].get(path))
        for kind, fields in EXPECTED.items()
        for path, types in fields.items()
        if not is_met(set(types), seen[kind].get(path))
    }
    assert {path: types for path, types in differing.items() if not path.startswith(absent)} == {}
    assert [path for path in absent if not any(one.startswith(path) for one in differing)] == []


def is_met(expected: set[str], seen: set[str] | None) -> bool:
    """Return whether a field exists and, if it is set, has one of the expected types."""
    return seen is not None and (not seen or expected == {"null"} or bool(seen & expected))
