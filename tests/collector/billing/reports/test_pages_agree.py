"""The pages state the amounts of the API: the portal, the console and CSV files, for random customers late in a period.

`test_amounts_agree.py` has these customers too, and checks the amounts of the API themselves.
"""

import asyncio
import csv
import io
import random
import re
import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.languages.reader import create_reader
from edgeproxy.collector.pages import sessions
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages.sign_in import format_link
from loadtest.testbed.collector import ADMIN, Collector
from loadtest.testbed.ports import HOST
from tests.collector.billing.reports.test_amounts_agree import COUPONS, KINDS, METERS, NOWHERE, PLANS, Checker
from tests.collector.billing.reports.test_amounts_agree import draw_customer as draw
from tests.support.invoiced import FEBRUARY
from tests.support.moved_clock import write_offset
from tests.support.sold import CALLER, Sold, sold
from tests.support.visitor import Read, Visitor

NOW = FEBRUARY - 2 * 3600
READER = create_reader("en")
PERIOD = {"from": "2027-01-01T00:00:00Z", "to": "2027-02-01T00:00:00Z"}
COST = "cost"
GIFT = 50_000_000


async def fill(of: Sold, customers: int, seed: int) -> dict[str | None, str]:
    """Create the customers, half of them with credits. Return the sign-in link's secret of each, and an operator's."""
    for number in range(customers):
        chance, name = random.Random(seed + number), f"c{number}"
        drawn = draw(chance, *KINDS[number * 5 % len(KINDS)])
        await Checker(of, name, drawn._replace(events=[one for one in drawn.events if one.at < NOW - 60])).begin()
        if number % 2:
            async with of.database.writing() as connection:
                id_ = (await connection.exec_driver_sql(f"SELECT id FROM customers WHERE name = '{name}'")).scalar_one()
                await credits.book_gift(connection, CALLER, str(id_), f"gift-{name}", GIFT, "a test", None)
            await of.use(name, {COST: chance.randrange(2 * GIFT)}, at=NOW - 60)
    names = [*(f"c{number}" for number in range(customers)), None]
    async with of.database.writing() as connection:
        links = [Link("operator" if name is None else "ann", name) for name in names]
        made = [await sessions.create_link(connection, link, NOW) for link in links]
    return {name: secret or "" for name, secret in zip(names, made, strict=True)}


class Pages:
    """A collector at the time NOW, and what its pages say."""

    def __init__(self, collector: Collector, secrets: dict[str | None, str]) -> None:
        self._collector, self._secrets = collector, secrets
        self._site = f"http://{HOST}:{collector.port}"

    def enter(self, name: str | None) -> Visitor:
        """Return a visitor who has signed in for a customer, or an operator."""
        visitor = Visitor(self._site)
        visitor.get(format_link(self._site, self._secrets[name]))
        visitor.send("/sign-in/link")
        return visitor

    def call(self, name: str, path: str, **query: str) -> Any:
        answer = self._collector.get(path, token=ADMIN, customer=name, **query)
        assert answer.status == 200, answer
        return answer.json()

    def check(self, name: str, operator: Visitor) -> None:
        """Require equal amounts on all pages of a customer, and in its CSV files."""
        costs, upcoming = self.call(name, "/billing/costs"), self.call(name, "/billing/invoices/upcoming")
        spent, total = costs["days"][-1]["amount"], READER.money(upcoming["total"])
        assert self.call(name, "/billing/spend-alerts")["spent"] == spent
        with self.enter(name) as visitor:
            home = read(visitor, "/account")
            require(home, f"So far: {READER.money(spent)} ")
            require(home, f"next invoice, as of now {total} ")
            require(read(visitor, "/account/month"), f"The next invoice, as of now {total} ")
            require(read(visitor, "/account/invoices"), f"As of now {total} ")
            self._check_invoices(name, visitor)
            self._check_plan(name, visitor)
            for meter in METERS:
                self._check_meter(name, meter, visitor, operator)
            self._check_credits(name, visitor, operator, home)

    def _check_invoices(self, name: str, visitor: Visitor) -> None:
        """Require the amounts of each closed invoice on its page, in the list's file, and as the sum of its file."""
        invoices = self.call(name, "/billing/invoices")["invoices"]
        listed = {row["period_start"]: row for row in read_csv(visitor, "/account/invoices?format=csv")}
        assert len(listed) == len({one["period_start"] for one in invoices})
        for one in invoices:
            require(read(visitor, f"/account/invoices/{one['id']}"), READER.money(one["total"]))
            rows = read_csv(visitor, f"/account/invoices/{one['id']}/csv")
            assert sum(round(Decimal(row["amount"]) * 100) for row in rows) == one["subtotal"], one

    def _check_plan(self, name: str, visitor: Visitor) -> None:
        """Require the cost of each plan on the page of plans."""
        page = read(visitor, "/account/plan")
        for plan in self.call(name, "/billing/plans/costs")["plans"]:
            require(page, f"so far: {READER.money(plan['total'])} ")

    def _check_meter(self, name: str, meter: str, visitor: Visitor, operator: Visitor) -> None:
        """Require the cost and the usage of a meter in the explorers, and the usage in their CSV files."""
        value = self.call(name, "/v1/usage/value", meter=meter, **PERIOD)
        used_by_day = self.call(name, "/v1/usage", meter=meter, by="day", **PERIOD)["rows"]
        if not used_by_day:
            return  # The explorer shows only meters with usage.
        used = sum(row["value"] for row in used_by_day)
        query = f"?meter={meter}&by=&from=2027-01-01&to=2027-01-31"
        for one, path in ((visitor, "/account/usage"), (operator, f"/console/customers/{name}/usage")):
            page = read(one, path + query)
            if value["amount"] is not None:
                require(page, f"Cost {READER.money(value['amount'])} ")
            assert sum(int(row["value"]) for row in read_csv(one, f"{path}{query}&format=csv")) == used, (path, meter)

    def _check_credits(self, name: str, visitor: Visitor, operator: Visitor, home: str) -> None:
        """Require the balance on the pages of both, and as the sum of the statement's lines."""
        held = self.call(name, "/billing/balance")
        available = READER.exact(held["available"], held["currency"])
        for page in (
            read(visitor, "/account/credits"),
            read(operator, f"/console/customers/{name}/credits"),
            *([home] if held["available"] or held["grants"] else ()),
        ):
            require(page, available)


