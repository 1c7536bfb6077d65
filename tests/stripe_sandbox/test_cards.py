"""Cards: kept for later, set up, charged off session, captured later, and refunded."""

from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, Sandbox

BACK: Any = {"return_url": "https://shop.example/done?order=1"}


async def create_customer(client: stripe.StripeClient, **params: Any) -> str:
    """A customer without a card."""
    return (await client.v1.customers.create_async({"email": "a@example.com", **params})).id


async def charge(client: stripe.StripeClient, card: str, **params: Any) -> stripe.PaymentIntent:
    """A payment of 10.00 by this card."""
    return await client.v1.payment_intents.create_async(
        {"amount": 1000, "currency": "usd", "payment_method": card, "confirm": True, **BACK, **params}
    )


async def list_types(client: stripe.StripeClient, id: str) -> list[str]:
    """The types of an object's events, oldest first."""
    events = (await client.v1.events.list_async({"limit": 40})).data
    return [event.type for event in reversed(events) if getattr(event.data.object, "id", None) == id]


def test_a_card_is_attached_listed_updated_and_detached_for_good(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer, other = await create_customer(client), await create_customer(client)
        methods = client.v1.payment_methods
        created = await methods.create_async(
            {"type": "card", "card": {"token": "tok_visa"}, "billing_details": {"name": "A"}, "metadata": {"a": "b"}}
        )
        assert created.card is not None
        assert (created.customer, created.card.last4, created.billing_details.name) == (None, "4242", "A")
        with pytest.raises(stripe.InvalidRequestError, match="must save this PaymentMethod to a customer"):
            await methods.update_async(created.id, {"metadata": {"a": ""}})
        assert (await methods.attach_async(created.id, {"customer": customer})).customer == customer
        with pytest.raises(stripe.InvalidRequestError, match="already been attached to a customer"):
            await methods.attach_async(created.id, {"customer": other})
        listed: Any = {"customer": customer, "type": "card"}
        assert [one.id for one in (await methods.list_async(listed)).data] == [created.id]
        assert (await methods.list_async({**listed, "type": "sepa_debit"})).data == []
        changed = await methods.update_async(
            created.id, {"card": {"exp_month": 2, "exp_year": 2041}, "metadata": {"a": ""}}
        )
        assert changed.card is not None
        assert changed.metadata is not None
        assert (changed.card.exp_month, changed.metadata.to_dict()) == (2, {})
        await client.v1.customers.update_async(customer, {"invoice_settings": {"default_payment_method": created.id}})
        with pytest.raises(stripe.InvalidRequestError) as of_another:
            await charge(client, created.id, customer=other)
        assert of_another.value.param == "customer"
        assert (await methods.detach_async(created.id)).customer is None
        settings = (await client.v1.customers.retrieve_async(customer)).invoice_settings
        assert settings is not None
        assert settings.default_payment_method is None
        for again in (methods.attach_async(created.id, {"customer": customer}), charge(client, created.id)):
            with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
                await again
        with pytest.raises(stripe.InvalidRequestError, match="detachment is impossible"):
            await methods.detach_async(created.id)

    stripe_api.run(flow)


@pytest.mark.parametrize(
    ("card", "setup", "off_session", "on_session"),
    [
        ("pm_card_visa", "succeeded", "succeeded", "succeeded"),
        ("pm_card_chargeCustomerFail", "succeeded", "card_declined", "card_declined"),
        ("pm_card_authenticationRequired", "requires_action", "authentication_required", "requires_action"),
        ("pm_card_authenticationRequiredOnSetup", "requires_action", "authentication_required", "requires_action"),
        ("pm_card_authenticationRequiredSetupForOffSession", "requires_action", "succeeded", "requires_action"),
    ],
)
def test_a_card_wants_its_owner_as_stripes_test_card_does(
    stripe_api: Api, card: str, setup: str, off_session: str, on_session: str
) -> None:
    async def pay(client: stripe.StripeClient, **params: Any) -> str:
        try:
            return (await charge(client, card, **params)).status
        except stripe.CardError as error:
            return str(error.code)

    async def flow(client: stripe.StripeClient) -> None:
        intent = await client.v1.setup_intents.create_async({"payment_method": card, "confirm": True, **BACK})
        assert intent.status == setup
        if setup == "requires_action":
            assert intent.next_action is not None
            assert intent.next_action.redirect_to_url is not None
            assert intent.next_action.redirect_to_url.return_url == BACK["return_url"]
        assert await pay(client, off_session=True) == off_session
        assert await pay(client) == on_session

    stripe_api.run(flow)


def test_a_setup_intent_keeps_its_card_for_the_customer_once(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer = await create_customer(client)
        intents = client.v1.setup_intents
        created = await intents.create_async({"customer": customer, "metadata": {"a": "b"}})
        assert (created.status, created.usage) == ("requires_payment_method", "off_session")
        with pytest.raises(stripe.CardError) as declined:
            await intents.confirm_async(created.id, {"payment_method": "pm_card_chargeDeclined", **BACK})
        assert declined.value.code == "card_declined"
        failed = await intents.retrieve_async(created.id, {"expand": ["latest_attempt"]})
        assert failed.last_setup_error is not None
        assert (failed.status, failed.last_setup_error.code) == ("requires_payment_method", "card_declined")
        done = await intents.confirm_async(created.id, {"payment_method": "pm_card_visa", **BACK})
        assert done.status == "succeeded"
        kept = await client.v1.customers.payment_methods.list_async(customer)
        assert [one.id for one in kept.data] == [done.payment_method]
        assert [
            one.status for one in (await client.v1.setup_attempts.list_async({"setup_intent": created.id})).data
        ] == [
            "succeeded",
            "failed",
        ]
        for refused in (intents.confirm_async(created.id, BACK), intents.cancel_async(created.id)):
            with pytest.raises(stripe.InvalidRequestError) as error:
                await refused
            assert error.value.code == "setup_intent_unexpected_state"
        waiting = await intents.create_async({"customer": customer})
        canceled = await intents.cancel_async(waiting.id, {"cancellation_reason": "abandoned"})
        assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
        assert await list_types(client, created.id) == [
            "setup_intent.created",
            "setup_intent.setup_failed",
            "setup_intent.succeeded",
        ]
        paid = await charge(client, str(done.payment_method), customer=customer, off_session=True)
        assert paid.status == "succeeded"

    stripe_api.run(flow)


def test_an_amount_is_authorized_first_and_captured_or_released_later(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        intents = client.v1.payment_intents
        held = await charge(client, "pm_card_visa", capture_method="manual")
        assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 1000, 0)
        for params, call in (({"amount": 900}, intents.update_async), (BACK, intents.confirm_async)):
            with pytest.raises(stripe.InvalidRequestError) as raised:
                await call(held.id, params)
            assert raised.value.code == "payment_intent_unexpected_state"
        with pytest.raises(stripe.InvalidRequestError):
            await intents.capture_async(held.id, {"amount_to_capture": 1001})
        part = await intents.capture_async(held.id, {"amount_to_capture": 400})
        assert (part.status, part.amount_received) == ("succeeded", 400)
        assert await list_types(client, str(part.latest_charge)) == ["charge.succeeded", "charge.captured"]
        released = await charge(client, "pm_card_visa", capture_method="manual")
        canceled = await intents.cancel_async(released.id, {"cancellation_reason": "duplicate"})
        assert (canceled.status, canceled.amount_capturable) == ("canceled", 0)
        kept = await client.v1.charges.retrieve_async(str(released.latest_charge))
        assert (kept.captured, kept.refunded) == (False, True)

    stripe_api.run(flow)


def test_an_authorization_and_a_bank_s_word_on_refunds_come_due(own_sandbox: Sandbox) -> None:
    async def begin(client: stripe.StripeClient) -> list[str]:
        held = await charge(client, "pm_card_visa", capture_method="manual")
        refunds = []
        for card, status in (("pm_card_pendingRefund", "pending"), ("pm_card_refundFail", "succeeded")):
            paid = await charge(client, card)
            refund = await client.v1.refunds.create_async({"payment_intent": paid.id, "amount": 300})
            assert refund.status == status
            refunds.append(refund.id)
        return [held.id, *refunds]

    async def finish(client: stripe.StripeClient) -> None:
        assert (await client.v1.payment_intents.retrieve_async(held)).cancellation_reason == "automatic"
        for id, status, left, events in (
            (pending, "succeeded", 300, ["refund.created", "refund.updated", "charge.refund.updated"]),
            (failing, "failed", 0, ["refund.created", "refund.failed", "charge.refund.updated"]),
        ):
            refund = await client.v1.refunds.retrieve_async(id, {"expand": ["charge"]})
            assert isinstance(refund.charge, stripe.Charge)
            assert (refund.status, refund.charge.amount_refunded) == (status, left)
            assert await list_types(client, id) == events
        with pytest.raises(stripe.InvalidRequestError, match="cannot be canceled"):
            await client.v1.refunds.cancel_async(pending)

    held, pending, failing = own_sandbox.run(begin)
    own_sandbox.advance(7 * 86400 + 1)
    own_sandbox.run(finish)


def test_publishable_key_confirms_an_intent_with_its_client_secret(stripe_sandbox: Sandbox) -> None:
    document = stripe_sandbox.call("POST", "/v1/payment_intents", "amount=1000&currency=usd&metadata[order]=1").json()
    path, secret = f"/v1/payment_intents/{document['id']}", document["client_secret"]
    public = {"Authorization": "Bearer pk_test_shop", "Content-Type": "application/x-www-form-urlencoded"}

    def call(method: str, path: str, body: str = "") -> tuple[int, Any]:
        answer = stripe_sandbox.ask(path, method, public, body.encode())
        return answer.status, answer.json()

    card = "payment_method_data[type]=card&payment_method_data[card][token]=tok_visa&return_url=https://shop.example"
    for method, attack, body, status in (
        ("GET", path, "", 400),
        ("GET", f"{path}?client_secret={document['id']}_secret_{'0' * 32}", "", 400),
        ("POST", f"{path}/confirm", card, 400),
        ("POST", f"{path}/confirm", f"{card}&client_secret={secret}&expand[]=latest_charge", 400),
        ("POST", f"{path}/confirm", f"{card}&client_secret={secret}&off_session=true", 400),
        ("POST", f"{path}/cancel", f"client_secret={secret}", 401),
        ("GET", "/v1/payment_intents", "", 401),
        ("POST", "/v1/refunds", f"payment_intent={document['id']}", 401),
    ):
        assert call(method, attack, body)[0] == status, (method, attack, body)
    status, shown = call("GET", f"{path}?client_secret={secret}")
    assert (status, shown["status"], "metadata" in shown) == (200, "requires_payment_method", False)
    status, paid = call("POST", f"{path}/confirm", f"{card}&client_secret={secret}")
    assert (status, paid["status"]) == (200, "succeeded")
