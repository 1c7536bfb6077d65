"""The actions of customers, colleagues and operators in a year. Every text field about a person contains the mark."""

from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from edgeproxy.base.timestamps import format_timestamp
from loadtest.testbed.collector import SERVICE, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.http_client import ask
from loadtest.testbed.waiting import until
from tests.e2e.year.plan import Person, make_events
from tests.e2e.year.side import Side
from tests.support.mailbox import text_of
from tests.support.site import LINK
from tests.support.visitor import Visitor


def build_origin(person: Person) -> dict[str, str]:
    """Return the field with a person's address. The API limits calls by address."""
    return {"X_Forwarded_For": person.address}


def join(side: Side, person: Person) -> None:
    """Create a customer with a plan."""
    path, name, come_from = f"/v1/customers/{person.name}", person.name, build_origin(person)
    send = side.send
    told = {"external_id": f"crm-{name}", "metadata": {"note": f"the one of {name}, {person.address}"}}
    send("POST", "/v1/customers", {"name": name, "tier": "basic", **told}, **come_from)
    send("POST", f"{path}/contacts", {"email": person.email, "role": "owner"}, **come_from)
    send("PUT", f"{path}/alert-address", {"email": person.email}, **come_from)
    send("POST", f"{path}/keys", {"name": f"key of {name}", "sha256": sha256(key_of(name))}, **come_from)
    hook = {"url": f"https://127.0.0.1:1/{name}", "description": f"hook of {name}", "types": ["invoice.paid"]}
    send("POST", f"{path}/webhook-endpoints", hook, **come_from)
    send("PUT", f"{path}/holdings/desks/user-{name}", token=SERVICE)
    send("POST", f"/billing/subscription?customer={name}", {"plan": person.plan}, **come_from)


def enter_cards(side: Side, people: list[Person]) -> None:
    """Save a card at Stripe for each paying person."""
    for customer in list_at_stripe(side, "/v1/customers"):
        if customer["name"] in {person.name for person in people}:
            post(
                side, f"/v1/customers/{customer['id']}", **{"invoice_settings[default_payment_method]": "pm_card_visa"}
            )


def pay_open(side: Side) -> None:
    """Pay open invoices on Stripe's pages, whose links are mailed to customers without a card."""
    for invoice in list_at_stripe(side, "/v1/invoices", status="open"):
        post(side, f"/v1/invoices/{invoice['id']}/pay", payment_method="pm_card_visa")