def read(visitor: Visitor, path: str) -> str:
    """Return the visible text of a page with single spaces."""
    answer = visitor.client.get(path)
    assert answer.status_code == 200, path
    html = re.sub(r"(</?(?:dt|dd|td|th|p|div|h\d|li|span|small)\b)", r" \1", answer.text)
    return f"{' '.join(Read(html).text.split())} "


def read_csv(visitor: Visitor, path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file by their columns."""
    return list(csv.DictReader(io.StringIO(visitor.client.get(path).text)))


def require(page: str, text: str) -> None:
    """Require that a page has a text."""
    amounts = re.findall(r".{50}-?\$[\d.,]+.{5}", page)
    assert text.lower() in page.lower(), f"{text!r} is not among {amounts}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plans.yaml").write_text(yaml.safe_dump({"plans": PLANS}))
    (tmp_path / "key").write_text("sk_test_sandbox\n")
    return tmp_path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("customers", [6, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_pages_and_files_state_the_amounts_of_the_api(
    folder: Path, sqlite_database: str, seed: int, customers: int
) -> None:
    meters: dict[str, Any] = {**METERS, COST: {"count": "events"}}
    terms: dict[str, Any] = {"plans": str(folder / "plans.yaml"), "coupons": COUPONS, "credits": {"meter": COST}}

    async def prepare() -> dict[str | None, str]:
        async with sold(folder, sqlite_database, NOWHERE, meters=meters, **terms) as (of, _):
            return await fill(of, customers, seed)

    secrets = asyncio.run(prepare())
    write_offset(folder / "clock", NOW - time.time())
    billing = {**terms, "mode": "live", "stripe": {"base": NOWHERE, "key": str(folder / "key")}}
    collector = Collector(folder / "collector", sqlite_database, billing=billing, meters=meters, customers={})
    mail = {"server": f"{HOST}:9", "sender": "a@example.com"}
    collector.settings["pages"] = {"url": f"http://{HOST}:{collector.port}", "mail": mail}
    collector.command = (sys.executable, "-m", "tests.support.moved_clock", str(folder / "clock"), "collector", "-c")
    with closing(collector):
        collector.start()
        pages = Pages(collector, secrets)
        with pages.enter(None) as operator:
            for number in range(customers):
                try:
                    pages.check(f"c{number}", operator)
                except AssertionError as error:
                    raise AssertionError(f"customer {number} of seed {seed}: {error}") from error
