"""All that people read states the amounts of the API: the portal, the console, CSV files, mails in three languages and
commands, for random customers late in a period.

`test_amounts_agree.py` has these customers too, and checks the amounts of the API themselves.
"""

import asyncio
import csv
import html
import io
import os
import random
import re
import sys
import time
from collections import defaultdict
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.alerts.alert import Alert, raise_alerts
from edgeproxy.collector.alerts.message import AlertMessage, ServiceSite, format_customer_mail, parse_message
from edgeproxy.collector.billing.credits import balances, credit_notices, credits
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.invoice_notice import build_notice
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.reports import key_spend, spend_alerts
from edgeproxy.collector.billing.reports.key_budget_alerts import make_budget_alerts
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION
from edgeproxy.collector.languages.reader import create_reader, parse_time
from edgeproxy.collector.pages import sessions
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages.sign_in import format_link
from edgeproxy.config.collector.currency_units import format_with_code
from edgeproxy.wire.batch import FIRST
from loadtest.testbed.collector import ADMIN, Collector
from loadtest.testbed.ports import HOST
from tests.collector.billing.reports.test_amounts_agree import (
    COUPONS,
    KINDS,
    METERS,
    NOWHERE,
    PLANS,
    Checker,
    Drawn,
    Event,
)
from tests.collector.billing.reports.test_amounts_agree import draw_customer as draw
from tests.support.invoiced import FEBRUARY, at
from tests.support.mailbox import html_of, text_of
from tests.support.moved_clock import IDLE, write_offset
from tests.support.sold import CALLER, Sold, sold
from tests.support.visitor import Visitor

NOW = FEBRUARY - 2 * 3600
READER = create_reader("en")
PERIOD = {"from": "2027-01-01T00:00:00Z", "to": "2027-02-01T00:00:00Z"}
COST = "cost"
GIFT = 50_000_000
BUDGET = 300
LANGUAGES = ("en", "de", "nl")
OPERATOR_CUSTOMERS = 10
"""The customers of one operator. A person has a limit of pages per minute."""
MANY = int(os.environ.get("EDGEPROXY_SOAK_CUSTOMERS", "1000"))
"""The customers of the long run."""


class Letter(NamedTuple):
    """A mail to a customer."""

    kind: str
    language: str
    text: str
    html: str
    """The visible text of its HTML."""


class Filled(NamedTuple):
    """The data of a collector's database."""

    secrets: dict[str, str]
    """The secret of the sign-in link of each customer, and of the operators."""
    letters: dict[str, list[Letter]]
    """The mails to each customer."""
    used: dict[tuple[str, str], int]
    """The usage by customer and meter."""


async def fill(of: Sold, customers: int, seed: int) -> Filled:
    """Create the customers, half of them with credits."""
    used: dict[tuple[str, str], int] = defaultdict(int)
    async with of.database.writing() as connection:
        edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0, "latest": FEBRUARY}
        await of.database.ledger.insert_edges(connection, [edge])  # Only usage of known edges is rolled up.
    for number in range(customers):
        chance, name = random.Random(seed + number), f"c{number}"
        drawn = draw(chance, *KINDS[number * 5 % len(KINDS)])
        drawn = drawn._replace(events=[event for event in drawn.events if event.at < NOW - 60])
        await Checker(of, name, drawn, BUDGET).begin()
        for event in drawn.events:
            used[name, event.meter] += event.value
        if number % 2:
            async with of.database.writing() as connection:
                id_ = (await connection.exec_driver_sql(f"SELECT id FROM customers WHERE name = '{name}'")).scalar_one()
                await credits.book_gift(connection, CALLER, str(id_), f"gift-{name}", GIFT, "a test", None)
            await of.use(name, {COST: chance.randrange(2 * GIFT)}, at=NOW - 60)
    links = [Link("ann", f"c{number}") for number in range(customers)]
    links += [Link(f"operator-{number}", None) for number in range(0, customers, OPERATOR_CUSTOMERS)]
    async with of.database.writing() as connection:
        # The last customer of a long run signs in hours later.
        made = [await sessions.create_link(connection, link, NOW, 900 + 20 * customers) for link in links]
    secrets = {link.customer or link.label: secret or "" for link, secret in zip(links, made, strict=True)}
    return Filled(secrets, await write_letters(of, customers), used)