def list_at_stripe(side: Side, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return a whole list of Stripe's objects."""
    listed: list[dict[str, Any]] = []
    while True:
        after = {"starting_after": listed[-1]["id"]} if listed else {}
        page = side.sandbox.call("GET", f"{path}?{urlencode({'limit': 100, **query, **after})}").json()
        listed += page["data"]
        if not page["has_more"]:
            return listed


def post(side: Side, path: str, **form: Any) -> dict[str, Any]:
    """Send a change to Stripe."""
    answer = side.sandbox.call("POST", path, urlencode(form))
    assert answer.status == 200, answer
    return dict(answer.json())


def report_month(side: Side, people: list[Person], seed: int, month: int, second: int) -> None:
    """Report all usage as a service, and one invalid event per person."""
    events = [event for person in people for event in make_events(person, seed, month, second)]
    for event in events:
        event["time"] = format_timestamp(event["time"] * 1000)
    side.report(events)
    if month == 1:
        bad = [{**events[0], "id": f"bad-{person.name}", "customer": person.name, "meter": "none"} for person in people]
        assert len(side.send("POST", "/v1/events", bad, token=SERVICE).json()["rejected"]) == len(bad)


def buy_credits(side: Side, person: Person) -> None:
    """Buy credits, and pay them."""
    buy = {"millicredits": 10_000_000, "success_url": "https://shop.example/"}
    path = f"/billing/checkout?customer={person.name}"
    session = side.send("POST", path, buy, **build_origin(person)).json()["id"]
    fields = {"Content-Type": "application/json"}
    body = orjson.dumps({"card": "pm_card_visa"})
    answer = ask(side.sandbox.port, f"/_sandbox/checkout/{session}/pay", method="POST", fields=fields, body=body)
    assert answer.status == 200, answer


def dispute(side: Side, people: list[Person]) -> int:
    """Give some customers cards that dispute all later charges. Returns their number."""
    names = {person.name for person in people if person.disputes}
    customers = [one for one in list_at_stripe(side, "/v1/customers") if one["name"] in names]
    for customer in customers:
        form = {"invoice_settings[default_payment_method]": "pm_card_createDispute"}
        post(side, f"/v1/customers/{customer['id']}", **form)
    return len(customers)


def win_disputes(side: Side) -> int:
    """Settle all disputes for us; return how many there were."""
    disputes = [one for one in list_at_stripe(side, "/v1/disputes") if one["status"] == "needs_response"]
    for dispute in disputes:
        post(side, f"/v1/disputes/{dispute['id']}", **{"evidence[uncategorized_text]": "winning_evidence"})
    return len(disputes)


def sign_in(side: Side, person: Person) -> None:
    """Sign in at the portal, open its pages, invite a colleague, and download all files."""
    count = len(side.mailbox.mails)
    with Visitor(f"http://127.0.0.1:{side.collector.port}") as visitor:
        visitor.client.headers["X-Forwarded-For"] = person.address
        visitor.get("/sign-in")
        visitor.send("/sign-in", email=person.email)
        until(lambda: find_link(side, person, count) is not None, "the link is mailed")
        visitor.get(find_link(side, person, count) or "")
        visitor.send("/sign-in/link")
        visitor.get("/account/team")
        visitor.send("/account/team/invite", email=f"bob@{person.name}.example", role="billing")
        visitor.get("/account/data")
        visitor.send("/account/data/download")
        assert visitor.status == 200, visitor.answer.text
        visitor.get(f"/nowhere/{person.email}")


def find_link(side: Side, person: Person, after: int) -> str | None:
    """Return the link that was mailed to a person, if it has arrived."""
    mails = [mail for mail in side.mailbox.mails[after:] if mail["To"] == person.email]
    links = [found[0] for mail in mails if (found := LINK.search(text_of(mail)))]
    return links[-1] if links else None


def trouble_operators(side: Side, person: Person) -> None:
    """Do the operators' actions that take a written reason."""
    path, name, come_from = f"/v1/customers/{person.name}", person.name, build_origin(person)
    side.send("POST", f"{path}/limits/raise", {"factor": 2, "for": "8h", "why": f"launch of {name}"}, **come_from)
    asked = {"customer": name, "kind": "access", "person": person.email, "note": f"letter of {name}"}
    request = side.send("POST", "/v1/privacy/requests", asked, **come_from).json()["id"]
    steps = f"/v1/privacy/requests/{request}/steps"
    side.send("POST", steps, {"state": "identified", "note": f"mail of {name}"}, **come_from)
    key = side.send("POST", f"{path}/keys", {"name": f"second of {name}"}, **come_from).json()["id"]
    side.send("DELETE", f"/v1/keys/{key}", {"why": f"lost by {name}"}, **come_from)
    side.send("PATCH", path, {"metadata": {"note": f"moved: {name}", "from": person.address}}, **come_from)
    side.collector.send("GET", f"/v1/customers?search={person.email}", **come_from)


def cancel(side: Side, person: Person) -> None:
    """End the plan with its period."""
    side.send("DELETE", f"/billing/subscription?customer={person.name}&when=period_end", **build_origin(person))


def fetch_begin(side: Side, person: Person) -> int:
    """Return the Unix second of the minute from which the person pays for its plan. The plan must still exist."""
    began = parse_second(side.send("GET", f"/billing/subscription?customer={person.name}").json()["created_at"])
    return began - began % 60


def list_own_totals(side: Side, pseudonym: str) -> Counter[int]:
    """Return the totals of a person's invoices at the collector, which must all be paid."""
    invoices = side.send("GET", f"/billing/invoices?customer={pseudonym}&limit=100").json()["invoices"]
    listed = [invoice for invoice in invoices if invoice["total"]]
    assert {invoice["state"] for invoice in listed} <= {"paid"}, listed
    return Counter(invoice["total"] for invoice in listed)


def parse_second(text: str) -> int:
    """Return the Unix second of a time in the API's format."""
    return int(datetime.fromisoformat(text).timestamp())
