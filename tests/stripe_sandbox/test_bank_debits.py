"""Debits of bank accounts: a payment is under way for days."""

from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Sandbox

DAY = 86400


@pytest.mark.parametrize(
    ("account", "status", "code"),
    [
        ("pm_usBankAccount_success", "succeeded", None),
        ("pm_usBankAccount_insufficientFunds", "requires_payment_method", "insufficient_funds"),
        ("pm_usBankAccount_processing", "processing", None),
    ],
)
def test_a_debit_is_under_way_for_four_days_and_then_paid_or_sent_back(
    own_sandbox: Sandbox, account: str, status: str, code: str | None
) -> None:
    async def begin(client: stripe.StripeClient) -> str:
        debit: Any = {"amount": 1000, "currency": "usd", "payment_method": account, "confirm": True}
        debit["return_url"] = "https://shop.example"
        with pytest.raises(stripe.InvalidRequestError, match="support the following currencies: usd"):
            await client.v1.payment_intents.create_async({**debit, "currency": "eur"})
        intent = await client.v1.payment_intents.create_async(debit)
        assert intent.status == "processing"
        charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
        assert (charge.status, charge.paid) == ("pending", False)
        return intent.id

    async def look(client: stripe.StripeClient, intent: str) -> tuple[str, str | None]:
        now = await client.v1.payment_intents.retrieve_async(intent)
        return now.status, now.last_payment_error and now.last_payment_error.code

    intent = own_sandbox.run(begin)
    own_sandbox.advance(4 * DAY - 60)
    assert own_sandbox.run(lambda client: look(client, intent)) == ("processing", None)
    own_sandbox.advance(120)
    assert own_sandbox.run(lambda client: look(client, intent)) == (status, code)


def test_a_void_does_not_stop_a_debit_that_is_under_way(own_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        account: Any = {"invoice_settings": {"default_payment_method": "pm_usBankAccount_success"}}
        customer = (await client.v1.customers.create_async({"email": "v@example.com", **account})).id
        draft = await client.v1.invoices.create_async({"customer": customer, "auto_advance": False})
        item: Any = {"customer": customer, "invoice": draft.id, "amount": 1000, "currency": "usd"}
        await client.v1.invoice_items.create_async(item)
        await client.v1.invoices.pay_async(str(draft.id))
        assert (await client.v1.invoices.void_invoice_async(str(draft.id))).status == "void"
        own_sandbox.advance(4 * DAY + 60)
        assert (await client.v1.invoices.retrieve_async(str(draft.id))).status == "void"
        (payment,) = (await client.v1.invoice_payments.list_async({"invoice": str(draft.id)})).data
        intent = await client.v1.payment_intents.retrieve_async(str(payment.payment.payment_intent))
        assert (intent.status, intent.amount_received) == ("succeeded", 1000)

    own_sandbox.run(flow)


@pytest.mark.difference(
    "paying an invoice whose debit is under way",
    "is refused, and counts as no attempt; it stays open until the bank answers",
)
def test_an_invoice_is_open_while_it_is_debited_and_is_not_debited_twice(own_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        account: Any = {"invoice_settings": {"default_payment_method": "pm_usBankAccount_insufficientFunds"}}
        customer = (await client.v1.customers.create_async({"email": "a@example.com", **account})).id
        draft = await client.v1.invoices.create_async({"customer": customer, "auto_advance": False})
        item: Any = {"customer": customer, "invoice": draft.id, "amount": 1000, "currency": "usd"}
        await client.v1.invoice_items.create_async(item)
        for_payment = await client.v1.invoices.finalize_invoice_async(str(draft.id))
        paid = await client.v1.invoices.pay_async(str(for_payment.id))
        assert (paid.status, paid.attempt_count) == ("open", 1)
        with pytest.raises(stripe.InvalidRequestError, match="status of processing"):
            await client.v1.invoices.pay_async(str(paid.id))
        own_sandbox.advance(4 * DAY + 60)
        expand: Any = {"expand": ["payments.data.payment.payment_intent"]}
        failed = await client.v1.invoices.retrieve_async(str(paid.id), expand)
        assert (failed.status, failed.attempt_count) == ("open", 1)
        assert failed.payments is not None
        (payment,) = failed.payments.data
        intent = payment.payment.payment_intent
        assert isinstance(intent, stripe.PaymentIntent)
        assert intent.last_payment_error is not None
        events = (await client.v1.events.list_async({"type": "invoice.payment_failed"})).data
        assert [event.data.object["id"] for event in events] == [paid.id], "once the bank has answered"
        assert (await client.v1.invoices.pay_async(str(paid.id), {"payment_method": "pm_card_visa"})).status == "paid"

    own_sandbox.run(flow)