async def write_letters(of: Sold, customers: int) -> dict[str, list[Letter]]:
    """Raise the alerts that are due at NOW, and return the mail about each in all languages, by customer."""
    known = of.known
    assert known.billing is not None
    meters = get_credit_meters(known.billing)
    assert meters is not None
    names = [f"c{number}" for number in range(customers)]
    due: list[Alert] = []
    async with of.database.writing() as connection:
        for name in names:
            await spend_alerts.put_amounts(connection, CALLER, name, [1])
        for id_ in await spend_alerts.list_customers(connection, "", customers):
            await spend_alerts.raise_reached(connection, id_, known.meters, NOW)
        usages = await balances.fetch_credit_usage(connection, meters, names)
        due += await credit_notices.make_notices(connection, usages, 100, NOW)
        for use in await key_spend.fetch_uses(connection, names, known.meters, NOW - EPOCH):
            due += make_budget_alerts(use, [100], NOW - EPOCH)
        for row in await invoices.fetch_invoices(connection):
            due += filter(None, [build_notice(row)])
        await raise_alerts(connection, due)
        messages = [parse_message(row) for row in await connection.execute(sa.select(alerts).order_by(alerts.c.id))]
    letters: dict[str, list[Letter]] = defaultdict(list)
    for message in messages:
        letters[str(message.customer)] += [write_letter(message, language) for language in LANGUAGES]
    return letters


def write_letter(message: AlertMessage, language: str) -> Letter:
    sender, to, site = "a@example.com", "ann@example.com", ServiceSite("Example", portal="https://example.com")
    mail = format_customer_mail(message, sender, to, create_reader(language), site)
    return Letter(message.kind, language, collapse(text_of(mail)), extract_text(html_of(mail)))


