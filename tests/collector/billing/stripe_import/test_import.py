"""Import of a Stripe account in use: repeated and killed at each step, it charges no time twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.request_rates import RequestPacer
from edgeproxy.collector.billing.stripe_import.account import read_account
from edgeproxy.collector.billing.stripe_import.import_plan import ImportOptions, ImportPlan, compute_plan
from edgeproxy.collector.billing.stripe_import.importer import Importer
from edgeproxy.collector.billing.stripe_import.map_file import parse_map
from edgeproxy.collector.billing.stripe_import.report import build_report
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import billing_customers, imported_subscriptions
from edgeproxy.collector.database.schema import audit as audit_table
from edgeproxy.collector.database.schema import customers as customers_table
from loadtest.testbed.tables_ready import put_tables
from tests.support import existing_account
from tests.support.era import era
from tests.support.existing_account import MONTH_OUT, TAKEN, ExistingAccount, add_customers
from tests.support.invoiced import FREEZE, fetch_invoices
from tests.support.sold import CALLER, KEY, Killed, Sold, sold
from tests.support.stripe_sandbox import Sandbox

DAY = 86400


class Doomed(Stripe):
    """A client that raises Killed once before and once after each update call."""

    met: ClassVar[set[tuple[Any, ...]]] = set()

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        """Make the call, or raise Killed before or after it."""
        if not name.endswith(".update"):
            return await super().call(name, *ids, key=key, **params)
        self._end(("before", name, *ids))
        answer = await super().call(name, *ids, key=key, **params)
        self._end(("after", name, *ids))
        return answer

    def _end(self, moment: tuple[Any, ...]) -> None:
        if moment not in self.met:
            self.met.add(moment)
            raise Killed


class Moved(Sold):
    """The collector's plans and customers, and the Stripe account of the import."""

    def __init__(self, of: Sold, closing: PeriodCloseJob, sandbox: Sandbox, account: ExistingAccount) -> None:
        super().__init__(of.database, of.known)
        self.closing, self.sandbox, self.account = closing, sandbox, account
        self.stripe = account.stripe

    def now(self) -> float:
        """Return the time of the sandbox, which is also the collector's."""
        return float(self.sandbox.control("clock")["now"])

    async def run(self, stripe: Stripe | None = None, *, is_dry: bool = False, **options: Any) -> ImportPlan:
        """Import the account, or only plan the import if `is_dry`."""
        stripe = stripe or self.stripe
        chosen = ImportOptions(parse_map(self.account.file(), "map.csv"), **options)
        account = await read_account(stripe)
        async with self.database.reading(whole=True) as connection:
            plan = await compute_plan(connection, account, self.known, chosen, self.now())
        return plan if is_dry else await Importer(self.database, stripe, CALLER).apply(plan)

    async def to(self, moment: float) -> None:
        """Set the time, and run the period close."""
        await asyncio.to_thread(self.sandbox.control, "clock", {"now": moment})
        for _ in range(2):
            await self.closing.step(self.now())

    async def rows(self) -> dict[str, Any]:
        """Return the imported subscriptions, by customer."""
        joined = imported_subscriptions.join(customers_table, customers_table.c.id == imported_subscriptions.c.customer)
        statement = sa.select(imported_subscriptions, customers_table.c.name).select_from(joined)
        async with self.database.reading() as connection:
            return {row.name: row for row in await connection.execute(statement)}

    async def effects(self) -> tuple[int, int, int]:
        """Return the numbers of audit entries, billing customers and Stripe calls. Each effect increases one."""
        async with self.database.reading() as connection:
            count = sa.select(sa.func.count())
            entries = (await connection.execute(count.select_from(audit_table))).scalar_one()
            links = (await connection.execute(count.select_from(billing_customers))).scalar_one()
        return entries, links, len(self.sandbox.journal())


