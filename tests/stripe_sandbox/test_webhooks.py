"""Webhooks are signed, retried after failures, and accepted by Stripe's own package."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import stripe
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.waiting import until
from stripe_sandbox.description import load_description
from stripe_sandbox.objects.webhooks import replace_endpoint
from stripe_sandbox.state import State
from stripe_sandbox.store import transaction
from stripe_sandbox.transaction import Transaction
from tests.support.stripe_sandbox import Api, Sandbox


class Receiver(ThreadingHTTPServer):
    """Receives webhooks, and refuses a chosen number of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.taken: list[tuple[str, bytes]] = []
        self.refuses = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def types(self) -> list[str]:
        """Return the types of the received events."""
        return [orjson.loads(payload)["type"] for _, payload in self.taken]


class Taking(BaseHTTPRequestHandler):
    """Takes one."""

    server: Receiver

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            self.server.refuses -= 1
            self.send_error(503)
            return
        self.server.taken.append((self.headers["Stripe-Signature"], payload))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def test_update_event_has_the_previous_values_of_changed_fields(stripe_api: Api) -> None:
    body = stripe_api.call("POST", "/v1/customers", "phone=1&metadata[a]=1&metadata[b]=2").json()
    stripe_api.call("POST", f"/v1/customers/{body['id']}", "name=N&phone=2&metadata[a]=3&metadata[c]=4")
    (event,) = stripe_api.call("GET", "/v1/events?type=customer.updated&limit=1").json()["data"]
    former = {"name": None, "phone": "1", "metadata": {"a": "1", "c": None}}
    assert (event["data"]["object"]["id"], event["data"]["previous_attributes"]) == (body["id"], former)


def test_webhook_events_are_signed_and_resent_until_accepted(stripe_sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox = stripe_sandbox
    body = sandbox.call("POST", "/v1/webhook_endpoints", f"url={receiver.url}&enabled_events[]=customer.created").json()
    receiver.refuses = 1
    sandbox.call("POST", "/v1/customers", "name=A")
    until(lambda: not receiver.refuses, "the delivery was tried")

    def tried() -> list[str]:
        found = sandbox.control("deliveries?limit=10000")["deliveries"]
        return [delivery["state"] for delivery in found if delivery["attempt"] and delivery["endpoint"] == body["id"]]

    until(lambda: tried() == ["waiting"], "the failure is on record")
    event = sandbox.call("GET", "/v1/events?limit=1").json()["data"][0]
    assert event["pending_webhooks"] == 1
    sandbox.advance(10)
    until(lambda: receiver.taken, "the event is accepted")
    signature, payload = receiver.taken[0]
    # The sandbox's clock was advanced, so it is ahead of ours.
    taken = stripe.Webhook.construct_event(payload, signature, body["secret"], tolerance=300)
    assert (taken.type, taken.data.object["name"]) == ("customer.created", "A")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload + b" ", signature, body["secret"])
    assert "secret" not in sandbox.call("GET", f"/v1/webhook_endpoints/{body['id']}").json()
    sandbox.call("DELETE", f"/v1/webhook_endpoints/{body['id']}")