class Pages:
    """A collector at the time NOW, and what its pages, mails and commands say."""

    def __init__(self, collector: Collector, filled: Filled) -> None:
        self._collector = collector
        self._secrets, self._letters, self._used = filled
        self._site = f"http://{HOST}:{collector.port}"
        self._environ = {"EDGEPROXY_COLLECTOR": self._site, "EDGEPROXY_TOKEN": ADMIN}

    def enter(self, name: str) -> Visitor:
        """Return a visitor who has signed in for a customer, or as an operator."""
        visitor = Visitor(self._site)
        visitor.get(format_link(self._site, self._secrets[name]))
        visitor.send("/sign-in/link")
        return visitor

    def call(self, name: str, path: str, **query: str) -> Any:
        return self.fetch(path, customer=name, **query)

    def fetch(self, path: str, **query: str) -> Any:
        answer = self._collector.get(path, token=ADMIN, **query)
        assert answer.status == 200, answer
        return answer.json()

    def check(self, name: str, operator: Visitor) -> None:
        """Require equal amounts on all pages of a customer, in its CSV files and mails, and in commands."""
        costs, upcoming = self.call(name, "/billing/costs"), self.call(name, "/billing/invoices/upcoming")
        spent, total = costs["days"][-1]["amount"], READER.money(upcoming["total"])
        assert self.call(name, "/billing/spend-alerts")["spent"] == spent
        with self.enter(name) as visitor:
            home = extract_text(visitor.answer.text)  # Its first page after the sign-in.
            require(home, "So far")
            require(home, f"So far: {READER.money(spent)} ")
            require(home, f"next invoice, as of now {total} ")
            require(read(visitor, "/account/month"), f"The next invoice, as of now {total} ")
            require(read(visitor, "/account/invoices"), f"As of now {total} ")
            self._check_invoices(name, visitor)
            self._check_plan(name, visitor)
            for meter in METERS:
                self._check_meter(name, meter, visitor, operator)
            self._check_credits(name, visitor, operator, home)
            self._check_budgets(name, visitor)
        self._require_mail(name, "spend_reached", spent, costs["currency"])

    def _require_mail(self, name: str, kind: str, amount: int, currency: str) -> None:
        """Require an amount, in smallest units, in a mail of this kind in each language: as text, and in HTML."""
        for language in LANGUAGES:
            expected = create_reader(language).money(amount, currency)
            texts = [letter[2:] for letter in self._letters[name] if letter[:2] == (kind, language)]
            has_all = any(all(has_amount(text, expected) for text in pair) for pair in texts)
            assert has_all, f"{expected!r} of {kind} is in none of {texts}"

    def _run(self, *words: str) -> str:
        """Return what a command prints."""
        done = CliRunner().invoke(cli.app, list(words), env=self._environ)
        assert done.exit_code == 0, done.output
        return done.output

    def _check_budgets(self, name: str, visitor: Visitor) -> None:
        """Require the use of each key's budget on the page of keys, in a command and in mails."""
        printed, page = self._run("keys", "budgets", name), read(visitor, "/account/keys")
        for budget in self.fetch(f"/v1/customers/{name}/key-budgets")["budgets"]:
            used, currency = budget["used"], budget["currency"]
            (line,) = [line for line in printed.splitlines() if budget["key"] in line]
            assert f" {format_with_code(used, currency)} " in line, line
            require(page, f"{READER.money(used, currency)} ")
            if used >= BUDGET:
                self._require_mail(name, "key_budget_reached", used, currency)

    def _check_invoices(self, name: str, visitor: Visitor) -> None:
        """Require the amounts of each closed invoice on its page, in the list's file, and as the sum of its file."""
        invoices = self.call(name, "/billing/invoices")["invoices"]
        listed = {row["period_start"]: row for row in read_csv(visitor, "/account/invoices?format=csv")}
        assert len(listed) == len({invoice["period_start"] for invoice in invoices})
        printed = self._run("billing", "invoices", "-c", str(self._collector.file), "--customer", name)
        for invoice in invoices:
            require(read(visitor, f"/account/invoices/{invoice['id']}"), READER.money(invoice["total"]))
            rows = read_csv(visitor, f"/account/invoices/{invoice['id']}/csv")
            assert sum(round(Decimal(row["amount"]) * 100) for row in rows) == invoice["subtotal"], invoice
            (line,) = [line for line in printed.splitlines() if invoice["id"] in line]
            assert f" {format_amount(invoice['total'], invoice['currency'])} " in line, line
            if invoice["total"]:
                self._require_mail(name, "invoice_issued", invoice["total"], invoice["currency"])

    def _check_plan(self, name: str, visitor: Visitor) -> None:
        """Require the cost of each plan on the page of plans."""
        page = read(visitor, "/account/plan")
        for plan in self.call(name, "/billing/plans/costs")["plans"]:
            require(page, f"so far: {READER.money(plan['total'])} ")

    def _check_meter(self, name: str, meter: str, visitor: Visitor, operator: Visitor) -> None:
        """Require the cost and the usage of a meter in the explorers, and the usage in their CSV files."""
        value = self.call(name, "/v1/usage/value", meter=meter, **PERIOD)
        used_by_day = self.call(name, "/v1/usage", meter=meter, by="day", **PERIOD)["rows"]
        used = self._used[name, meter]
        assert sum(row["value"] for row in used_by_day) == used
        if not used_by_day:
            return  # The explorer shows only meters with usage.
        query = f"?meter={meter}&by=&from=2027-01-01&to=2027-01-31"
        for one, path in ((visitor, "/account/usage"), (operator, f"/console/customers/{name}/usage")):
            page = read(one, path + query)
            if value["amount"] is not None:
                require(page, f"Cost {READER.money(value['amount'])} ")
            assert sum(int(row["value"]) for row in read_csv(one, f"{path}{query}&format=csv")) == used, (path, meter)

    def _check_credits(self, name: str, visitor: Visitor, operator: Visitor, home: str) -> None:
        """Require the balance on the pages of both, as the sum of the statement and its file, and in mails."""
        held = self.call(name, "/billing/balance")
        available = READER.exact(held["available"], held["currency"])
        pages = read(visitor, "/account/credits"), read(operator, f"/console/customers/{name}/credits")
        for page in (*pages, *([home] if held["available"] or held["grants"] else ())):
            require(page, available)
        if not held["grants"]:
            return
        for grant in held["grants"]:
            used, left = READER.credits(grant["used"]), READER.credits(grant["millicredits"])
            for page in pages:
                require(page, f"{used} {left} / {READER.credits(grant['granted'])} ")
        require(
            read(visitor, "/account/credits/statements/2027-01"), f"{available} {READER.credits(held['available'])} "
        )
        rows = read_csv(visitor, "/account/credits/statements/2027-01.csv")
        amounts = [Decimal(row[held["currency"]]) for row in rows]
        assert sum(amounts[:-1]) == amounts[-1] == Decimal(held["available"]).scaleb(-6), rows
        assert [int(row["millicredits"]) for row in rows] == [amount.scaleb(6) for amount in amounts]
        if held["available"] > 0:
            for language in LANGUAGES:
                left = create_reader(language).exact(held["available"], held["currency"])
                (mail,) = [letter for letter in self._letters[name] if letter[:2] == ("credits_low", language)]
                assert has_amount(mail.text, left), mail.text


def has_amount(text: str, amount: str) -> bool:
    """Return True if a text has this amount, and not as the end or the beginning of a longer number."""
    return re.search(rf"(?<![\d.,-]){re.escape(collapse(amount))}(?!\d|[.,]\d)", text) is not None


def read(visitor: Visitor, path: str) -> str:
    """Return the visible text of a page."""
    answer = visitor.client.get(path)
    assert answer.status_code == 200, path
    return extract_text(answer.text)


