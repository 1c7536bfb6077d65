"""Each command of the page "operator's day", run against a collector that charges at the Stripe sandbox."""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from string import Template
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.purchases import CUSTOMER
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.database import Database
from loadtest.testbed.collector import ADMIN, READ, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.credited import HOUR, book_spent_hour
from tests.support.stripe_sandbox import KEY, Sandbox
from tests.support.used_database import use_database

PAGE = (ROOT / "docs/billing/operators-day.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
INVOICES = ("INVOICE", "TRANSFERRED", "LOST", "MISTAKE")


REFUSED = [
    ("settle $TRANSFERRED 98.99 --why x", "the invoice is paid"),
    ("settle $LOST 98.99 --why x", "is not what is due, 9900"),
    ("write-off $LOST --why x", "only one that is open can be written off"),
    ("credit-note $INVOICE 49.51 --why x", "is above the 4950 left"),
    ("credit-note $INVOICE 0 --why x", "is no amount"),
    ("credit-note $INVOICE nan --why x", "is no amount"),
    ("gift $CUSTOMER 1e99 --why x", "is no amount"),
    ("gift $CUSTOMER 0.0000001 --why x", "is no amount"),
    ("withdraw $CUSTOMER 20.01 --why x", "20000000 at most"),
    ("reverse $CUSTOMER $CONSUMPTION 0.020001 --why x", "20000 at most"),
    ("refund $PURCHASE 14.99 --why x", "at most"),
    ("refund cs_none --why x", "there is no such purchase"),
]
"""Commands refused after the page's commands: the amount is too large, or the step was done already."""


@pytest.fixture(scope="module")
def selling(tmp_path_factory: pytest.TempPathFactory, own_sandbox: Sandbox) -> Iterator[Collector]:
    """A collector that charges each customer monthly from the day of the subscription."""
    folder = tmp_path_factory.mktemp("selling")
    (folder / "key").write_text(f"{KEY}\n")
    collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")
    stripe = {"base": own_sandbox.url, "key": str(folder / "key"), "webhook_secrets": str(folder / "hooks")}
    (folder / "hooks").write_text(own_sandbox.listen(f"http://{HOST}:{collector.port}/billing/webhooks/stripe"))
    collector.settings["billing"] |= {"mode": "live", "anchor": "signup", "stripe": stripe}
    with closing(collector):
        yield collector.start()


def edgeproxy(collector: Collector, line: str, token: str = ADMIN) -> tuple[int, str]:
    """Run a command line. Return its exit code and its output."""
    environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{collector.port}", "EDGEPROXY_TOKEN": token}
    done = CliRunner().invoke(cli.app, shlex.split(line)[1:], env=environ)
    return done.exit_code, done.output


def send(collector: Collector, method: str, path: str, said: Any) -> Any:
    answer = collector.send(method, path, said)
    assert answer.status in (200, 201), answer
    return answer.json()


def fetch(collector: Collector, table: str, columns: str) -> list[tuple[Any, ...]]:
    """Return rows from the database, because the API limits the request rate."""
    return collector.execute(f"SELECT {columns} FROM {table}")


def make_credits(collector: Collector, customer: str, intent: str) -> dict[str, str]:
    """Book a purchase of $20 and an hour of usage paid by it, as webhooks and the hourly job do."""

    async def book(database: Database) -> str:
        async with database.writing() as connection:
            await credits.book_purchase(connection, customer, Payment("cs_day", intent, 20_000_000))
            return await book_spent_hour(connection, customer, HOUR, 30_000)

    spent = use_database(collector.settings["database"], book)
    return {"CUSTOMER": customer, "PURCHASE": "cs_day", "CONSUMPTION": spent}


def test_each_command_of_the_page_has_its_documented_effect(selling: Collector, own_sandbox: Sandbox) -> None:
    reconcile, *others = LINES
    compared, names = reconcile.replace("collector.yaml", str(selling.file)), {}
    for name in INVOICES:
        customer = f"day-{name.lower()}"
        id_ = send(selling, "POST", "/v1/customers", {"name": customer, "tier": "basic"})["id"]
        send(selling, "POST", f"/billing/subscription?customer={customer}", {"plan": "standard"})
        (invoice,) = selling.get("/billing/invoices", token=ADMIN, customer=customer).json()["invoices"]
        names[name] = invoice["id"]
        if name == "INVOICE":
            card = (
                f"confirm=true&payment_method=pm_card_visa&return_url=https://shop.example&metadata[{CUSTOMER}]={id_}"
            )
            paid = own_sandbox.call("POST", "/v1/payment_intents", f"amount=2000&currency=usd&{card}").json()
            edgeproxy(selling, compared)  # The collector's job may book the money before the purchase, too.
            names |= make_credits(selling, id_, paid["id"])

    def states() -> list[str]:
        by_id = dict(fetch(selling, "invoices", "id, state"))
        return [by_id[names[name]] for name in INVOICES]

    until(lambda: states() == ["open"] * 4, "the invoices are sent")
    stripe_id = dict(fetch(selling, "invoices", "id, stripe_id"))[names["INVOICE"]]
    own_sandbox.call("POST", f"/v1/invoices/{stripe_id}/pay", "payment_method=pm_card_visa")
    until(lambda: states()[0] == "paid", "a webhook says so")
    for line in others:
        said = Template(line).substitute(names)
        if "--why" in line:
            code, text = edgeproxy(selling, said, READ)
            assert code == 1, text
        code, text = edgeproxy(selling, said)
        assert code == 0, f"{said}\n{text}"
        assert ("nothing was changed" in text) == ("--dry-run" in line), text
        if "--key" in line:
            assert edgeproxy(selling, said) == (code, text), "with the same key it is done once"
    until(lambda: states() == ["paid", "paid", "uncollectible", "void"], "Stripe has all of it")
    noted = [(4950, 4950, "made")]
    until(lambda: fetch(selling, "credit_notes", "amount, refunded, state") == noted, "half of it goes back, once")
    balance = selling.get("/billing/balance", token=ADMIN, customer=names["CUSTOMER"]).json()["balance"]
    assert balance == 20_000_000 - 30_000 + 25_000_000 - 5_000_000 - 5_000_000 + 10_000
    (used,) = selling.get("/billing/consumptions", token=ADMIN, customer=names["CUSTOMER"]).json()["consumptions"]
    assert (used["millicredits"], used["reversed"], used["meters"][0]["meter"]) == (30_000, 10_000, "cost")
    actions = [entry["action"] for entry in selling.get("/v1/audit", token=ADMIN, limit="1000").json()["entries"]]
    made = ["invoice.credit", "invoice.settle", "invoice.write_off", "invoice.void"]
    assert [action for action in actions if action in made] == made

    def matches() -> bool:
        code, text = edgeproxy(selling, compared)
        print(text)  # A failure shows what differs.
        return code == 0

    until(matches, "the books equal Stripe")
    for line, why in REFUSED:
        code, text = edgeproxy(selling, f"edgeproxy billing {Template(line).substitute(names)}")
        assert (code in (1, 2), why in text) == (True, True), text


def test_accept_dry_run_shows_the_amount_of_the_invoice(selling: Collector) -> None:
    send(selling, "POST", "/v1/customers", {"name": "held", "tier": "basic"})
    send(selling, "POST", "/billing/subscription?customer=held", {"plan": "standard"})
    (listed,) = selling.get("/billing/invoices", token=ADMIN, customer="held").json()["invoices"]
    number = listed["id"]
    until(lambda: dict(fetch(selling, "invoices", "id, state"))[number] == "open", "the invoice is sent")
    lines = "DELETE FROM invoice_lines WHERE invoice = ?"
    # Stripe still reports on the invoice that it sent. Such reports change nothing.
    held = "UPDATE invoices SET state = 'held', replaced_ids = stripe_id, stripe_id = 'in_other' WHERE id = ?"
    not_rated = f"UPDATE invoices SET held_why = '{invoices.NOT_RATED} too many' WHERE id = ?"
    for change, said, why in (
        (held, "99.00 USD goes out: the sum of its lines", "x"),
        # An invoice finalized by hand at Stripe: its amount was seen there, and is not compared with ours.
        (lines, "99.00 USD goes out: the invoice as it is at Stripe", "x"),
        ("UPDATE invoices SET total = 0 WHERE id = ?", "its amount is not known before it is closed", None),
        # Usage that cannot be rated is then left out for good.
        (not_rated, "its amount is not known before it is closed", "x"),
    ):
        selling.execute(change, [number])
        code, text = edgeproxy(selling, f"edgeproxy billing accept {number} --why x --dry-run")
        assert (code, said in text) == (0, True), text
        path = f"/billing/invoices/{number}"
        accepted = send(selling, "POST", f"{path}/accept?dry_run=true", {"why": "x"})
        assert accepted["accepted_why"] == why
        assert accepted["acceptance"] == selling.get(path, token=ADMIN).json()["acceptance"]
