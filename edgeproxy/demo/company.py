"""The demonstration's customers with keys, tokens and cards, created by the APIs that an owner would use.

Each step may run again: existing objects stay.
"""

import secrets
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from edgeproxy.base.json_values import JsonDocument
from edgeproxy.demo.data import Data
from edgeproxy.demo.services import STRIPE_KEY, Services
from edgeproxy.demo.web import require, send

SERVICE_TOKEN = "demo-service-token"
"""The token in config/collector.yaml that services use to report usage."""


class Customer(NamedTuple):
    """A customer of the demonstration."""

    name: str
    tier: str
    card: str | None
    """A test card of Stripe. None: the customer only spends credits that it is given."""
    plan: str | None = None
    """The plan that the staff gives to the customer at the first start."""


NOVA = Customer("nova", "free", "pm_card_visa")
ORBIT = Customer("orbit", "free", "pm_card_chargeCustomerFail")
PULSE = Customer("pulse", "pro", None)
VEGA = Customer("vega", "free", "pm_card_visa", plan="standard")
ATLAS = Customer("atlas", "free", "pm_card_visa", plan="enterprise")
TOKENS = {"large": 1_500_000, "small": 2_000_000}
"""Tokens by model, for an invoice. Standard includes a million, and `large` uses all of it: 500,000 more cost $0.03 a
thousand. 2,000,000 of `small` cost $0.004 a thousand.
"""
TOKENS_CENTS = (("large", 1500), ("small", 800))
HISTORY_DAYS = 90
"""Days of checks on the status page before the first start."""
FIRST_CREDITS = 10_000_000
"""Millicredits that Atlas buys at the first start: ten dollars."""
TOP_UP = {"below": 25_000_000, "millicredits": 25_000_000, "month_max": 100_000_000}
"""Atlas's automatic top-up. The first credits are fewer than `below`, so that it buys more at once."""
CHECKS_PER_DAY = 2880
"""Checks of a region in a day: one each 30 seconds."""
CUSTOMERS = (NOVA, ORBIT, PULSE, VEGA, ATLAS)
FIRST_KEY = "demo"
"""The name of the key that each customer has."""


