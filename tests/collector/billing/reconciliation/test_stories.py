"""Months of many customers, with random invoices, cards and credits: our books equal Stripe's, to the cent.

Two collectors are killed at random times. Webhooks are lost, duplicated and reordered.
"""

import asyncio
import itertools
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.billing.invoices.credit_notes import MADE, REQUESTED
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import payments
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe_balance import clearing
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import (
    UNBOOKED_CREDIT_NOTES,
    UNBOOKED_INVOICES,
    credit_notes,
    dunning,
    invoices,
    subscriptions,
)
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.config.collector.billing import Stripe as Settings
from loadtest.testbed.collector import PLANS, SOLD, Collector, checked
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at
from tests.support.moved_clock import write_offset
from tests.support.stories import Company, Story
from tests.support.stripe_sandbox import KEY, Sandbox

DAY = 86400
APRIL = at(2027, 4, 1)
SECRET = "whsec_stories"
CALLS = ("call_lost", "error_before", "answer_lost", "answer_cut", "error_after", "rate_limited")
FAULTS: list[dict[str, Any]] = [
    *({"kind": kind, "probability": 0.004, "path": "/v1/"} for kind in CALLS),
    {"kind": "webhook_lost", "probability": 0.2},
    {"kind": "webhook_duplicated", "probability": 0.2},
    {"kind": "webhook_shuffled", "probability": 0.2},
]
MANY = int(os.environ.get("EDGEPROXY_SOAK_CUSTOMERS", "1000"))
MONTHS = ((JANUARY, FEBRUARY), (FEBRUARY, MARCH), (MARCH, APRIL))
SETTLE_SECONDS = 300.0, 2.0
"""Seconds that due work may take: a base, and an amount for each customer."""
KILL_SECONDS = 12.0
"""The longest time between two kills, in seconds."""
AT_ONCE = 8
EXPECTED_ACTS = 25
"""The least number of different acts among a thousand customers."""


class Run:
    """The company, its collectors, and time."""

    def __init__(
        self, company: Company, stories: list[Story], clock: Path, database: Database, seed: int, months: int
    ) -> None:
        self.company = company
        self.sandbox = company.sandbox
        self.stories = stories
        self.database = database
        self.months = MONTHS[:months]
        self.settle_seconds = SETTLE_SECONDS[0] + SETTLE_SECONDS[1] * len(stories)
        self.kills = 0
        self.is_over = asyncio.Event()
        self.chance = random.Random(seed)
        self._clock = clock
        self._seed = seed
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def to(self, moment: float) -> None:
        """Advance the clocks of the sandbox and of the collectors to a moment."""
        deadline = monotonic() + self.settle_seconds
        while (now := self.now()) < moment:
            # The due work at the end of a month of a thousand customers takes the sandbox a while.
            with suppress(TimeoutError):
                self.sandbox.control("clock", {"now": moment})
            assert monotonic() < deadline
        write_offset(self._clock, now - time())

    def now(self) -> float:
        deadline = monotonic() + self.settle_seconds
        while True:
            try:
                return float(self.sandbox.control("clock")["now"])
            except TimeoutError:
                assert monotonic() < deadline

    def set_faults(self, is_on: bool) -> None:
        self.sandbox.faults(*(FAULTS if is_on else []), seed=self._seed)

    async def each(self, *acts: Callable[[Story], None]) -> None:
        """Refresh the copy of Stripe's objects, then perform these acts for each customer, several in parallel."""
        self.set_faults(False)
        await asyncio.to_thread(self.company.look)
        self.set_faults(True)

        def act(story: Story) -> None:
            for act in acts:
                act(story)

        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(self._pool, act, story) for story in self.stories)
        )

    async def settle(self) -> None:
        """Wait until all due work is done. The clock advances meanwhile, so that failed work is retried."""
        deadline = monotonic() + self.settle_seconds
        while left := await self._count_due(self.now()):
            assert monotonic() < deadline, left
            await asyncio.sleep(0.25)
            await asyncio.to_thread(self.to, self.now() + 31)

    async def _count_due(self, now: float) -> dict[str, int]:
        """Return the amount of due work by kind, without zeros."""
        table = invoices.c
        statements = {
            "invoices": sa.select(sa.func.count()).where(
                table.state.in_(("closing", "voiding"))
                | (table.state == "draft")
                & ((table.closes_at <= now) | (table.stripe_id.is_(None) & (table.try_at <= now)))
            ),
            "subscriptions": sa.select(sa.func.count()).where(
                subscriptions.c.state == "active", subscriptions.c.period_end <= now
            ),
            "payments": sa.select(sa.func.count())
            .join_from(dunning, invoices, table.id == dunning.c.invoice)
            .where(table.state == "open", dunning.c.retry_at <= now),
            "notes": sa.select(sa.func.count()).where(credit_notes.c.state == REQUESTED),
        }
        async with self.database.reading() as connection:
            counts = {
                what: (await connection.execute(statement)).scalar_one() for what, statement in statements.items()
            }
        return {what: count for what, count in counts.items() if count}

    async def kill_now_and_then(self, seconds: float) -> None:
        """Kill and restart collectors until `is_over`. All collectors run at the end."""
        while not self.is_over.is_set():
            await asyncio.to_thread(kill_and_start, self.chance.choice(self.company.collectors))
            self.kills += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_over.wait(), self.chance.uniform(0.0, seconds))