@asynccontextmanager
async def moved(folder: Path, database: str, sandbox: Sandbox, *, is_full: bool = True) -> AsyncIterator[Moved]:
    """Yield a Stripe account in use, and a collector whose customers have no plan."""
    async with sold(folder, database, sandbox.url, **existing_account.settings(folder)) as (of, closing):
        assert of.known.billing is not None
        stripe = Stripe(of.known.billing.stripe, KEY)
        stripe.pace = RequestPacer(10_000.0, 10_000.0)
        try:
            account = ExistingAccount(stripe, "1")
            await account.fill_prices()
            if is_full:
                await account.fill_late()
                await asyncio.to_thread(sandbox.advance, MONTH_OUT)
                await account.fill()
            else:
                await account.customer("plain", metadata={"edgeproxy_customer": "plain"})
                await account.customer("filed")
                await account.subscribe("plain", "team")
            await add_customers(of, time.time())
            yield Moved(of, closing, sandbox, account)
        finally:
            await stripe.close()


async def paid_spans(of: Moved, name: str) -> list[tuple[int, int]]:
    """Return the times that fees of Stripe and the collector cover, rounded up to whole minutes."""
    spans = []
    for invoice in await of.stripe.list_all("v1.invoices.list", customer=of.account.customers[name]):
        if invoice["status"] not in ("open", "paid") or "edgeproxy_invoice" in (invoice["metadata"] or {}):
            continue
        for line in invoice["lines"]["data"]:
            if line["amount"]:
                spans.append((line["period"]["start"], line["period"]["end"]))
    for ours in (await fetch_invoices(of, name)).values():
        assert ours["state"] in ("open", "paid", "draft"), ours
        async with of.database.reading() as connection:
            statement = sa.text("SELECT start, \"end\" FROM invoice_lines WHERE invoice = :id AND kind = 'fee'")
            rows = (await connection.execute(statement, {"id": ours["id"]})).all()
        spans += [(row.start, row.end) for row in rows]
    return sorted((-(-start // 60) * 60, -(-end // 60) * 60) for start, end in spans)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # The other tests run on SQLite.
async def test_killed_imports_charge_each_month_once(new_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    async with moved(tmp_path, database, new_sandbox) as of:
        before = await of.effects()
        dry = build_report(await of.run(is_dry=True))
        assert await of.effects() == before, "a dry run changes nothing"
        check_report(dry, of.account)
        kills = await import_killed(of)
        assert kills >= 2 * (len(TAKEN) + len(of.account.customers) // 2), "each call was met twice"
        done = await of.effects()
        again = build_report(await of.run())
        assert await of.effects() == done, "a second run does nothing"
        assert {
            subscription["customer"] for subscription in again["subscriptions"] if subscription["step"] == "taken over"
        } == set(TAKEN)
        waiting = await of.rows()
        assert {name: row.state for name, row in waiting.items()} == dict.fromkeys(TAKEN, "waiting")
        with pytest.raises(ChangeRejectedError, match="at the end of the paid period"):
            async with of.database.writing() as connection:
                await subscriptions.create_subscription(
                    connection, CALLER, "plain", "team", is_yearly=False, settings=of.known, now=of.now()
                )
        await check_months(of)


async def import_killed(of: Moved) -> int:
    """Repeat a killed import until it completes, and return the number of kills."""
    Doomed.met.clear()
    assert of.known.billing is not None
    for kills in range(200):
        stripe = Doomed(of.known.billing.stripe, KEY)
        stripe.pace = RequestPacer(10_000.0, 10_000.0)
        try:
            await of.run(stripe)
        except Killed:
            continue
        finally:
            await stripe.close()
        return kills
    raise AssertionError("it never ends")


def check_report(report: Any, account: ExistingAccount) -> None:
    """Check that the report names mapped customers, and subscriptions that stay at Stripe with the reason."""
    by = {customer["stripe"]: customer for customer in report["customers"]}
    assert account.customers["gone"] not in by, "Stripe does not list who was deleted"
    found = {name: (by[id]["state"], by[id]["by"]) for name, id in account.customers.items() if id in by}
    assert found["plain"] == ("mapped", "metadata")
    assert found["filed"] == ("mapped", "file")
    assert found["mailed"] == ("mapped", "e-mail")
    assert found["quiet"] == ("unmapped", None)
    assert found["twin-1"] == found["twin-2"] == ("conflict", None)
    steps = {subscription["customer"]: subscription for subscription in report["subscriptions"]}
    assert {name for name, step in steps.items() if step["step"] == "take over"} == set(TAKEN)
    reasons = {name: step["why"] for name, step in steps.items() if step["step"] == "leave"}
    assert set(reasons) == {"twice", "euro", "cheap", "planned"}
    assert "2 subscriptions" in reasons["twice"]
    assert "3100 eur" in reasons["euro"]
    assert "discount" in reasons["cheap"]
    assert "schedule" in reasons["planned"]
    assert steps["late"]["status"] == "past_due"
    assert (steps["yearly"]["renewal"], steps["yearly"]["plan"]) == ("$334.80", "team@1")
    assert (steps["filed"]["renewal"], steps["filed"]["fee"], steps["filed"]["by"]) == ("$25.00", "$31.00", "file")
    assert (steps["metered"]["plan"], steps["metered"]["by"]) == ("usage@1", "prices")
    assert [(balance["customer"], balance["amount"]) for balance in report["balances"]] == [("filed", "$7.00")]
    assert [(open_invoice["customer"], open_invoice["amount"]) for open_invoice in report["open_invoices"]] == [
        ("lost", "$31.00"),
        ("late", "$31.00"),
    ]


async def check_months(of: Moved) -> None:
    """Advance two months, and compare the charges of each customer."""
    begin, waiting = of.now(), await of.rows()
    await of.account.use_card("late", "pm_card_visa")
    for day in (*range(2, 40, 3), 62, 66, 70):
        await of.to(begin + day * DAY)
    begun = {name: row for name, row in (await of.rows()).items() if row.state == "begun"}
    assert set(begun) == set(TAKEN) - {"yearly", "lost"}, "a year is paid at Stripe"
    lost = (await of.rows())["lost"]
    assert lost.state == "dropped", "Stripe has given up on its payment, and ended it"
    assert "not with its period" in lost.why
    assert await fetch_invoices(of, "lost") == {}
    for name, row in begun.items():
        theirs = await of.stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        assert theirs["status"] == "canceled"
        async with of.database.reading() as connection:
            loaded = await subscription_rows.get_by_customer(connection, name)
        first = loaded.current.segments[0]
        assert (loaded.row.id, first.span.start) == (row.subscription, waiting[name].begins_at)
        assert (loaded.row.state, first.is_trial) == ("active", False), "a trial at Stripe is not followed by one here"
    for name in (*begun, "yearly", "euro", "cheap", "planned"):
        spans = await paid_spans(of, name)
        assert len(spans) >= {"yearly": 1, "trying": 2}.get(name, 3), (name, spans)
        for (_, end), (start, _) in pairwise(spans):
            assert start == end, (name, spans)
        assert spans[-1][1] > of.now() - FREEZE, (name, spans)
    card = (await of.stripe.call("v1.customers.retrieve", of.account.customers["mailed"]))["invoice_settings"]
    assert card["default_payment_method"] is not None, "the card of the subscription is charged from now on"
    assert {invoice["state"] for invoice in (await fetch_invoices(of, "mailed")).values()} == {"paid"}


async def test_imported_usage_is_charged_by_stripe_meters_after_the_period_ends(
    new_sandbox: Sandbox, tmp_path: Path
) -> None:
    url = put_tables(f"sqlite:///{tmp_path}/ledger.db")
    async with era(tmp_path, url, new_sandbox, None, **existing_account.settings(tmp_path)) as of:
        assert of.of.known.billing is not None
        await of.exports.take_over()
        stripe = Stripe(of.of.known.billing.stripe, KEY)
        try:
            account = ExistingAccount(stripe, "by-meters")
            await account.fill_prices()
            await account.customer("metered", metadata={"edgeproxy_customer": "metered"}, email="m@example.com")
            await account.subscribe("metered", "base", "calls")
            await of.of.customer("metered", now=of.now())
            read = await read_account(stripe)
            async with of.of.database.reading() as connection:
                plan = await compute_plan(connection, read, of.of.known, ImportOptions(), of.now())
            (taken,) = (await Importer(of.of.database, stripe, CALLER).apply(plan)).subscriptions
            assert taken.row is not None
            await of.to(taken.row.begins_at - DAY)
            await of.turn()
            assert await fetch_invoices(of.of, "metered") == {}
            await of.to(taken.row.begins_at + 61)
            await of.turns(4)
            await of.of.use("metered", {"calls": 150}, at=taken.row.begins_at + DAY)
            ours = [one for one in await stripe.list_all("v1.subscriptions.list") if one["status"] == "active"]
            assert [one["customer"] for one in ours] == [account.customers["metered"]], "one, and the old one is over"
            assert (await read_account(stripe)).subscriptions == [], "ours is not to be imported"
            async with of.of.database.reading() as connection:
                loaded = await subscription_rows.get_by_customer(connection, "metered")
            await of.to(loaded.row.period_end + 5)
            await of.turns(3)
            await of.to(loaded.row.period_end + FREEZE)
            await of.turns(5, 301)
            invoices = (await fetch_invoices(of.of, "metered")).values()
            assert [(invoice["kind"], invoice["total"], invoice["state"]) for invoice in invoices] == [
                ("start", 1000, "paid"),
                ("period", 1000 + 50 * 100, "paid"),
            ]
        finally:
            await stripe.close()


async def test_subscription_that_continues_or_was_canceled_at_stripe_is_dropped(
    new_sandbox: Sandbox, tmp_path: Path
) -> None:
    async with moved(tmp_path, f"sqlite:///{tmp_path}/ledger.db", new_sandbox, is_full=False) as of:
        await of.account.subscribe("filed", "old")
        plain, filed = (of.account.subscriptions[name] for name in ("plain", "filed"))
        later = build_report(await of.run(is_dry=True, since=of.now() + 60 * DAY))["subscriptions"]
        assert {one["step"] for one in later} == {"leave"}
        assert all("renews before" in str(one["why"]) for one in later)
        await of.run()
        await of.stripe.call("v1.subscriptions.update", plain, cancel_at_period_end=False)
        await of.stripe.call("v1.subscriptions.cancel", filed)
        undone = {
            subscription["customer"]: subscription for subscription in build_report(await of.run())["subscriptions"]
        }
        assert undone["plain"]["step"] == "leave"
        assert not (await of.stripe.call("v1.subscriptions.retrieve", plain))["cancel_at_period_end"]
        await of.to(of.now() + 33 * DAY)
        rows = await of.rows()
        assert (rows["plain"].state, rows["filed"].state) == ("dropped", "dropped")
        assert "goes on at Stripe" in rows["plain"].why
        assert "not with its period" in rows["filed"].why
        async with of.database.reading() as connection:
            kinds = list((await connection.execute(sa.select(alerts.c.kind))).scalars())
        assert kinds.count("imported_subscription_failed") == 2
        assert await fetch_invoices(of, "plain") == await fetch_invoices(of, "filed") == {}
        await of.run()
        assert (await of.rows())["plain"].state == "waiting", "a dropped subscription can be imported again"


async def test_import_detects_changes_after_its_plan_and_before_the_period_ends(
    new_sandbox: Sandbox, tmp_path: Path
) -> None:
    async with moved(tmp_path, f"sqlite:///{tmp_path}/ledger.db", new_sandbox, is_full=False) as of:
        for name in ("late", "quiet"):
            await of.account.customer(name, metadata={"edgeproxy_customer": name})
            await of.account.subscribe(name, "team")
        await of.account.subscribe("filed", "old")
        plan = await of.run(is_dry=True)
        importer = Importer(of.database, of.stripe, CALLER)
        await of.stripe.call("v1.subscriptions.cancel", of.account.subscriptions["late"])
        async with of.database.writing() as connection:
            await subscriptions.create_subscription(
                connection, CALLER, "quiet", "usage", is_yearly=False, settings=of.known, now=of.now()
            )
        await asyncio.to_thread(new_sandbox.advance, 32 * DAY)
        applied = build_report(await importer.apply(plan))["subscriptions"]
        why = {one["customer"]: one["why"] for one in applied if one["step"] == "leave"}
        assert set(why) == {"late", "quiet"}
        assert "Stripe refuses" in str(why["late"])
        assert "there is a subscription already" in str(why["quiet"])
        planned = {
            subscription.row.stripe_id: subscription.row.begins_at
            for subscription in plan.subscriptions
            if subscription.row is not None
        }
        rows = await of.rows()
        assert (rows["late"].state, set(rows)) == ("dropped", {"plain", "filed", "late"})
        for name in ("plain", "filed"):
            assert rows[name].begins_at > planned[rows[name].stripe_id] + 27 * DAY, "Stripe has renewed it meanwhile"
        async with of.database.writing() as connection:
            await customers.start_deletion(connection, CALLER, "filed")
        sold_plans = dict(of.known.plans)
        del of.known.plans["team@1"]
        await of.to(rows["plain"].begins_at + 60)
        rows = await of.rows()
        assert (rows["plain"].state, rows["filed"].state) == ("waiting", "dropped")
        async with of.database.reading() as connection:
            raised = (await connection.execute(sa.select(alerts.c.kind, alerts.c.title))).all()
        (title,) = (row.title for row in raised if row.kind == "imported_subscription_failed")
        assert "cannot begin, and is tried again" in title
        assert "plan: is not on sale" in title
        of.known.plans.update(sold_plans)
        await of.to(rows["plain"].begins_at + 120)
        assert (await of.rows())["plain"].state == "begun"
        first = (await fetch_invoices(of, "plain")).values()
        assert [(one["kind"], one["total"], one["state"]) for one in first] == [("start", 3100, "paid")]


def test_command_prints_a_dry_run_and_refuses_an_invalid_map(new_sandbox: Sandbox, tmp_path: Path) -> None:
    async def fill() -> tuple[str, int]:
        async with moved(tmp_path, f"sqlite:///{tmp_path}/ledger.db", new_sandbox, is_full=False) as of:
            return of.account.customers["filed"], len(new_sandbox.journal())

    filed, effects = asyncio.run(fill())
    file = tmp_path / "map.csv"

    def say(*words: str) -> tuple[int, str]:
        command = ["billing", "import", "-c", str(tmp_path / "collector.yaml"), "--map", str(file), *words]
        done = CliRunner().invoke(cli.app, command, env=KEY)
        return done.exit_code, done.output

    for text, fault in (
        ("cus_1,plain\n", "map.csv:1: column 1: "),
        ("stripe,edgeproxy\ncus_1\n", "map.csv:2: column 2: "),
        ("stripe,edgeproxy\n,plain\n", "map.csv:2: column stripe: is empty"),
        (f"stripe,edgeproxy\n{filed},plain\n\n{filed},filed\n", "map.csv:4: column stripe: "),
        (f"stripe,edgeproxy\n{filed},nobody\n", "map.csv:2: column edgeproxy: there is no customer 'nobody'"),
        ("stripe,edgeproxy\ncus_none,plain\n", "map.csv:2: column stripe: the account has no "),
    ):
        file.write_text(text)
        code, output = say()
        assert code != 0, output
        assert fault in output
        assert len(new_sandbox.journal()) == effects, "nothing is done"
    file.write_text(f"stripe,edgeproxy\n{filed},filed\n")
    code, output = say("--dry-run", "--json")
    report = orjson.loads(output)
    assert (code, report["dry_run"], [subscription["by"] for subscription in report["subscriptions"]]) == (
        0,
        True,
        ["prices"],
    )
    assert sorted(str(customer["by"]) for customer in report["customers"]) == ["file", "metadata"]
    assert len(new_sandbox.journal()) == effects
    code, output = say()
    assert code == 0
    assert "1 subscription taken over, 0 left at Stripe" in output
    assert "nothing was changed" not in output
