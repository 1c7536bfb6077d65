"""The card that pays for a subscription, and the payment methods and API versions that calls may name."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, Sandbox

SAVES: Any = {"save_default_payment_method": "on_subscription"}
OLDER = "2024-06-20"


async def subscribe(client: stripe.StripeClient, **fields: Any) -> stripe.Subscription:
    """Subscribe a customer without a card."""
    price = await client.v1.prices.create_async(
        {"currency": "usd", "unit_amount": 2000, "recurring": {"interval": "month"}, "product_data": {"name": "Pro"}}
    )
    customer = (await client.v1.customers.create_async({"email": "a@example.com"})).id
    return await client.v1.subscriptions.create_async({"customer": customer, "items": [{"price": price.id}], **fields})


@pytest.mark.parametrize("saves", [True, False])
def test_a_trial_without_a_card_asks_for_one_by_a_setup_intent(stripe_api: Api, saves: bool) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        expand = ["latest_invoice.confirmation_secret"]  # as Stripe's guide does, with a trial or without
        trial = await subscribe(client, trial_period_days=14, payment_settings=SAVES if saves else {}, expand=expand)
        assert (trial.status, trial.default_payment_method) == ("trialing", None)
        assert isinstance(trial.latest_invoice, stripe.Invoice)
        assert trial.latest_invoice.confirmation_secret is None
        assert isinstance(trial.pending_setup_intent, str)
        intent = await client.v1.setup_intents.retrieve_async(trial.pending_setup_intent)
        assert (intent.status, intent.usage, intent.customer) == (
            "requires_payment_method",
            "off_session",
            trial.customer,
        )
        done = await client.v1.setup_intents.confirm_async(
            intent.id, {"payment_method": "pm_card_visa", "return_url": "https://example.com"}
        )
        assert done.status == "succeeded"
        trial = await client.v1.subscriptions.retrieve_async(trial.id)
        assert (trial.pending_setup_intent, trial.default_payment_method) == (
            None,
            done.payment_method if saves else None,
        )

    stripe_api.run(flow)


def test_customer_who_pays_by_invoice_has_no_setup_intent(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        sent = await subscribe(client, trial_period_days=14, collection_method="send_invoice", days_until_due=7)
        assert sent.pending_setup_intent is None

    stripe_api.run(flow)


def test_first_payment_saves_its_card_if_the_subscription_says_so(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        expand = ["latest_invoice.confirmation_secret", "latest_invoice.payments"]
        settings = {"payment_behavior": "default_incomplete", "payment_settings": SAVES, "expand": expand}
        created = await subscribe(client, **settings)
        assert (created.status, created.pending_setup_intent) == ("incomplete", None)
        assert isinstance(created.latest_invoice, stripe.Invoice)
        assert created.latest_invoice.payments is not None
        intent = created.latest_invoice.payments.data[0].payment.payment_intent
        assert isinstance(intent, str)
        waiting = await client.v1.payment_intents.retrieve_async(intent)
        assert created.latest_invoice.confirmation_secret is not None
        assert created.latest_invoice.confirmation_secret.client_secret == waiting.client_secret
        bare = await client.v1.invoices.retrieve_async(created.latest_invoice.id)
        assert bare.confirmation_secret is None, "the secret is returned only if expanded"
        assert waiting.setup_future_usage == "off_session"
        paid = await client.v1.payment_intents.confirm_async(
            intent, {"payment_method": "pm_card_visa", "return_url": "https://example.com"}
        )
        created = await client.v1.subscriptions.retrieve_async(created.id)
        assert (created.status, created.default_payment_method) == ("active", paid.payment_method)

    stripe_api.run(flow)


def test_a_card_must_be_among_the_ways_to_pay(stripe_sandbox: Sandbox) -> None:
    def ask(name: str, *ways: str, **fields: str) -> tuple[int, str | None]:
        written = "".join(f"&{name}[]={way}" for way in ways)
        answer = stripe_sandbox.call("POST", "/v1/payment_intents", f"amount=500&currency=usd{written}", **fields)
        return answer.status, answer.json().get("error", {}).get("code")

    assert ask("allowed_payment_method_types", "card", "sepa_debit") == (200, None)
    assert ask("allowed_payment_method_types", "sepa_debit") == (400, "sandbox_unsupported")
    assert ask("payment_method_types", "card")[0] == 400, "this version has no such parameter"


def test_calls_of_other_versions_are_taken_where_the_sandbox_says_so(stripe_sandbox: Sandbox, tmp_path: Path) -> None:
    body = "amount=500&currency=usd&payment_method_types[]=card"
    refused = stripe_sandbox.call("POST", "/v1/payment_intents", body, Stripe_Version=OLDER)
    assert refused.status == 400
    assert "--versions any" in refused.json()["error"]["message"]
    with closing(Sandbox(tmp_path / "any", "--versions", "any").start()) as lenient:
        taken = lenient.call("POST", "/v1/payment_intents", body, Stripe_Version=OLDER)
        assert (taken.status, taken.json()["payment_method_types"]) == (200, ["card"])
        assert (
            lenient.call("POST", "/v1/payment_intents", body.replace("card", "link"), Stripe_Version=OLDER).status
            == 400
        )
