"""A month at Stripe with Stripe's own client: customers, invoices by items, meter events and their sums."""

import time

import pytest
import stripe

from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Api, Sandbox

MINUTE = 60


async def payer(client: stripe.StripeClient, card: str = "pm_card_visa") -> str:
    """A customer who pays by this card."""
    created = await client.v1.customers.create_async(
        {"email": "a@example.com", "payment_method": card, "invoice_settings": {"default_payment_method": card}}
    )
    return created.id


async def draft(client: stripe.StripeClient, customer: str, *amounts: int) -> str:
    """A draft with these amounts."""
    created = await client.v1.invoices.create_async(
        {"customer": customer, "auto_advance": False, "pending_invoice_items_behavior": "exclude"}
    )
    for amount in amounts:
        await client.v1.invoice_items.create_async(
            {"customer": customer, "invoice": created.id, "amount": amount, "currency": "usd", "description": "usage"}
        )
    return created.id


def test_a_draft_gets_items_is_finalized_and_paid(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer = await payer(client)
        id = await draft(client, customer, 9900, 235, -35)
        drafted = await client.v1.invoices.retrieve_async(id)
        assert (drafted.status, drafted.total, drafted.invoice_pdf, drafted.number) == ("draft", 10100, None, None)
        assert [line.amount for line in drafted.lines.data] == [-35, 235, 9900]
        final = await client.v1.invoices.finalize_invoice_async(id, {"auto_advance": False})
        assert (final.status, final.amount_due, final.auto_advance) == ("open", 10100, False)
        assert final.invoice_pdf is not None
        assert final.number is not None
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await client.v1.invoice_items.create_async(
                {"customer": customer, "invoice": id, "amount": 1, "currency": "usd"}
            )
        assert raised.value.code == "invoice_not_editable"
        paid = await client.v1.invoices.pay_async(id, {"expand": ["payments.data.payment.payment_intent"]})
        assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 10100, 0)
        assert paid.payments is not None
        intent = paid.payments.data[0].payment.payment_intent
        assert isinstance(intent, stripe.PaymentIntent)
        assert (intent.status, intent.amount_received) == ("succeeded", 10100)

    stripe_api.run(flow)


def test_lines_that_are_added_together_are_items_with_their_metadata(stripe_api: Api) -> None:
    """By which the product knows, after a kill, that they are there."""

    async def flow(client: stripe.StripeClient) -> None:
        id = await draft(client, await payer(client), 100)
        lines = [
            {"amount": cents, "description": "usage", "metadata": {"line": str(cents)}} for cents in (9900, -35, 0)
        ]
        created = await client.v1.invoices.add_lines_async(id, {"lines": lines})
        assert (created.subtotal, created.total) == (9965, 9965)
        for listed in (
            (await client.v1.invoice_items.list_async({"invoice": id})).data,
            (await client.v1.invoices.line_items.list_async(id)).data,
        ):
            said = {one.amount: one.metadata.to_dict().get("line") for one in listed if one.metadata is not None}
            assert said == {9900: "9900", -35: "-35", 0: "0", 100: None}
        await client.v1.invoices.finalize_invoice_async(id, {"auto_advance": False})
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.invoices.add_lines_async(id, {"lines": lines[:1]})

    stripe_api.run(flow)