class Company:
    """The company's staff, at its collector."""

    def __init__(self, services: Services, data: Data, admin_token: str) -> None:
        self._services = services
        self._data = data
        self._admin_token = admin_token
        self._begun: dict[str, str] = {}
        """By customer, the start of the plan that the staff gave to it at this start."""

    def create_customers(self) -> None:
        """Create the missing customers."""
        for customer in CUSTOMERS:
            self._create_customer(customer)
            self.key(customer)
            self.token(customer)
            if customer.card is not None:
                self._leave_card(customer, customer.card)
            if customer.plan is not None:
                path = f"/billing/subscription?customer={customer.name}"
                begun = self._send("POST", path, {"plan": customer.plan}, 201, 409)
                if "created_at" in begun:
                    self._begun[customer.name] = begun["created_at"]

    def key(self, customer: Customer, name: str = FIRST_KEY) -> str:
        """Return the API key of a customer, by the name of the key."""

        def create() -> str:
            key = self._send("POST", f"/v1/customers/{customer.name}/keys", {"name": name}, 201)
            return str(key["secret"])

        return self._data.secret(format_key(customer.name, name), create)

    def find_key(self, customer: str) -> str | None:
        """Return the first key of a customer that the history has created; None for data of an earlier version."""
        return self._data.find_secret(format_key(customer, FIRST_KEY))

    def add_key(self, customer: str, name: str, secret: str) -> None:
        """Store the secret of a key that the history has created."""
        self._data.secret(format_key(customer, name), lambda: secret)

    def token(self, customer: Customer) -> str:
        """Return the customer's token for the collector's API."""

        def create() -> str:
            # A token with another secret, which was not stored, may exist under the plain name.
            name = f"{customer.name}-{secrets.token_hex(4)}"
            token = self._send("POST", "/v1/tokens", {"name": name, "customer": customer.name}, 201)
            return str(token["secret"])

        return self._data.secret(f"token of {customer.name}", create)

    def report_usage(self) -> None:
        """Report usage for pages and invoices: services' usage by customer and model, and one invalid event."""
        # Vega's usage is in the minute in which its plan began. The plan may end with the next minute, and would not
        # include usage in it. At a later start all of this usage is already counted.
        vega = {"time": self._begun[VEGA.name]} if VEGA.name in self._begun else {}
        events = [
            *(
                build_event(f"vega-{model}", VEGA, "llm_tokens", tokens, model=model) | vega
                for model, tokens in TOKENS.items()
            ),
            # A rejected event is not counted, so a repetition would be rejected once more.
            *([build_event("mistake", ATLAS, "lm_tokens", 7)] if self._data.is_new else []),
        ]
        require(send(f"{self._services.collector}/v1/events", token=SERVICE_TOKEN, json_body=events), 202)

    def buy_credits(self) -> None:
        """Buy Atlas's credits, as on Stripe's page, and turn its automatic top-up on, at the first start."""
        if not self._data.is_new:
            return
        body = {"millicredits": FIRST_CREDITS, "success_url": f"{self._services.collector}/account/credits"}
        session = self._send("POST", f"/billing/checkout?customer={ATLAS.name}", body, 201)
        require(send(f"{session['url']}/pay", json_body={"card": ATLAS.card}), 200)
        self._send("PUT", f"/billing/credits/top-up?customer={ATLAS.name}", TOP_UP, 200)

    def create_webhook(self) -> None:
        """Create Atlas's webhook at the first start, and send it a test message. The API answers its messages."""
        if not self._data.is_new:
            return
        path = f"/v1/customers/{ATLAS.name}/webhook-endpoints"
        body = {
            "url": f"{self._services.api}/anything/hooks",
            "description": "Bookkeeping",
            "types": ["invoice.paid", "credits.purchased", "payment.failed"],
        }
        endpoint = self._send("POST", path, body, 201)
        self._send("POST", f"{path}/{endpoint['id']}/test", None, 202)

    def record_checks(self) -> None:
        """Give the status page the checks of earlier days. No API inserts checks."""
        today = int(time.time()) // 86400 * 86400
        results = (("25", CHECKS_PER_DAY - 2), ("400", 1), ("fast", CHECKS_PER_DAY - 2), ("failed", 1))
        rows = [
            (region, today - ago * 86400, result, count)
            for region in self._services.regions
            for ago in range(1, HISTORY_DAYS)
            for result, count in results
            if result != "failed" or ago % 29 == 7
        ]
        with closing(sqlite3.connect(self._data.path("ledger.db"), timeout=30)) as database, database:
            database.executemany("INSERT OR REPLACE INTO checks (region, day, result, count) VALUES (?, ?, ?, ?)", rows)

    def _create_customer(self, customer: Customer) -> None:
        self._send("POST", "/v1/customers", build_new_customer(customer), 201, 409)
        self._send("PUT", f"/v1/customers/{customer.name}/contacts", {"emails": [build_contact(customer)]}, 200)

    def _leave_card(self, customer: Customer, card: str) -> None:
        """Save a card at Stripe, as the customer does on the page that the portal sends browsers to."""
        returning = {"return_url": f"{self._services.collector}/account"}
        self._send("POST", f"/billing/portal?customer={customer.name}", returning, 201)
        customers = self._stripe("/v1/customers?limit=100")["data"]
        at_stripe = next(each for each in customers if each["name"] == format_shown_name(customer))
        if at_stripe["invoice_settings"]["default_payment_method"] is None:
            default = {"invoice_settings[default_payment_method]": card}
            self._stripe(f"/v1/customers/{at_stripe['id']}", **default)

    def _send(self, method: str, path: str, body: object, *expected: int) -> JsonDocument:
        url = f"{self._services.collector}{path}"
        return require(send(url, method=method, token=self._admin_token, json_body=body), *expected)

    def _stripe(self, path: str, **form: str) -> JsonDocument:
        url = f"{self._services.stripe}{path}"
        return require(send(url, stripe_key=STRIPE_KEY, form=form or None), 200)


def build_event(number: str, customer: Customer, meter: str, value: int, **dimensions: str) -> dict[str, object]:
    """Return an event in the form of a service's reports. An event with an earlier number counts once."""
    event: dict[str, object] = {
        "source": "demo", "id": f"start-{number}", "customer": customer.name, "meter": meter, "value": value
    }  # fmt: skip
    return event | ({"dimensions": dimensions} if dimensions else {})


def format_key(customer: str, name: str) -> str:
    """Return the name of a key in the file of secrets."""
    return f"key of {customer}" if name == FIRST_KEY else f"key {name} of {customer}"


def build_contact(customer: Customer) -> str:
    """Return the mail address of a customer's contact, who gets its alerts, too."""
    return f"{customer.name}@{customer.name}.example"


def format_shown_name(customer: Customer) -> str:
    """Return the name of a customer for people."""
    return customer.name.capitalize()


def build_new_customer(customer: Customer) -> dict[str, object]:
    """Return the body of the request that creates a customer."""
    metadata = {"name": format_shown_name(customer), "alert_email": build_contact(customer)}
    return {"name": customer.name, "tier": customer.tier, "metadata": metadata}


def register_webhooks(services: Services) -> str:
    """Have the Stripe sandbox send its events to the collector; return the secret that they are signed with."""
    url = f"{services.stripe}/v1/webhook_endpoints"
    for endpoint in require(send(url, stripe_key=STRIPE_KEY), 200)["data"]:
        require(send(f"{url}/{endpoint['id']}", method="DELETE", stripe_key=STRIPE_KEY), 200)
    form: Mapping[str, str] = {"url": f"{services.collector}/billing/webhooks/stripe", "enabled_events[]": "*"}
    return str(require(send(url, stripe_key=STRIPE_KEY, form=form), 200)["secret"])