def extract_text(document: str) -> str:
    """Return the visible text of HTML with single spaces, and one at its end. An HTML parser is far slower."""
    body = re.sub(r"<(style|script)\b.*?</\1>", "", document, flags=re.DOTALL)
    spaced = re.sub(r"</?(?:dt|dd|td|th|p|div|h\d|li|span|small)\b[^>]*>", " ", body)
    return f"{collapse(html.unescape(re.sub('<[^>]*>', '', spaced)))} "


def collapse(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def read_csv(visitor: Visitor, path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file by their columns."""
    answer = visitor.client.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return list(csv.DictReader(io.StringIO(answer.text)))


def require(page: str, text: str) -> None:
    """Require that a page has a text."""
    amounts = re.findall(r".{50}-?\$[\d.,]+.{5}", page)
    assert text.lower() in page.lower(), f"{text!r} is not among {amounts}"


def build_collector(
    folder: Path, database: str, now: float, meters: dict[str, Any], terms: dict[str, Any], **settings: Any
) -> Collector:
    """Return a collector whose clock follows a file, and whose jobs rest."""
    write_offset(folder / "clock", now - time.time())
    billing = {**terms, "mode": "live", "stripe": {"base": NOWHERE, "key": str(folder / "key")}}
    collector = Collector(folder / "collector", database, billing=billing, meters=meters, customers={}, **settings)
    mail = {"server": f"{HOST}:9", "sender": "a@example.com"}
    collector.settings["pages"] = {"url": f"http://{HOST}:{collector.port}", "mail": mail}
    collector.command = (sys.executable, "-m", "tests.support.moved_clock", str(folder / "clock"), "collector", "-c")
    collector.environ = {IDLE: "1"}
    return collector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plans.yaml").write_text(yaml.safe_dump({"plans": PLANS}))
    (tmp_path / "key").write_text("sk_test_sandbox\n")
    return tmp_path


@pytest.mark.timeout(20 * MANY + 300)
@pytest.mark.parametrize(
    "customers", [2, pytest.param(4, marks=pytest.mark.night), pytest.param(MANY, marks=pytest.mark.soak)]
)
def test_pages_mails_files_and_commands_state_the_amounts_of_the_api(
    folder: Path, sqlite_database: str, seed: int, customers: int
) -> None:
    meters: dict[str, Any] = {**METERS, COST: {"count": "events"}}
    terms: dict[str, Any] = {"plans": str(folder / "plans.yaml"), "coupons": COUPONS, "credits": {"meter": COST}}

    async def prepare() -> Filled:
        async with sold(folder, sqlite_database, NOWHERE, meters=meters, **terms) as (of, _):
            return await fill(of, customers, seed)

    filled = asyncio.run(prepare())
    collector = build_collector(folder, sqlite_database, NOW, meters, terms)
    with closing(collector):
        collector.start()
        pages = Pages(collector, filled)
        disagreements = []
        for begin in range(0, customers, OPERATOR_CUSTOMERS):
            with pages.enter(f"operator-{begin}") as operator:
                for number in range(begin, min(begin + OPERATOR_CUSTOMERS, customers)):
                    try:
                        pages.check(f"c{number}", operator)
                    except AssertionError as error:
                        disagreements.append(f"customer {number} of seed {seed}: {error}")
                        print(disagreements[-1], flush=True)
            print(f"{begin + OPERATOR_CUSTOMERS} customers", flush=True)
    print(f"{customers} customers from seed {seed}")
    assert not disagreements, "\n".join(disagreements)


AUCKLAND = "Pacific/Auckland"
KIWI = {
    "quotas": [
        {"meter": "calls", "per": "month", "included": 1000, "timezone": AUCKLAND, "cap": "hard"},
        {"meter": "tokens", "per": "day", "included": 5000, "timezone": AUCKLAND},
    ]
}
MIDNIGHTS = {
    "a month of summer": (at(2026, 12, 31, 11), at(2027, 1, 31, 11), at(2027, 2, 28, 11)),
    # Clocks go back at 3 o'clock on April 4th, so the quota's April ends at 12:00 UTC.
    "the month whose clocks go back": (at(2027, 3, 31, 11), at(2027, 4, 30, 11), at(2027, 5, 31, 11)),
}


@pytest.mark.parametrize("month", MIDNIGHTS)
def test_pages_state_one_period_around_a_midnight_in_auckland(folder: Path, sqlite_database: str, month: str) -> None:
    """The plan's month begins at a midnight in Auckland, as does that of a quota. The books and pages are in UTC."""
    begun, midnight, end = MIDNIGHTS[month]
    tiers = dict.fromkeys(("basic", "standard", "enterprise"), KIWI)
    terms: dict[str, Any] = {"plans": str(folder / "plans.yaml"), "credits": {}, "anchor": "signup"}
    events = [Event(begun, "calls", "large", "a", 70), Event(midnight - 90, "calls", "large", "a", 7)]

    async def act(now: float, *, begins: bool = False, rolls: bool = False) -> dict[str, str]:
        async with sold(folder, sqlite_database, NOWHERE, meters=METERS, **terms) as (of, _):
            if begins:
                await Checker(of, "kiwi", Drawn("small@1", begun, None, [], events, [], [])).begin()
                async with of.database.writing() as connection:
                    await spend_alerts.put_amounts(connection, CALLER, "kiwi", [10_000])
            async with of.database.writing() as connection:
                loaded = await subscription_rows.get_by_customer(connection, "kiwi")
                if rolls:
                    await subscriptions.roll_period(connection, loaded.row.id, settings=of.known, now=now)
                links = {"operator": Link("operator", None), "kiwi": Link("ann", "kiwi")}
                return {name: await sessions.create_link(connection, link, now) or "" for name, link in links.items()}

    asyncio.run(act(begun, begins=True))
    collector = build_collector(folder, sqlite_database, midnight - 30, METERS, terms, tiers=tiers)
    collector.environ["TZ"] = AUCKLAND
    with closing(collector):
        collector.start()
        for now, rolls, ends in (
            (midnight - 30, False, midnight),
            (midnight + 5, False, midnight),
            (midnight + 5, True, end),
            (midnight + 90, False, end),
        ):
            write_offset(folder / "clock", now - time.time())
            pages = Pages(collector, Filled(asyncio.run(act(now, rolls=rolls)), {}, {}))
            with pages.enter("operator") as operator, pages.enter("kiwi") as visitor:
                assert parse_time(pages.call("kiwi", "/billing/costs")["period_end"]).timestamp() == ends
                check_times(pages, operator, visitor, now)


def check_times(pages: Pages, operator: Visitor, visitor: Visitor, now: float) -> None:
    """Require that all pages state the period, the quotas and the draft invoices of the API."""
    costs, upcoming = pages.call("kiwi", "/billing/costs"), pages.call("kiwi", "/billing/invoices/upcoming")
    spend, plan = pages.call("kiwi", "/billing/spend-alerts"), pages.call("kiwi", "/billing/usage")
    start, end = costs["period_start"], costs["period_end"]
    assert {(one["period_start"], one.get("period_end", end)) for one in (upcoming, spend, plan)} == {(start, end)}
    since, until = READER.day(start), READER.day(end)
    home, limits = read(visitor, "/account"), read(visitor, "/account/limits")
    console = read(operator, "/console/customers/kiwi")
    for text in (f"renews on {until} ", f"expected on {until} ", f"fees and usage since {since} "):
        require(home, text)
    require(read(visitor, "/account/plan"), f"Runs until {until} ")
    require(
        read(visitor, "/account/month"), f"Usage since {READER.brief(start, now)}, which is on the invoice of {until}."
    )
    require(
        read(visitor, "/account/alerts"), f"Fees and usage since {since}: {READER.money(costs['days'][-1]['amount'])} "
    )
    for text in (f"Runs until {until} ", f"since {since} ", f"expected on {until} "):
        require(console, text)
    for quota in pages.fetch("/v1/customers/kiwi/quotas")["quotas"]:
        assert quota["timezone"] == AUCKLAND
        for page in (limits, console):
            require(page, f"Wait until {READER.moment(quota['resets'])}.")
        require(
            limits, f"{READER.number(quota['used'])} / {READER.number(quota['limit'])} a {quota['per']} ({AUCKLAND}) "
        )
        require(console, f"(a {quota['per']} ({AUCKLAND}))")
        local = parse_time(quota["since"]).astimezone(ZoneInfo(AUCKLAND))
        assert (local.hour, local.minute, local.day if quota["per"] == "month" else 1) == (0, 0, 1), quota
        assert parse_time(quota["since"]).timestamp() <= now < parse_time(quota["resets"]).timestamp()
    for draft in pages.call("kiwi", "/billing/invoices", state="draft")["invoices"]:
        for one, path in ((visitor, "/account/invoices"), (operator, "/console/invoices")):
            require(read(one, path), f"it closes on {READER.day(draft['closes_at'])} ")
        require(read(visitor, f"/account/invoices/{draft['id']}"), f"Closes {READER.brief(draft['closes_at'], now)} ")