def kill_and_start(collector: Collector) -> None:
    """Kill a collector, and restart it when its port is free."""
    collector.kill()

    def start() -> bool:
        process = collector.begin()
        until(lambda: not process.running or collector.ready(), "the collector is ready, or ends")
        return process.running

    until(start, "the collector can listen")


async def live(run: Run) -> None:
    """Play all months."""
    chance = run.chance
    await run.each(Story.begin)
    await run.settle()
    for begin, month in run.months:
        await asyncio.to_thread(run.to, begin + 12 * DAY)
        used_at = begin + 60 * chance.randrange(10 * 1440)
        await run.each(Story.enter_card, Story.settle_invoices, partial(Story.use, at=used_at))
        await run.each(Story.buy_credits, Story.change_plan, Story.adjust_balance)
        await run.settle()
        await asyncio.to_thread(run.to, month + 600)
        await run.settle()
        await run.each(Story.touch_draft)
        await asyncio.to_thread(run.to, month + FREEZE + 600)
        await run.settle()
        await run.each(Story.decide_held)
        for day in (1, 3, 5, 7):
            await run.settle()
            await asyncio.to_thread(run.to, month + FREEZE + day * DAY + 1200)
            if day == 3:
                await run.each(Story.settle_invoices, Story.change_card, Story.refund_credits)
        await run.settle()
        balance = await asyncio.to_thread(run.company.act, "balance", "/v1/balance", "GET")
        if balance is not None and (amount := balance["available"][0]["amount"]) > 0:
            run.company.act("payout", "/v1/payouts", amount=amount, currency="usd")
    await run.each(Story.settle_invoices, Story.refund_credits)
    await run.settle()
    await asyncio.to_thread(run.to, run.months[-1][1] + 15 * DAY)


