"""Actions of customers, and of a person at Stripe's dashboard, on plans, invoices, cards and credits, from a seed.

Stripe's sandbox decides: its refusals and lost answers are no faults here, and such actions are not repeated.
"""

import itertools
import random
from collections import Counter
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

import orjson

from loadtest.testbed.collector import ADMIN, SERVICE, Collector
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Sandbox

ANSWER_SECONDS = 200.0
"""Seconds for a collector's answer. Attempts that Stripe failed may have used up a limit per minute."""
NUMBERS = itertools.count()
USED = {
    "standard": {"llm_tokens": 3_000_000, "agent_executions": 5_010, "api_calls": 150_000, "seats": 30},
    "enterprise": {"llm_tokens": 12_000_000, "agent_executions": 50_040, "storage_gb": 1_020},
    "free": {"llm_tokens": 9_000},
}
"""The highest monthly usage of each meter in each plan."""
CARDS = {
    "pm_card_visa": 50,
    "pm_card_chargeCustomerFail": 20,
    "pm_card_authenticationRequired": 10,
    "pm_card_createDispute": 10,
    "": 10,
}
"""The cards of customers, with weights. One customer in ten has none, and gets invoices by mail."""


class Company:
    """Collectors on one database, and Stripe."""

    def __init__(self, sandbox: Sandbox, collectors: list[Collector]) -> None:
        self.sandbox = sandbox
        self.collectors = collectors
        self.done: Counter[str] = Counter()
        """The number of actions at Stripe, by kind."""
        self.names: dict[str, str] = {}
        """Customers by their ids at Stripe."""
        self.invoices: dict[str, list[dict[str, Any]]] = {}
        """Stripe's invoices of each customer at the last look, by name, newest first."""

    def ask(self, method: str, path: str, said: Any = None, token: str = ADMIN) -> Answer:
        """Send a request to a running collector, repeated if necessary, because each is killed now and then."""
        number = next(NUMBERS)
        fields = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"story-{number}"}
        source = f"127.{number // 60_000 + 1}.{number // 250 % 240}.{number % 250 + 1}"
        answers: list[Answer] = []

        def try_one() -> bool:
            collector = self.collectors[(number + len(answers)) % len(self.collectors)]
            body = None if said is None else orjson.dumps(said)
            try:
                answers.append(ask(collector.port, path, method=method, fields=fields, body=body, source=source))
            except OSError:
                return False
            return answers[-1].status not in (429, 500, 503)

        try:
            until(try_one, f"{method} {path} is answered", seconds=ANSWER_SECONDS, step=0.1)
        except AssertionError as error:
            error.add_note(f"{len(answers)} answers, of which the last: {answers[-1:]}")
            raise
        return answers[-1]

    def act(self, what: str, path: str, method: str = "POST", **form: Any) -> dict[str, Any] | None:
        """Do something at Stripe. Returns None if it is refused or its result is unknown."""
        try:
            answer = self.sandbox.call(method, path, urlencode(form))
        except (OSError, HTTPException, ValueError):
            return None
        if answer.status != 200:
            return None
        self.done[what] += 1
        return dict(answer.json())

    def list_all(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Return a whole list of Stripe's objects, newest first. No faults may be active."""
        listed: list[dict[str, Any]] = []
        while True:
            after = {"starting_after": listed[-1]["id"]} if listed else {}
            page = self.sandbox.call("GET", f"{path}?{urlencode({'limit': 100, **query, **after})}").json()
            listed += page["data"]
            if not page["has_more"]:
                return listed

    def look(self) -> None:
        """Fetch Stripe's current data."""
        self.names = {one["id"]: one["name"] for one in self.list_all("/v1/customers")}
        self.invoices = {}
        for invoice in self.list_all("/v1/invoices"):
            self.invoices.setdefault(self.names[invoice["customer"]], []).append(invoice)


class Story:
    """A customer and its actions."""

    def __init__(self, company: Company, name: str, seed: str) -> None:
        self.company = company
        self.name = name
        self.chance = random.Random(seed)
        self._hand = random.Random(f"{seed}-hand")
        self.plan = self.chance.choices(("standard", "enterprise", "free"), (60, 20, 20))[0]
        (self.card,) = self.chance.choices(list(CARDS), list(CARDS.values()))
        self.is_ended = False
        self.purchases: list[str] = []

    # ---- as a customer

    def begin(self) -> None:
        """Create the customer with a plan."""
        company, emails = self.company, {"emails": [f"{self.name}@example.org"]}
        self._made(company.ask("POST", "/v1/customers", {"name": self.name, "tier": "basic"}))
        self._made(company.ask("PUT", f"/v1/customers/{self.name}/contacts", emails))
        path = f"/billing/subscription?customer={self.name}"
        self._made(company.ask("POST", path, {"plan": self.plan}))

    def use(self, at: int) -> None:
        """Report usage of a minute, below and above the included amounts."""
        events = []
        for meter, most in USED[self.plan].items():
            value = self.chance.randint(0, most) if self.chance.random() < 0.7 else 0
            event = {"source": "story", "id": f"{self.name}-{next(NUMBERS)}", "customer": self.name}
            events.append({**event, "meter": meter, "value": value, "time": _format_time(at)})
        self._made(self.company.ask("POST", "/v1/events", events, SERVICE))

    def change_plan(self) -> None:
        """Upgrade, downgrade, or end the plan, once in a while."""
        path, drawn = f"/billing/subscription?customer={self.name}", self.chance.random()
        if self.is_ended or drawn > 0.4:
            return
        if drawn < 0.1:
            self.is_ended = self.company.ask("DELETE", f"{path}&when=period_end").status == 200
            return
        plan = "enterprise" if drawn < 0.25 else "standard"
        change = {"plan": plan, **({"when": "now"} if drawn > 0.35 else {})}  # Of a dearer one: the invoice is below 0.
        if self.company.ask("PUT", path, change).status < 300:
            self.company.done[f"change to {plan}"] += 1
            self.plan = plan

    def enter_card(self) -> None:
        """Enter the card for later charges on Stripe's page."""
        stripe_ids = [id_ for id_, name in self.company.names.items() if name == self.name]
        if stripe_ids and self.card:
            form = {"invoice_settings[default_payment_method]": self.card}
            self.company.act("card", f"/v1/customers/{stripe_ids[0]}", **form)

    def change_card(self) -> None:
        """Perhaps enter a card that pays."""
        if self.card not in ("", "pm_card_visa") and self.chance.random() < 0.6:
            self.card = "pm_card_visa"
            self.enter_card()

    def buy_credits(self) -> None:
        """Perhaps buy credits and pay. Later have some of the money refunded, by us or by the dashboard."""
        if self.chance.random() > 0.3:
            return
        buy = {"millicredits": self.chance.randint(1, 40) * 1_000_000, "success_url": "https://shop.example/"}
        bought = self.company.ask("POST", f"/billing/checkout?customer={self.name}", buy)
        if bought.status not in (200, 201):
            return
        card = self.chance.choice(("pm_card_visa", "pm_card_createDispute", "pm_card_chargeCustomerFail"))
        session = bought.json()["id"]
        path, body = f"/_sandbox/checkout/{session}/pay", orjson.dumps({"card": card})
        json = {"Content-Type": "application/json"}
        try:
            answer = ask(self.company.sandbox.port, path, method="POST", fields=json, body=body)
        except OSError:
            return
        if answer.status == 200:
            self.company.done["purchase"] += 1
            self.purchases.append(session)

    def refund_credits(self) -> None:
        """Refund purchases."""
        for session in self.purchases:
            drawn = self.chance.random()
            if drawn < 0.3:
                cents = self.chance.randint(1, 300)
                refund = {"purchase": session, "millicredits": cents * 10_000, "why": "asked"}
                if self.company.ask("POST", "/billing/refunds", refund).status == 202:
                    self.company.done["our refund of credits"] += 1
            elif drawn < 0.5:
                intent = self.company.act("session", f"/v1/checkout/sessions/{session}", "GET")
                if intent is not None:
                    self._give_back(str(intent["payment_intent"]), "refund of credits")

    # ---- at the dashboard

    def adjust_balance(self) -> None:
        """Change the customer's balance by hand, once in a while."""
        stripe_ids = [id_ for id_, name in self.company.names.items() if name == self.name]
        if stripe_ids and self._hand.random() < 0.1:
            path, cents = f"/v1/customers/{stripe_ids[0]}/balance_transactions", self._hand.randint(-3000, 3000)
            self.company.act("balance adjusted", path, amount=cents or 1, currency="usd")

    def touch_draft(self) -> None:
        """Change the draft of an ended period that is not closed yet."""
        for invoice in self.company.invoices.get(self.name, ()):
            if invoice["status"] != "draft" or self.chance.random() > 0.15:
                continue
            path, drawn = f"/v1/invoices/{invoice['id']}", self.chance.random()
            if drawn < 0.3:
                self.company.act("draft deleted", path, "DELETE")
                continue
            if drawn < 0.7:
                form = {"lines[0][amount]": 500, "lines[0][description]": "by hand"}
                self.company.act("line added", f"{path}/add_lines", **form)
            self.company.act("draft finalized", f"{path}/finalize")
            if drawn < 0.5:
                self.company.act("draft voided", f"{path}/void")

    def decide_held(self) -> None:
        """Accept or void held invoices, as the console allows."""
        listed = self.company.ask("GET", f"/billing/invoices?customer={self.name}").json()
        for invoice in listed["invoices"]:
            if invoice["state"] == "held":
                stripe_id = invoice["stripe_id"]
                decision = "void" if self.chance.random() < 0.5 else "accept"
                if decision == "accept" and stripe_id:
                    self.company.act("held one voided", f"/v1/invoices/{stripe_id}/void")
                path = f"/billing/invoices/{invoice['id']}/{decision}"
                if self.company.ask("POST", path, {"why": "by hand"}).status < 300:
                    self.company.done[f"held: {decision}"] += 1

    def settle_invoices(self) -> None:
        """Do something with each invoice that is not a draft, or nothing."""
        for invoice in self.company.invoices.get(self.name, ()):
            if invoice["status"] == "open":
                self._settle_open(invoice)
            elif invoice["status"] == "uncollectible":
                self._settle_written_off(invoice)
            elif invoice["status"] == "paid" and invoice["amount_paid"]:
                self._give_back_paid(invoice)

    def _settle_open(self, invoice: dict[str, Any]) -> None:
        act, path, drawn = self.company.act, f"/v1/invoices/{invoice['id']}", self.chance.random()
        if drawn < 0.35:
            act("paid by its page", f"{path}/pay", payment_method="pm_card_visa")
        elif drawn < 0.40:
            act("paid by a card that disputes", f"{path}/pay", payment_method="pm_card_createDispute")
        elif drawn < 0.50:
            act("paid elsewhere", f"{path}/pay", paid_out_of_band="true")
        elif drawn < 0.56:
            act("written off", f"{path}/mark_uncollectible")
        elif drawn < 0.62:
            act("voided", f"{path}/void")
        elif drawn < 0.76:
            whole = self.chance.random() < 0.2
            amount = invoice["amount_remaining"] if whole else self.chance.randint(1, invoice["amount_remaining"])
            note = act("credit note of an open one", "/v1/credit_notes", invoice=invoice["id"], amount=amount)
            if note is not None and self.chance.random() < 0.3:
                act("credit note voided", f"/v1/credit_notes/{note['id']}/void")
        elif drawn < 0.82:
            self._credit(invoice)

    def _settle_written_off(self, invoice: dict[str, Any]) -> None:
        act, path, drawn = self.company.act, f"/v1/invoices/{invoice['id']}", self.chance.random()
        if drawn < 0.3:
            act("paid though written off", f"{path}/pay", payment_method="pm_card_visa")
        elif drawn < 0.4:
            act("paid elsewhere though written off", f"{path}/pay", paid_out_of_band="true")
        elif drawn < 0.5:
            act("voided though written off", f"{path}/void")
        elif drawn < 0.6:
            act("credit note of a written-off one", "/v1/credit_notes", invoice=invoice["id"], amount=1)

    def _give_back_paid(self, invoice: dict[str, Any]) -> None:
        drawn, left = self.chance.random(), invoice["amount_paid"] - invoice["post_payment_credit_notes_amount"]
        if left <= 0 or drawn > 0.5:
            return
        if drawn < 0.2:
            amount = self.chance.randint(1, left)
            parts = sorted(self.chance.randint(0, amount) for _ in range(2))
            form = {"refund_amount": parts[0], "credit_amount": parts[1] - parts[0]}
            if invoice["amount_paid_off_stripe"]:
                form["refund_amount"], form["credit_amount"] = 0, parts[1]
            form["out_of_band_amount"] = amount - form["refund_amount"] - form["credit_amount"]
            form = {name: cents for name, cents in form.items() if cents}
            self.company.act(
                "credit note of a paid one", "/v1/credit_notes", invoice=invoice["id"], amount=amount, **form
            )
        elif drawn < 0.35:
            self._credit(invoice)
        else:
            payments = self.company.act("payments", f"/v1/invoice_payments?invoice={invoice['id']}", "GET")
            for payment in (payments or {}).get("data", ()):
                if payment["status"] == "paid":
                    self._give_back(payment["payment"]["payment_intent"], "refund of an invoice")

    def _credit(self, invoice: dict[str, Any]) -> None:
        """Credit a part of an invoice through us."""
        number = invoice["metadata"].get("edgeproxy_invoice")
        note = {"amount": self.chance.randint(1, 2000), "why": "sorry"}
        if number and self.company.ask("POST", f"/billing/invoices/{number}/credit", note).status < 300:
            self.company.done["our credit note"] += 1

    def _give_back(self, intent: str, what: str) -> None:
        """Refund a part of a payment, or settle its dispute."""
        disputes = self.company.act("disputes", f"/v1/disputes?payment_intent={intent}", "GET")
        if disputes is None:
            return
        for dispute in disputes["data"]:
            if dispute["status"] == "needs_response" and self.chance.random() < 0.5:
                evidence = {"evidence[uncategorized_text]": "winning_evidence"}
                self.company.act("dispute won", f"/v1/disputes/{dispute['id']}", **evidence)
            elif dispute["status"] == "needs_response":
                self.company.act("dispute lost", f"/v1/disputes/{dispute['id']}/close")
        if not disputes["data"]:
            self.company.act(what, "/v1/refunds", payment_intent=intent, amount=self.chance.randint(1, 400))

    @staticmethod
    def _made(answer: Answer) -> None:
        assert answer.status in (200, 201, 202), answer


def _format_time(at: int) -> str:
    from edgeproxy.base.timestamps import format_timestamp

    return str(format_timestamp(at * 1000))