def test_webhook_faults_lose_delay_repeat_or_forge_events(stripe_sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox = stripe_sandbox
    body = sandbox.call("POST", "/v1/webhook_endpoints", f"url={receiver.url}&enabled_events[]=*").json()
    sandbox.faults(
        {"kind": "webhook_lost", "path": "product.created"},
        {"kind": "webhook_duplicated", "path": "customer.created"},
        {"kind": "webhook_forged", "path": "product.updated"},
        {"kind": "webhook_late", "path": "customer.updated", "seconds": 600},
    )
    customer = sandbox.call("POST", "/v1/customers").json()["id"]
    product = sandbox.call("POST", "/v1/products", "name=P").json()["id"]
    sandbox.call("POST", f"/v1/customers/{customer}", "name=B")
    sandbox.call("POST", f"/v1/products/{product}", "name=Q")
    until(lambda: len(receiver.taken) == 3, "three are taken")
    assert sorted(receiver.types()) == ["customer.created", "customer.created", "product.updated"]
    forged = next(one for one in receiver.taken if b'"product.updated"' in one[1])
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(forged[1], forged[0], body["secret"])
    sandbox.control("deliveries", {})
    until(lambda: "customer.updated" in receiver.types(), "the late one is taken")
    types = [one["type"] for one in sandbox.call("GET", "/v1/events?limit=4").json()["data"]]
    assert "product.created" in types
    sandbox.faults()
    sandbox.call("DELETE", f"/v1/webhook_endpoints/{body['id']}")


def test_shuffle_fault_delivers_events_in_any_order(stripe_sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox = stripe_sandbox
    body = sandbox.call("POST", "/v1/webhook_endpoints", f"url={receiver.url}&enabled_events[]=product.created").json()
    sandbox.faults({"kind": "webhook_shuffled", "path": "product.created", "seconds": 600})
    products = [sandbox.call("POST", "/v1/products", f"name={n}").json()["id"] for n in range(8)]
    sandbox.control("deliveries", {})
    until(lambda: len(receiver.taken) == len(products), "all are taken")
    taken = [orjson.loads(payload)["data"]["object"]["id"] for _, payload in receiver.taken]
    assert sorted(taken) == sorted(products)
    assert taken != products
    sandbox.faults()
    sandbox.call("DELETE", f"/v1/webhook_endpoints/{body['id']}")


def test_thin_event_notification_names_an_event_with_samples(stripe_sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox = stripe_sandbox

    async def flow(client: stripe.StripeClient) -> tuple[str, str]:
        destination = await client.v2.core.event_destinations.create_async(
            {
                "name": "errors",
                "type": "webhook_endpoint",
                "event_payload": "thin",
                "enabled_events": ["v1.billing.meter.error_report_triggered"],
                "webhook_endpoint": {"url": receiver.url},
                "include": ["webhook_endpoint.signing_secret"],
            }
        )
        meter = await client.v1.billing.meters.create_async(
            {"display_name": "Seats", "event_name": "seats", "default_aggregation": {"formula": "sum"}}
        )
        await client.v1.billing.meter_events.create_async(
            {"event_name": "seats", "payload": {"stripe_customer_id": "cus_nobody", "value": "1"}, "identifier": "x1"}
        )
        assert destination.webhook_endpoint is not None
        assert destination.webhook_endpoint.signing_secret is not None
        return destination.webhook_endpoint.signing_secret, meter.id

    secret, meter = sandbox.run(flow)
    until(lambda: receiver.taken, "the notification is taken")
    signature, payload = receiver.taken[0]

    async def read(client: stripe.StripeClient) -> None:
        notification = client.parse_event_notification(payload, signature, secret)
        assert notification.type == "v1.billing.meter.error_report_triggered"
        event = await client.v2.core.events.retrieve_async(notification.id)
        assert event.related_object is not None
        assert event.related_object.id == meter
        (kind,) = event.data.reason.error_types
        assert kind.code == "meter_event_customer_not_found"
        assert kind.sample_errors[0].request.identifier == "x1"

    sandbox.run(read)


@pytest.mark.difference(
    "the list of thin events",
    "has the parameters of the SDK's types; 20 a page unless asked for, at most 100; the newest first",
)
def test_thin_events_are_listed_page_by_page_the_newest_first(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox

    body = sandbox.call(
        "POST", "/v1/billing/meters", "display_name=Pages&event_name=pages&default_aggregation[formula]=sum"
    ).json()
    for number in range(5):
        sandbox.uncounted("pages", f"page {number}")

    async def flow(client: stripe.StripeClient) -> None:
        of: Any = {"object_id": body["id"]}
        first = await client.v2.core.events.list_async(
            {**of, "types": ["v1.billing.meter.error_report_triggered"], "limit": 2}
        )
        assert len(first.data) == 2
        found: list[Any] = [one async for one in first.auto_paging_iter()]
        named = [one.data.reason.error_types[0].sample_errors[0].request.identifier for one in found]
        assert named == [f"page {number}" for number in reversed(range(5))]
        newest, oldest = found[0].created, found[-1].created
        for more, some in (
            ({"types": ["v1.billing.meter.no_meter_found"]}, 0),
            ({"created": {"gt": newest}}, 0),
            ({"created": {"lt": oldest}}, 0),
            ({"created": {"gte": oldest.replace("Z", "+00:00"), "lte": newest}}, 5),
        ):
            assert len((await client.v2.core.events.list_async({**of, **more})).data) == some, more

    sandbox.run(flow)
    for query in ("page=2027", "created[gte]=yesterday", "limit=101", "&".join(f"types[{n}]=a" for n in range(21))):
        assert sandbox.call("GET", f"/v2/core/events?{query}").status == 400, query


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://127.0.0.1:9/", ""),
        ("ftp://127.0.0.1/", "whsec_1"),
        ("x", "whsec_1"),
        *[("http://127.0.0.1:9/", secret) for secret in ("hush hush", "'whsec_1'", "hüsh", "h\udce9sh")],
    ],
)
def test_endpoint_of_the_command_line_needs_a_url_and_a_secret(url: str, secret: str) -> None:
    runner = CliRunner(env={"STRIPE_WEBHOOK_SECRETS": secret})
    result = runner.invoke(cli.app, ["stripe-sandbox", "--webhook", url, "--state", ":memory:"])
    assert (result.exit_code, "STRIPE_WEBHOOK_SECRETS" in result.stderr) == (2, True)


def test_endpoint_of_the_command_line_is_there_once(tmp_path: Path) -> None:
    state = State(tmp_path / "sandbox.db", load_description(), "http://127.0.0.1:1", 0.0, limited=False)
    for secret in ("whsec_1", "whsec_2"):
        with transaction(state.connection):
            replace_endpoint(Transaction(state.account, False, 1), "http://127.0.0.1:9/", secret)
    endpoints = Transaction(state.account, False, 1).all("webhook_endpoint")
    assert [(endpoint["secret"], endpoint["enabled_events"]) for endpoint in endpoints] == [("whsec_2", ["*"])]
    state.connection.close()