async def fetch_accounts(database: Database) -> dict[str, int]:
    """Return the balance of each account, in cents."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    statement = sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account)
    async with database.reading() as connection:
        return Counter({name: amount // CENT for name, amount in await connection.execute(statement)})


async def wait_for_books(run: Run) -> None:
    """Wait until lost events are recovered and every movement is booked."""
    of_events = sa.select(sa.func.count()).where(webhook_events.c.state.in_(("waiting", "dead")))
    of_invoices = sa.select(sa.func.count()).select_from(invoices).where(sa.text(UNBOOKED_INVOICES))
    of_notes = sa.select(sa.func.count()).select_from(credit_notes).where(sa.text(UNBOOKED_CREDIT_NOTES))
    deadline, ours, stripes, left = monotonic() + run.settle_seconds, [0], [1], [0]
    while ours != stripes or any(left):
        assert monotonic() < deadline, (ours, stripes, left)
        await asyncio.to_thread(run.to, run.now() + 601)
        await asyncio.sleep(3.0)
        moved = await asyncio.to_thread(run.company.list_all, "/v1/balance_transactions")
        customers = await asyncio.to_thread(run.company.list_all, "/v1/customers")
        stripes = [sum(one["net"] for one in moved), sum(customer["balance"] for customer in customers)]
        accounts = await fetch_accounts(run.database)
        ours = [accounts["cash"], accounts["customer_balance"]]
        left = [await count(run.database, one) for one in (of_events, of_invoices, of_notes)]


async def count(database: Database, statement: sa.Select[Any]) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def check_books(run: Run) -> None:
    """Compare our books with Stripe's."""
    company, database = run.company, run.database
    await asyncio.to_thread(company.look)
    theirs = {one["id"]: one for listed in company.invoices.values() for one in listed}
    notes = await asyncio.to_thread(company.list_all, "/v1/credit_notes")
    credited, refunded = Counter[str](), Counter[str]()
    for note in notes:
        if note["status"] == "issued":
            credited[note["invoice"]] += note["amount"]
            refunded[note["invoice"]] += sum(refund["amount_refunded"] for refund in note["refunds"])
    noted = (credit_notes.c.invoice == invoices.c.id) & (credit_notes.c.state == MADE)
    sums = [
        sa.select(sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)).where(noted).scalar_subquery()
        for column in (credit_notes.c.amount, credit_notes.c.refunded)
    ]
    ours = ("id", "state", "stripe_id", "amount_due", "amount_paid", "total")
    async with database.reading() as connection:
        rows = (await connection.execute(sa.select(*(invoices.c[name] for name in ours), *sums))).all()
    differences = []
    for number, state, stripe_id, due, paid, total, of_notes, paid_back in rows:
        if state in ("draft", "held", "waived") or stripe_id is None:
            continue
        if state == "void" and stripe_id not in theirs:
            continue  # It was a draft, and Stripe deletes drafts.
        their = theirs[stripe_id]
        is_due = their["status"] in ("open", "uncollectible")
        expected = (
            their["status"],
            their["amount_remaining"] if is_due else 0,
            their["amount_paid"],
            credited[stripe_id],
            refunded[stripe_id],
        )
        if (state, due, paid, of_notes, paid_back) != expected or (state != "void" and total != their["total"]):
            differences.append((number, stripe_id, (state, due, paid, of_notes, paid_back), expected))
    assert differences == []
    live_ones = Counter(
        one["metadata"]["edgeproxy_invoice"]
        for one in theirs.values()
        if one["status"] not in ("draft", "void") and one["total"] and one["metadata"].get("edgeproxy_invoice")
    )
    assert [number for number, many in live_ones.items() if many > 1] == []
    accounts = await fetch_accounts(database)
    print(dict(accounts))
    customers = await asyncio.to_thread(company.list_all, "/v1/customers")
    async with database.reading() as connection:
        subjects = await clearing.fetch_subjects(connection, Span(JANUARY - DAY, APRIL + 60 * DAY))
    assert [subject for subject in subjects if subject.ours != subject.stripes] == []
    assert accounts["clearing"] == accounts["refunds"] == accounts["tax"] == 0
    assert accounts["customer_balance"] == sum(customer["balance"] for customer in customers)
    is_ours = {stripe_id for _, state, stripe_id, *_ in rows if state not in ("held", "draft")}
    owed = sum(one["amount_remaining"] for id_, one in theirs.items() if one["status"] == "open" and id_ in is_ours)
    assert accounts["receivable"] == owed
    sent = Counter(
        one["data"]["object"]["id"]
        for one in await asyncio.to_thread(company.list_all, "/v1/events", type="invoice.sent")
    )
    assert [id_ for id_, many in sent.items() if many > 1] == [], "each is mailed once"


async def check_repair(run: Run) -> None:
    """A repair changes nothing, either time."""
    span = Span(JANUARY - DAY, APRIL + 60 * DAY)
    booked = sa.select(sa.func.count()).select_from(credit_transactions)
    before = await count(run.database, booked)
    client = Stripe(Settings(base=run.sandbox.url), {"STRIPE_SECRET_KEY": KEY})
    client.pace.whole = client.pace.endpoint = 1e6
    try:
        for _ in range(2):
            repair = await payments.repair_span(run.database, client, span, run.now())
            assert [row for row in repair.rows if row.difference] == repair.failures == []
            assert await count(run.database, booked) == before
    finally:
        await client.close()
    kinds = sa.select(alerts.c.kind, sa.func.count()).group_by(alerts.c.kind)
    # The story jumps over hours. A fault in the first call after a jump is then the end of hours without a list.
    failures = sa.select(alerts.c.title, alerts.c.details).where(
        alerts.c.kind.in_(["webhook_event_failed", "invoice_failed"]),
        ~alerts.c.key.startswith("billing-unread-its list"),
    )
    async with run.database.reading() as connection:
        print({row[0]: row[1] for row in await connection.execute(kinds)})
        assert [tuple(row) for row in await connection.execute(failures)] == []
    # Stripe refunds no charge that the card holder has disputed.
    failed_notes = sa.select(alerts.c.title).where(
        alerts.c.kind == "credit_note_failed", alerts.c.title.not_like("%has been charged back%")
    )
    async with run.database.reading() as connection:
        assert (await connection.execute(failed_notes)).scalars().all() == []