def test_a_card_that_declines_leaves_the_invoice_open_and_the_failure_on_record(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        id = await draft(client, await payer(client, "pm_card_chargeCustomerFail"), 500)
        with pytest.raises(stripe.CardError) as raised:
            await client.v1.invoices.pay_async(id)
        assert (raised.value.http_status, raised.value.code) == (402, "card_declined")
        invoice = await client.v1.invoices.retrieve_async(id)
        assert (invoice.status, invoice.attempt_count, invoice.amount_paid) == ("open", 1, 0)
        events = await client.v1.events.list_async({"type": "invoice.payment_failed"})
        assert events.data[0].data.object["id"] == id
        voided = await client.v1.invoices.void_invoice_async(id)
        assert voided.status == "void"

    stripe_api.run(flow)


def test_invoice_includes_pending_items_on_request_and_returns_them(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer = await payer(client)
        item = await client.v1.invoice_items.create_async(
            {"customer": customer, "unit_amount_decimal": "0.5", "quantity": 3, "currency": "usd"}
        )
        assert (item.amount, item.invoice) == (2, None)
        id = await draft(client, customer)
        assert (await client.v1.invoices.retrieve_async(id)).total == 0
        taken = await client.v1.invoices.create_async(
            {"customer": customer, "pending_invoice_items_behavior": "include"}
        )
        assert (taken.total, len(taken.lines.data)) == (2, 1)
        await client.v1.invoices.delete_async(taken.id)
        again = await client.v1.invoice_items.list_async({"customer": customer, "pending": True})
        assert [one.id for one in again.data] == [item.id]

    stripe_api.run(flow)


def test_meter_events_are_counted_once_and_summed_by_the_minute(stripe_sandbox: Sandbox) -> None:
    minute = int(time.time()) // MINUTE * MINUTE - 10 * MINUTE

    async def flow(client: stripe.StripeClient) -> None:
        customer = await payer(client)
        meter = await client.v1.billing.meters.create_async(
            {"display_name": "Tokens", "event_name": "tokens", "default_aggregation": {"formula": "sum"}}
        )
        for n, value in enumerate(("1000", "234", "-34", "1.5")):
            await client.v1.billing.meter_events.create_async(
                {
                    "event_name": "tokens",
                    "payload": {"stripe_customer_id": customer, "value": value},
                    "identifier": f"slice-{n}",
                    "timestamp": minute + n,
                }
            )
        with pytest.raises(
            stripe.InvalidRequestError, match="An event already exists with identifier slice-0"
        ) as raised:
            await client.v1.billing.meter_events.create_async(
                {
                    "event_name": "tokens",
                    "payload": {"stripe_customer_id": customer, "value": "1000"},
                    "identifier": "slice-0",
                }
            )
        assert raised.value.code is None
        sums: list[float] = []

        async def look() -> None:
            listed = await client.v1.billing.meters.event_summaries.list_async(
                meter.id, {"customer": customer, "start_time": minute, "end_time": minute + MINUTE}
            )
            sums[:] = [one.aggregated_value for one in listed.data]

        deadline = time.monotonic() + 60
        while sums != [1200] and time.monotonic() < deadline:
            await look()
        assert sums == [1200]
        with pytest.raises(stripe.InvalidRequestError) as unaligned:
            await client.v1.billing.meters.event_summaries.list_async(
                meter.id, {"customer": customer, "start_time": minute + 1, "end_time": minute + MINUTE}
            )
        assert unaligned.value.param == "start_time"

    stripe_sandbox.run(flow)

    def refused() -> list[str]:
        entries = stripe_sandbox.journal("billing.meter_event.refused")
        return [entry["error"] for entry in entries if entry["id"] == "slice-3"]

    until(lambda: refused() == ["meter_event_invalid_value"], "the event is refused")


def test_answered_request_survives_kill_9_and_replays_by_its_key(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sandbox = Sandbox(tmp_path_factory.mktemp("killed"))
    try:
        sandbox.start()
        first = sandbox.call("POST", "/v1/customers", "name=A", Idempotency_Key="one")
        sandbox.kill()
        sandbox.start()
        again = sandbox.call("POST", "/v1/customers", "name=A", Idempotency_Key="one")
        assert again.json() == first.json()
        assert again["idempotent-replayed"] == "true"
        assert again["original-request"] == first["request-id"]
        other = sandbox.call("POST", "/v1/customers", "name=B", Idempotency_Key="one")
        assert (other.status, other.json()["error"]["type"]) == (400, "idempotency_error")
        event = "event_name=a&payload[stripe_customer_id]=c&payload[value]=1&identifier=slice"
        assert [sandbox.call("POST", "/v1/billing/meter_events", event).status for _ in range(2)] == [200, 400]
        sandbox.advance(86401)
        assert sandbox.call("POST", "/v1/customers", "name=B", Idempotency_Key="one").json()["name"] == "B"
        assert sandbox.call("POST", "/v1/billing/meter_events", event).status == 200, "identifiers are forgotten too"
        assert len(sandbox.journal("customer.created")) == 2
    finally:
        sandbox.close()
