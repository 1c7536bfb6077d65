"""Refunds, and pages for payments."""

from typing import Any

import pytest
import stripe

from loadtest.testbed.http_client import ask
from tests.support.stripe_sandbox import Api, Sandbox


async def paid(client: stripe.StripeClient, amount: int, *, pay: bool = True) -> stripe.Invoice:
    """An invoice of a new customer over this amount."""
    card = "pm_card_visa"
    customer = await client.v1.customers.create_async(
        {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
    )
    created = await client.v1.invoices.create_async({"customer": customer.id, "currency": "usd"})
    await client.v1.invoice_items.create_async(
        {"customer": customer.id, "invoice": created.id, "amount": amount, "currency": "usd"}
    )
    final = await client.v1.invoices.finalize_invoice_async(created.id)
    return await client.v1.invoices.pay_async(created.id) if pay else final


async def intent_of(client: stripe.StripeClient, invoice: str) -> str:
    """Return the payment intent of an invoice."""
    (payment,) = (await client.v1.invoice_payments.list_async({"invoice": invoice})).data
    assert isinstance(payment.payment.payment_intent, str)
    return payment.payment.payment_intent


def test_refunds_give_back_no_more_than_was_paid_and_the_balance_shows_all(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        intent = await intent_of(client, (await paid(client, 10_000)).id)
        refund = await client.v1.refunds.create_async({"payment_intent": intent, "amount": 4_000})
        assert (refund.status, refund.amount) == ("succeeded", 4_000)
        with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
            await client.v1.refunds.create_async({"payment_intent": intent, "amount": 6_001})
        await client.v1.refunds.create_async({"payment_intent": intent})
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await client.v1.refunds.create_async({"payment_intent": intent})
        assert raised.value.code == "charge_already_refunded"
        found = await client.v1.payment_intents.retrieve_async(
            intent, {"expand": ["latest_charge.refunds", "latest_charge.balance_transaction"]}
        )
        charge: Any = found.latest_charge
        assert [one.amount for one in charge.refunds.data] == [6_000, 4_000]
        booked = charge.balance_transaction
        assert (booked.amount, booked.fee, booked.net) == (10_000, 320, 9_680)
        rows = (await client.v1.balance_transactions.list_async({"limit": 3})).data
        assert [row.amount for row in rows] == [-6_000, -4_000, 10_000]

    stripe_api.run(flow)


def test_credit_note_lowers_the_amount_due_or_refunds_a_payment(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        due = await paid(client, 1_000, pay=False)
        line = due.lines.data[0].id
        note = await client.v1.credit_notes.create_async(
            {"invoice": due.id, "lines": [{"type": "invoice_line_item", "invoice_line_item": line, "amount": 300}]}
        )
        assert (note.type, note.number, note.lines.data[0].amount) == ("pre_payment", f"{due.number}-CN-01", 300)
        lower = await client.v1.invoices.pay_async(due.id)
        assert (lower.amount_paid, lower.total, lower.pre_payment_credit_notes_amount) == (700, 1_000, 300)
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await client.v1.credit_notes.create_async({"invoice": due.id, "amount": 100})
        assert raised.value.param == "refund_amount"
        preview = await client.v1.credit_notes.preview_async({"invoice": due.id, "amount": 100, "refund_amount": 100})
        assert preview.total == 100
        back = await client.v1.credit_notes.create_async(
            {"invoice": due.id, "amount": 500, "refund_amount": 200, "credit_amount": 300}
        )
        assert (back.type, back.post_payment_amount, len(back.refunds)) == ("post_payment", 500, 1)
        customer = await client.v1.customers.retrieve_async(str(due.customer))
        assert customer.balance == -300
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.credit_notes.create_async({"invoice": due.id, "amount": 201, "refund_amount": 201})

    stripe_api.run(flow)


def test_void_of_a_credit_note_raises_the_amount_due_and_reports_the_invoice(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        due = await paid(client, 1_000, pay=False)
        note = await client.v1.credit_notes.create_async({"invoice": due.id, "amount": 300})
        await client.v1.credit_notes.void_credit_note_async(note.id)
        assert (await client.v1.invoices.retrieve_async(due.id)).amount_remaining == 1_000
        events = await client.v1.events.list_async({"type": "invoice.updated", "limit": 100})
        reported = [event.data async for event in events.auto_paging_iter() if event.data.object.id == due.id]
        changes = [(data.object.amount_remaining, data.previous_attributes["amount_remaining"]) for data in reported]
        assert changes == [(1_000, 700), (700, 1_000)]

    stripe_api.run(flow)


def test_credit_note_of_the_full_amount_marks_the_invoice_paid(
    stripe_api: Api,
) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        due = await paid(client, 1_000, pay=False)
        await client.v1.credit_notes.create_async({"invoice": due.id, "amount": 1_000})
        assert (await client.v1.invoices.retrieve_async(due.id)).status == "paid"
        customer = str(due.customer)
        await client.v1.customers.balance_transactions.create_async(customer, {"amount": -400, "currency": "usd"})
        created = await client.v1.invoices.create_async({"customer": customer})
        await client.v1.invoice_items.create_async(
            {"customer": customer, "invoice": created.id, "amount": 1_000, "currency": "usd"}
        )
        final = await client.v1.invoices.finalize_invoice_async(created.id)
        assert (final.total, final.amount_due, final.starting_balance, final.ending_balance) == (1_000, 600, -400, 0)
        await client.v1.invoices.void_invoice_async(created.id)
        assert (await client.v1.customers.retrieve_async(customer)).balance == -400

    stripe_api.run(flow)


def test_an_invoice_is_paid_by_an_intent_beside_it_or_outside(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        due = await paid(client, 1_000, pay=False)
        intent = await client.v1.payment_intents.create_async(
            {"amount": 1_000, "currency": "usd", "customer": str(due.customer), "payment_method": "pm_card_visa"}
        )
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.invoices.attach_payment_async(due.id, {"payment_intent": intent.id})
        await client.v1.payment_intents.confirm_async(intent.id, {"return_url": "https://shop.example"})
        await client.v1.invoices.attach_payment_async(due.id, {"payment_intent": intent.id})
        assert (await client.v1.invoices.retrieve_async(due.id)).status == "paid"
        other = await paid(client, 1_000, pay=False)
        outside = await client.v1.invoices.pay_async(other.id, {"paid_out_of_band": True})
        assert (outside.status, outside.amount_remaining) == ("paid", 0)

    stripe_api.run(flow)


@pytest.mark.parametrize("mode", ["payment", "invoiced", "subscription", "setup"])
def test_a_customer_pays_on_a_page(stripe_sandbox: Sandbox, mode: str) -> None:
    async def make(client: stripe.StripeClient) -> stripe.checkout.Session:
        recurring: Any = {"recurring": {"interval": "month"}} if mode == "subscription" else {}
        price: Any = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Credits"}, **recurring}
        params: Any = {
            "mode": "payment" if mode == "invoiced" else mode,
            "success_url": "https://example.com/done?session={CHECKOUT_SESSION_ID}",
            "customer_email": "a@example.com",
            "metadata": {"purchase": mode},
        }
        if mode != "setup":
            params["line_items"] = [{"price_data": price, "quantity": 2}]
        if mode == "invoiced":
            params["invoice_creation"] = {"enabled": True}
        return await client.v1.checkout.sessions.create_async(params)

    created = stripe_sandbox.run(make)
    assert (created.status, created.amount_total) == ("open", None if mode == "setup" else 1_000)
    assert created.url is not None
    path = created.url.removeprefix(stripe_sandbox.url)
    label = {"setup": b"Save card", "subscription": b"Subscribe"}.get(mode, b"Pay $10.00")
    assert b"<button>" + label in ask(stripe_sandbox.port, path).body
    declined = ask(
        stripe_sandbox.port,
        f"{path}/pay",
        method="POST",
        fields={"Content-Type": "application/json"},
        body=b'{"card": "pm_card_chargeCustomerFail"}',
    )
    if mode != "setup":
        assert declined.status == 402
        answer = ask(stripe_sandbox.port, f"{path}/pay", method="POST")
        assert (answer.status, answer["location"]) == (303, f"https://example.com/done?session={created.id}")
        assert ask(stripe_sandbox.port, f"{path}/pay", method="POST").status == 400

    async def look(client: stripe.StripeClient) -> None:
        done = await client.v1.checkout.sessions.retrieve_async(
            created.id, {"expand": ["payment_intent", "subscription", "invoice", "line_items"]}
        )
        intent, subscription, invoice = done.payment_intent, done.subscription, done.invoice
        assert done.status == "complete"
        if mode in ("payment", "invoiced"):
            assert isinstance(intent, stripe.PaymentIntent)
            assert (intent.status, intent.amount) == ("succeeded", 1_000)
        if mode in ("subscription", "invoiced"):
            assert isinstance(invoice, stripe.Invoice)
            assert (invoice.status, invoice.amount_paid) == ("paid", 1_000)
        if mode == "subscription":
            assert isinstance(subscription, stripe.Subscription)
            assert subscription.status == "active"
        events = await client.v1.events.list_async({"type": "checkout.session.completed", "limit": 1})
        assert events.data[0].data.object["metadata"]["purchase"] == mode

    stripe_sandbox.run(look)


def test_a_session_expires_and_a_portal_shows_invoices(stripe_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> str:
        created = await client.v1.checkout.sessions.create_async(
            {"mode": "setup", "success_url": "https://example.com"}
        )
        gone = await client.v1.checkout.sessions.expire_async(created.id)
        assert (gone.status, gone.url) == ("expired", None)
        invoice = await paid(client, 700)
        portal = await client.v1.billing_portal.sessions.create_async({"customer": str(invoice.customer)})
        return portal.url

    url = stripe_sandbox.run(flow)
    assert b'<td>paid<td class="number">$7.00' in ask(stripe_sandbox.port, url.removeprefix(stripe_sandbox.url)).body


def test_dispute_debits_the_balance_and_a_win_credits_it(stripe_api: Api) -> None:
    async def disputed(client: stripe.StripeClient, amount: int) -> stripe.Dispute:
        intent = await client.v1.payment_intents.create_async(
            {
                "amount": amount,
                "currency": "usd",
                "payment_method": "pm_card_createDispute",
                "confirm": True,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            }
        )
        (dispute,) = (await client.v1.disputes.list_async({"payment_intent": intent.id})).data
        return dispute

    async def flow(client: stripe.StripeClient) -> None:
        won = await disputed(client, 5_000)
        assert (won.status, won.amount, [moved.net for moved in won.balance_transactions]) == (
            "needs_response",
            5_000,
            [-6_500],
        )
        won = await client.v1.disputes.update_async(won.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
        assert (won.status, [moved.net for moved in won.balance_transactions]) == ("won", [-6_500, 5_000])
        lost = await client.v1.disputes.close_async((await disputed(client, 700)).id)
        assert (lost.status, [moved.net for moved in lost.balance_transactions]) == ("lost", [-2_200])
        with pytest.raises(stripe.InvalidRequestError, match="already closed"):
            await client.v1.disputes.close_async(lost.id)

    stripe_api.run(flow)


def test_a_disputed_payment_is_refunded_neither_directly_nor_by_a_credit_note(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        card = "pm_card_createDispute"
        customer = await client.v1.customers.create_async(
            {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        )
        created = await client.v1.invoices.create_async({"customer": customer.id, "currency": "usd"})
        await client.v1.invoice_items.create_async(
            {"customer": customer.id, "invoice": created.id, "amount": 5_000, "currency": "usd"}
        )
        await client.v1.invoices.finalize_invoice_async(created.id)
        await client.v1.invoices.pay_async(created.id)
        note = {"invoice": created.id, "amount": 5_000}
        refunded: Any = {**note, "refund_amount": 5_000}
        credited: Any = {**note, "credit_amount": 5_000}
        for refused in (
            client.v1.refunds.create_async({"payment_intent": await intent_of(client, created.id)}),
            client.v1.credit_notes.create_async(refunded),
        ):
            with pytest.raises(stripe.InvalidRequestError) as error:
                await refused
            assert error.value.code == "charge_disputed"
        assert not (await client.v1.credit_notes.list_async({"invoice": created.id})).data
        issued = await client.v1.credit_notes.create_async(credited)
        assert issued.status == "issued", "a credit to the balance is no refund"

    stripe_api.run(flow)


def test_a_checkout_below_the_least_charge_is_refused(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        async def begin(cents: int) -> stripe.checkout.Session:
            price: Any = {"currency": "usd", "unit_amount": cents, "product_data": {"name": "credits"}}
            item: Any = {"price_data": price, "quantity": 1}
            return await client.v1.checkout.sessions.create_async(
                {"mode": "payment", "line_items": [item], "success_url": "https://example.com/"}
            )

        with pytest.raises(stripe.InvalidRequestError, match=r"at least 0\.50 usd") as refused:
            await begin(49)
        assert refused.value.code == "amount_too_small"
        assert (await begin(50)).amount_total == 50

    stripe_api.run(flow)


def test_available_balance_is_paid_out_once(own_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        await paid(client, 10_000)
        waiting = await client.v1.balance.retrieve_async()
        assert (waiting.available[0].amount, waiting.pending[0].amount) == (0, 9_680)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await client.v1.payouts.create_async({"amount": 1, "currency": "usd"})
        assert refused.value.code == "balance_insufficient"
        own_sandbox.advance(3 * 86400)
        first = await client.v1.payouts.create_async({"amount": 9_000, "currency": "usd"})
        await client.v1.payouts.cancel_async(first.id)
        second = await client.v1.payouts.create_async({"amount": 9_680, "currency": "usd"})
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.payouts.create_async({"amount": 1, "currency": "usd"})
        own_sandbox.advance(3 * 86400)
        assert own_sandbox.journal("payout.paid"), "due payouts happen when the clock moves"
        assert (await client.v1.payouts.retrieve_async(second.id)).status == "paid"
        rows = (await client.v1.balance_transactions.list_async({"limit": 3})).data
        assert [row.net for row in rows] == [-9_680, 9_000, -9_000]

    own_sandbox.run(flow)