@pytest.fixture
def build_company(tmp_path: Path) -> Iterator[Callable[..., Company]]:
    """Return a function that creates a company with collectors, a database and a sandbox."""
    with ExitStack() as ends:

        def build(database: str, **billing: Any) -> Company:
            sandbox = ends.enter_context(closing(Sandbox(tmp_path / "sandbox", "--mail", "required"))).start()
            sandbox.control("clock", {"now": JANUARY + 60})
            write_offset(tmp_path / "clock", sandbox.control("clock")["now"] - time())
            stripe = {"base": sandbox.url, "key": str(tmp_path / "key")}
            collectors = []
            for number in range(2):
                settings = {"plans": PLANS, "mode": "live", "credits": {}, "stripe": stripe, **billing}
                meters = {"requests": {"count": "requests"}, **SOLD}
                made = Collector(tmp_path / f"collector-{number}", database, billing=settings, meters=meters)
                command = (
                    sys.executable,
                    "-m",
                    "tests.support.moved_clock",
                    str(tmp_path / "clock"),
                    "collector",
                    "-c",
                )
                made.command = command
                collectors.append(ends.enter_context(closing(made)))
            (tmp_path / "key").write_text(f"{KEY}\n")
            url = f"http://{HOST}:{collectors[0].port}/billing/webhooks/stripe"
            (tmp_path / "secrets").write_text(sandbox.listen(url))
            stripe["webhook_secrets"] = str(tmp_path / "secrets")
            return Company(sandbox, collectors)

        yield build


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("database", "collection", "customers", "months"),
    [
        ("sqlite", "invoice_items", 8, 1),
        pytest.param("postgresql", "invoice_items", 8, 1, marks=pytest.mark.soak),
        *(
            pytest.param(*case, marks=[pytest.mark.soak, pytest.mark.timeout(14_400)])
            for case in itertools.product(("sqlite", "postgresql"), ("invoice_items", "meters"), (MANY,), (1, 3))
        ),
    ],
    indirect=["database"],
)
@pytest.mark.usefixtures("sqlite_with_threads")
def test_journal_matches_stripe_after_random_customer_stories(
    build_company: Callable[..., Company],
    tmp_path: Path,
    database: str,
    seed: int,
    collection: str,
    customers: int,
    months: int,
) -> None:
    began = monotonic()
    company = build_company(database, collection=collection)
    stories = [Story(company, f"payer-{number}", f"{seed}-{number}") for number in range(customers)]
    for collector in company.collectors:
        collector.start()
    if collection == "meters":
        synced = CliRunner().invoke(cli.app, ["billing", "sync", "-c", str(company.collectors[0].file)])
        assert synced.exit_code == 0, synced.output

    async def work() -> int:
        books = await Database.connect(database)
        run = Run(company, stories, tmp_path / "clock", books, seed, months)
        tasks = Tasks()
        kills = tasks.start("kills", run.kill_now_and_then(KILL_SECONDS))
        try:
            await live(run)
            run.is_over.set()
            await kills
            run.set_faults(False)
            await wait_for_books(run)
            for collector in company.collectors:
                await asyncio.to_thread(collector.end)
            await check_books(run)
            await check_repair(run)
            return run.kills
        finally:
            run.is_over.set()
            await asyncio.wait([kills])
            await books.close()

    killed = asyncio.run(work())
    code, output = checked(company.collectors[0])
    assert code == 0, output
    print(
        f"{customers} customers, {months} months, {collection}, {database.partition(':')[0]}, seed {seed}: "
        f"{sum(map(len, company.invoices.values())):,} invoices at Stripe, {killed} kills, "
        f"{monotonic() - began:.0f} s; {dict(company.done.most_common())}"
    )
    metered = company.list_all("/v1/subscriptions", status="all")
    assert bool(metered) == (collection == "meters")
    assert len(company.done) >= (EXPECTED_ACTS if customers >= 1000 else 1)
