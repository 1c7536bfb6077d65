"""Random lives of subscriptions, on both databases, rated by the product and by a second rater.

A life has changes, ends, returns, trials, late and corrected usage, coupons, thresholds, currencies of 0, 2 and 3
decimal places, void and written-off invoices, credit notes, and lost and won disputes. The product keeps each life in
its database and closes invoices when they are due. The second rater computes the amount of each invoice, and the books
must equal the sum of the invoices that stand.

The test shrinks a failing life to the smallest one that fails, and prints it. Write it into KEPT: these are played
first. `EDGEPROXY_LIFE_SECONDS` sets the seconds for drawing lives.
"""

import os
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import sqlalchemy as sa
import yaml
from hypothesis import settings
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.period_close.threshold_invoices import ThresholdInvoices
from edgeproxy.collector.billing.rating.rater import Segment
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber, SubscriptionRow
from edgeproxy.collector.database.billing_tables import credit_notes, disputes
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from tests.support.books import hurry
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at
from tests.support.second_rater import PAID_IN, PlanPart
from tests.support.sold import CALLER, Sold, sold
from tests.support.standing_rater import Account, WrittenInvoice

MONTHS = (JANUARY, FEBRUARY, MARCH, at(2027, 4, 1))
"""The start of each month of a life, and the end of the last one."""
PLANS = {
    "small@1": {
        "fee": {"usd": "3.1", "eur": "2.95", "jpy": "465", "kwd": "0.950"},
        "annual": {"discount": "20%"},
        "tier": "standard",
        "quantity": {"max": 9},
        "threshold": {"usd": "2", "eur": "1.9", "jpy": "300", "kwd": "0.610"},
    },
    "middle@1": {
        "fee": {"usd": "6.2", "eur": "5.99", "jpy": "929", "kwd": "1.890"},
        "tier": "standard",
        "trial": {"days": "10"},
        "minimum": {"usd": "9", "eur": "8.7", "jpy": "1350", "kwd": "2.770"},
        "quantity": {"max": 3},
    },
    "large@1": {
        "fee": {"usd": "31", "eur": "30.1", "jpy": "4650", "kwd": "9.530"},
        "annual": {"discount": "7%"},
        "tier": "enterprise",
        "threshold": {"usd": "3", "eur": "2.9", "jpy": "450", "kwd": "0.930"},
    },
}
METERS = {
    "small@1": {"included": "100", "price": {"usd": "0.0133", "eur": "0.0127", "jpy": "1.99", "kwd": "0.0041"}},
    "middle@1": {"included": "250", "price": {"usd": "0.0111", "eur": "0.01", "jpy": "1.66", "kwd": "0.0034"}},
    "large@1": {
        "tiers": [
            {"up_to": "300", "price": {"usd": "0.0101", "eur": "0.0099", "jpy": "1.51", "kwd": "0.0031"}},
            {"up_to": "none", "price": {"usd": "0.005", "eur": "0.0047", "jpy": "0.75", "kwd": "0.0015"}},
        ]
    },
}
COUPONS = {
    "THIRD": {"percent_off": "33%", "duration": "repeating", "periods": 2},
    "AMOUNT": {"amount_off": {"usd": "2", "eur": "1.9", "jpy": "299", "kwd": "0.610"}, "duration": "forever"},
}
ACCOUNTS = {
    **dict.fromkeys(("fee", "unused", "minimum"), "deferred_fees"),
    "usage": "revenue",
    "discount": "discounts",
}
"""The account of each kind of line."""
TAKEN_OFF = ("void", "uncollectible", "credit", "uncredit", "lose", "win")
KINDS = (*("use",) * 4, *("late",) * 3, *("change",) * 3, "end", "return", "return", "pay", "pay", "book", *TAKEN_OFF)

Kind = Literal[
    "use",
    "late",
    "change",
    "end",
    "return",
    "pay",
    "book",
    "void",
    "uncollectible",
    "credit",
    "uncredit",
    "lose",
    "win",
]


class Step(NamedTuple):
    """A step of a life, at a fraction of a month."""

    kind: Kind
    month: int
    share: float
    plan: str = ""
    interval: Literal["month", "year", ""] = ""
    calls: int = 0
    invoice: float = 0.0
    """Fractions that choose one of the invoices so far, and a part of its total."""
    part: float = 0.0
    quantity: int | None = None


class Life(NamedTuple):
    """A customer that subscribes within the first month, and its steps."""

    plan: str
    is_yearly: bool
    currency: str
    coupon: str | None
    share: float
    steps: tuple[Step, ...]


CASTS: dict[str, Any] = {"calls": int, "invoice": float, "part": float, "quantity": int}


def read_lives(text: str) -> dict[str, Life]:
    """Read lives by name: a line `name plan interval currency coupon share`, then its steps, which are indented."""
    lives = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *steps = block.splitlines()
        if not head.startswith("#"):
            name, plan, interval, currency, coupon, share = head.split()
            terms = (plan, interval == "year", currency, None if coupon == "-" else coupon, float(share))
            lives[name] = Life(*terms, tuple(map(read_step, steps)))
    return lives


def read_step(line: str) -> Step:
    """Read a step: `kind month share`, and its other terms by name."""
    kind, month, share, *terms = line.split()
    named: Any = (term.split("=") for term in terms)
    typed: Any = {name: CASTS.get(name, str)(value) for name, value in named}
    return Step(cast(Kind, kind), int(month), float(Fraction(share)), **typed)


KEPT = read_lives("""
yearly-coupon small@1 year eur THIRD 0.35
  change 2 0.08 plan=large@1
no-step small@1 month usd AMOUNT 0.37
credited small@1 month eur THIRD 0.38
  credit 0 0.57 invoice=0.7 part=0.99
credited-twice large@1 month eur AMOUNT 0.2
  use 0 0.3 calls=336
  credit 2 0.009 invoice=0.09 part=1.0
  credit 2 0.64 invoice=0.38 part=1.0
credited-before-a-change middle@1 month kwd AMOUNT 0.5
  credit 1 0.4 invoice=0.4 part=0.4
  change 1 0.15 plan=middle@1 quantity=2
  credit 2 0.0 invoice=0.4
lost-twice middle@1 month kwd - 0.2
  lose 2 0.1 invoice=0.4 part=0.5
  lose 2 0.5 invoice=0.2 part=1.0
  change 0 0.7 plan=large@1
late-then-lost middle@1 month kwd - 0.0
  late 0 0.7 calls=394
  lose 2 0.4 invoice=0.8 part=0.7
""")
"""The smallest lives that failed in the past."""
NEIGHBOURS = read_lives("""
# A customer disputes, changes the plan, pays again, and disputes again.
disputes-again small@1 month usd - 0.1
  pay 0 0.2 part=1.0
  lose 0 0.3 part=1.0
  change 0 0.4 plan=large@1
  pay 0 0.5 invoice=0.9
  use 0 0.6 calls=700
  lose 0 0.7 invoice=0.6 part=0.5
  change 1 0.2 plan=large@1 interval=year
  pay 1 0.3 invoice=0.9
  win 1 0.4
# An upgrade within a trial with a coupon is reverted and repeated.
trial-third middle@1 month eur THIRD 0.3
  change 0 0.4 plan=large@1 quantity=1
  use 0 0.45 calls=500
  change 0 0.5 plan=middle@1 quantity=3
  change 0 0.55 plan=large@1 interval=year
  change 1 0.5 plan=middle@1 interval=month
  use 1 0.6 calls=900
trial-amount middle@1 month eur AMOUNT 0.3
  change 0 0.4 plan=large@1 quantity=1
  use 0 0.45 calls=500
  change 0 0.5 plan=middle@1 quantity=3
  change 0 0.55 plan=large@1 interval=year
  change 1 0.5 plan=middle@1 interval=month
  use 1 0.6 calls=900
# Changes, ends and usage at the exact second of the end of a period.
end-seconds small@1 month jpy THIRD 0.0
  use 1 0.0 calls=300
  change 1 0.0 plan=small@1 quantity=7
  end 2 0.0
  return 2 0.0 plan=large@1
  use 2 0.0 calls=300
# Usage arrives after the invoice was closed and voided, and after it had reached a threshold.
late large@1 month kwd AMOUNT 0.0
  use 0 0.3 calls=399
  void 0 0.4 invoice=0.99
  use 0 0.5 calls=399
  late 0 0.9 calls=350
  late 0 0.95 calls=-350
  end 2 0.1
  late 1 0.9 calls=350
# The quantity rises and falls before and after a void.
quantities small@1 year kwd - 0.2
  change 0 0.5 plan=small@1 quantity=9
  void 0 0.6 invoice=0.99
  change 0 0.7 plan=small@1 quantity=2
  change 0 0.8 plan=small@1 quantity=9
  change 1 0.1 plan=large@1 interval=year
  uncollectible 1 0.2 invoice=0.5
  change 2 0.1 plan=small@1 interval=month quantity=1
""")
"""Lives written by hand."""


def draw_life(chance: random.Random) -> Life:
    plans = list(PLANS)

    def draw_step() -> Step:
        kind = chance.choice(KINDS)
        interval = chance.choice(["month", "year", ""]) if kind in ("change", "return") else ""
        # Drafts wait for two days of a month. A few steps happen at the exact second of the end of a period.
        share = chance.random() * chance.choices((0, 0.08, 1), (5, 30, 65))[0]
        calls = chance.randrange(-60, 400)
        part, quantity = chance.choice([1.0, chance.random()]), chance.choice([None, None, chance.randrange(1, 10)])
        return Step(
            *(kind, chance.randrange(3), share, chance.choice(plans), interval, calls, chance.random(), part, quantity)
        )

    plan = chance.choice(plans)
    is_yearly = "annual" in PLANS[plan] and chance.random() < 0.3
    steps = tuple(draw_step() for _ in range(chance.randrange(1, 20)))
    coupon = chance.choice([None, None, *COUPONS])
    return Life(plan, is_yearly, chance.choice(["usd", "eur", "jpy", "kwd"]), coupon, chance.random() / 2, steps)


class DifferenceError(Exception):
    """The product and the second rater disagree."""


class LifePlayer:
    """A life in the product and in the second rater.

    There is no Stripe: the test sets the states of invoices as Stripe's reports would.
    """

    def __init__(self, of: Sold, name: str, life: Life) -> None:
        self._of, self._name, self._life = of, name, life
        self._accounts: dict[str, Account] = {}
        self._written: dict[str, WrittenInvoice] = {}
        """The invoices of the second rater, by id."""
        self._used: Counter[int] = Counter()
        self._customer: Subscriber
        self._first = ""
        """The id of the subscription with the coupon."""
        self._begun = JANUARY + life.share * (FEBRUARY - JANUARY)

    async def play(self) -> None:
        """Play all months. Raises DifferenceError."""
        begun, steps = self.plan_steps()
        await self.begin(begun)
        await self._issue()
        for now, step in steps:
            await self._pass_time(now)
            await self.do(step, now)
            await self._issue()
            await self._look_at_threshold(now)
        await self._pass_time(MONTHS[-1] + FREEZE)
        await self._check_books()

    def plan_steps(self) -> tuple[float, list[tuple[float, Step]]]:
        """Return the start of the life, and its steps by time. Late usage is reported a month after its time."""
        steps = [(self._get_time(step), step) for step in self._life.steps]
        steps = [(time + 28 * 86400 if step.kind == "late" else time, step) for time, step in steps]
        return self._begun, sorted(step for step in steps if self._begun + 60 < step[0] < MONTHS[-1])

    async def begin(self, now: float) -> None:
        """Subscribe the customer."""
        life, of = self._life, self._of
        more = {"is_yearly": life.is_yearly, "currency": life.currency, "coupon": life.coupon}
        await of.customer(self._name, life.plan, now=now, **more)
        async with of.database.reading() as connection:
            self._customer = await subscription_rows.get_subscriber(connection, self._name)
            self._first = (await subscription_rows.get_by_customer(connection, self._name)).row.id

    def _get_time(self, step: Step) -> float:
        start, end = MONTHS[step.month], MONTHS[step.month + 1]
        return start + step.share * (end - start)

    async def _pass_time(self, now: float) -> None:
        """End the due periods and close the due drafts, in the order of time."""
        columns = subscription_rows.subscriptions.c
        while True:
            async with self._of.database.reading() as connection:
                is_due = (columns.customer == self._customer.id, columns.state != "canceled", columns.period_end <= now)
                periods = await subscription_rows.fetch_subscriptions(connection, *is_due)
                draft = (invoices_table.c.customer == self._customer.id, invoices_table.c.state == invoices.DRAFT)
                drafts = await invoices.fetch_invoices(connection, *draft, invoices_table.c.closes_at <= now)
            due: list[tuple[int, InvoiceRow | SubscriptionRow]] = [(row.period_end, row) for row in periods]
            due += [(row.closes_at, row) for row in drafts]
            if not due:
                return
            when, row = min(due, key=lambda one: (one[0], one[1].id))
            async with self._of.database.writing() as connection:
                if isinstance(row, SubscriptionRow):
                    await subscriptions.roll_period(connection, row.id, settings=self._of.known, now=when)
                else:
                    rated = await invoice_lines.compute_period_lines(connection, row, self._of.known.meters)
                    await invoices.write_lines(connection, row.id, rated.lines, row.currency)
            await self._issue()

    async def do(self, step: Step, now: float) -> None:
        """Perform a step. A refused step changes nothing."""
        is_yearly = {"month": False, "year": True, "": None}[step.interval]
        known, name = self._of.known, self._name
        if step.kind == "use":
            return await self._use(now, step.calls)
        if step.kind == "late":
            return await self._use(max(self._get_time(step), self._begun + 60), step.calls)
        if step.kind == "book":
            while await book_invoices(self._of.database):
                pass
            return None
        if step.kind in ("pay", *TAKEN_OFF):
            return await self._settle(step)
        try:
            async with self._of.database.writing() as connection:
                if step.kind == "change":
                    await subscriptions.change_subscription(
                        *(connection, CALLER, name, step.plan, None),
                        settings=known,
                        now=now,
                        is_yearly=is_yearly,
                        quantity=step.quantity,
                    )
                elif step.kind == "end":
                    await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=known, now=now)
                else:
                    await subscriptions.create_subscription(
                        *(connection, CALLER, name, step.plan),
                        is_yearly=bool(is_yearly),
                        settings=known,
                        now=now,
                        quantity=step.quantity or 1,
                    )
        except ChangeRejectedError:
            pass

    async def _use(self, when: float, calls: int) -> None:
        if calls:
            await self._of.use(self._name, {"calls": calls}, at=when)
            self._used[int(when) // 60 * 60] += calls

    async def fetch_rows(self, *conditions: Any) -> list[InvoiceRow]:
        """Return the invoices of the customer."""
        async with self._of.database.reading() as connection:
            return await invoices.fetch_invoices(
                connection, invoices_table.c.customer == self._customer.id, *conditions, sort="created_at"
            )

    async def _issue(self) -> None:
        """Issue the invoices whose lines are written, and let the second rater write them too."""
        for row in await self.fetch_rows(invoices_table.c.state == invoices.CLOSING):
            async with self._of.database.writing() as connection:
                state = invoices.OPEN if row.total > 0 else invoices.PAID
                values = {"amount_due": max(row.total, 0), "balance_applied": min(row.total, 0)}
                await invoices.transition(connection, row.id, row.state, state, **values)
            await self._write(row)

    async def _write(self, row: InvoiceRow) -> None:
        """Let the second rater write an invoice. Raises DifferenceError if its total differs."""
        async with self._of.database.writing() as connection:
            loaded = await subscription_rows.get_by_id(connection, row.subscription)
            lines = await invoices.line_rows.fetch_lines(connection, row.id)
        parts = list_parts(loaded.current.segments)
        account = self._accounts.get(row.subscription)
        if account is None:
            coupon = COUPONS.get(self._life.coupon or "") if row.subscription == self._first else None
            account = self._accounts[row.subscription] = Account(
                build_plans(self._life), self._life.currency, choose(coupon, self._life.currency)
            )
        if row.kind.startswith("threshold"):
            invoice = self._write_threshold(account, parts)
            if invoice is None:
                raise DifferenceError(
                    f"{row.period} {row.kind}: {row.total}, and the threshold is not reached: {lines}"
                )
        elif row.kind.startswith("period"):
            parts = [part for part in parts if part.start <= row.period_end]
            ended = [part for part in parts if part.end <= min(row.period_end, row.closes_at)]
            usage = {part.start: {"calls": {"": self._count(part)}} for part in ended}
            invoice = account.write(parts, ended, usage)
        else:
            invoice = account.write(parts)
        self._written[row.id] = invoice
        if invoice.total != row.total:
            ours = "\n".join(f"  {line.kind} {line.version} {line.quantity} {line.amount}" for line in lines)
            theirs = "\n".join(f"  {line}" for line in invoice.lines)
            message = f"{row.period} {row.kind}: {row.total} and not {invoice.total}\n{ours}\nand not\n{theirs}"
            raise DifferenceError(message)

    def _write_threshold(self, account: Account, parts: Sequence[PlanPart]) -> WrittenInvoice | None:
        """Let the second rater write the invoice of the threshold. Return None if the threshold is not reached."""
        running = [part for part in parts if part.period_start == parts[-1].period_start]
        return account.write_usage(parts, running, {part.start: {"calls": {"": self._count(part)}} for part in running})

    async def _look_at_threshold(self, now: float) -> None:
        """Invoice the usage of the running period if it is due. The product does this each minute."""
        columns = subscription_rows.subscriptions.c
        is_running = (columns.customer == self._customer.id, columns.state == "active", columns.period_end > now)
        async with self._of.database.reading() as connection:
            rows = await subscription_rows.fetch_subscriptions(connection, *is_running)
            loaded = [await subscription_rows.load_subscription(connection, row) for row in rows]
        for one in loaded:
            is_created = await ThresholdInvoices(self._of.database, lambda: self._of.known).invoice_usage(
                one.row.id, now
            )
            if is_created:
                await self._issue()
            elif (account := self._accounts.get(one.row.id)) is not None:
                missed = self._write_threshold(account, list_parts(one.current.segments))
                if missed is not None:
                    raise DifferenceError(f"no invoice of the threshold, but {missed.lines}")

    def _count(self, part: PlanPart) -> int:
        return sum(calls for minute, calls in self._used.items() if part.start <= minute < part.end)

    async def _settle(self, step: Step) -> None:
        """Pay or reduce an invoice, as Stripe allows."""
        rows = [row for row in await self.fetch_rows() if row.id in self._written and row.total > 0]
        if not rows:
            return
        row = sorted(rows, key=lambda row: row.id)[int(step.invoice * len(rows))]
        written, state = self._written[row.id], row.state
        left = row.total - written.amount_off
        amount = round_amount(step.part * left, row.currency) if left else 0
        async with self._of.database.writing() as connection:
            if step.kind == "pay" and state in (invoices.OPEN, invoices.UNCOLLECTIBLE):
                values = {"amount_due": 0, "amount_paid": left, "paid_off_stripe": left}
                await invoices.transition(connection, row.id, state, invoices.PAID, **values)
                written.is_off = False
            elif step.kind in ("void", "uncollectible") and step.kind in invoices.TRANSITIONS[state] - {"paid"}:
                if state == invoices.PAID:
                    return
                await invoices.transition(connection, row.id, state, step.kind)
                written.is_off = True
            elif step.kind == "credit" and state in (invoices.OPEN, invoices.PAID) and amount:
                back = {"off_stripe": amount} if state == invoices.PAID else {}
                note = {"id": generate_id(), "invoice": row.id, "amount": amount, "state": "made", **back}
                more = {"why": "agreed", "tries": 0, "created_at": 0}
                await connection.execute(sa.insert(credit_notes).values(**note, **more))
                written.amount_off += amount
            elif step.kind == "uncredit" and state == invoices.OPEN:
                of_row = (credit_notes.c.invoice == row.id, credit_notes.c.state == "made")
                note = (await connection.execute(sa.select(credit_notes).where(*of_row).limit(1))).first()
                if note is not None:
                    by_id = sa.update(credit_notes).where(credit_notes.c.id == note.id)
                    await connection.execute(by_id.values(state="void"))
                    written.amount_off -= note.amount
            elif step.kind == "lose" and state == invoices.PAID and amount:
                about = {"id": generate_id(), "customer": row.customer, "invoice": row.id, "reason": "general"}
                about |= {"state": "lost", "amount": amount, "taken_off": amount, "currency": row.currency}
                await connection.execute(sa.insert(disputes).values(**about, created_at=0))
                written.amount_off += amount
            elif step.kind == "win" and state == invoices.PAID:
                of_row = (disputes.c.invoice == row.id, disputes.c.state == "lost")
                dispute = (await connection.execute(sa.select(disputes).where(*of_row).limit(1))).first()
                if dispute is not None:
                    by_id = sa.update(disputes).where(disputes.c.id == dispute.id)
                    await connection.execute(by_id.values(state="won", taken_off=0))
                    written.amount_off -= dispute.taken_off

    async def _check_books(self) -> None:
        """Raise DifferenceError unless the journal equals the sum of the invoices that stand."""
        while await book_invoices(self._of.database):
            pass
        async with self._of.database.reading(whole=True) as connection:
            ours = await fetch_accounts(connection, self._customer.id)
        rows = await self.fetch_rows()
        expected = self.compute_standing(rows)
        for row in rows:
            if row.state == invoices.UNCOLLECTIBLE:
                expected["bad_debt"] += row.total - self._written[row.id].amount_off
            elif row.state == invoices.OPEN:
                expected["receivable"] += row.total - self._written[row.id].amount_off
            if row.state != invoices.VOID:
                expected["customer_balance"] += row.balance_applied
        for account in {*expected, *ours} - {"bank", "chargebacks"}:
            if ours.get(account, 0) != expected[account]:
                raise DifferenceError(f"{account}: {ours.get(account, 0)} and not {expected[account]} in the books")

    def compute_standing(self, rows: Sequence[InvoiceRow]) -> Counter[str]:
        """Return the sum of the standing invoice lines for each account."""
        expected: Counter[str] = Counter()
        for row in rows:
            written = self._written.get(row.id)
            if written is None or row.state == invoices.VOID:
                continue
            # A written-off invoice has its revenue; the loss is a bad debt.
            is_off, written.is_off = written.is_off, False
            for line, off in zip(written.lines, written.amounts_off(), strict=True):
                expected[ACCOUNTS[str(line.item[0])]] -= line.amount - off
            written.is_off = is_off
        return expected


def list_parts(segments: Sequence[Segment]) -> list[PlanPart]:
    """Return the segments of a subscription in the second rater's form."""
    return [
        PlanPart(
            *(segment.version, segment.is_yearly, *segment.span, *segment.period, *segment.paid),
            *(segment.is_resting, segment.is_trial, segment.quantity),
        )
        for segment in segments
    ]


def round_amount(amount: float, currency: str) -> int:
    """Return the nearest payable amount that is above zero."""
    unit = PAID_IN.get(currency, 1)
    return max(unit, unit * round(amount / unit))


async def fetch_accounts(connection: AsyncConnection, customer: str) -> dict[str, int]:
    """Return a customer's sum in each account of the journal, by account id, in the smallest currency unit."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    joined = sa.join(credit_transactions, credit_entries, credit_entries.c.seq == credit_transactions.c.seq)
    statement = sa.select(credit_entries.c.account, total).select_from(joined)
    statement = statement.where(credit_transactions.c.customer == customer).group_by(credit_entries.c.account)
    return {account: amount // CENT for account, amount in await connection.execute(statement) if amount}


def build_plans(life: Life) -> dict[str, Any]:
    """Return the plans in the currency of a life."""
    return {
        version: {**choose(terms, life.currency), "meters": {"calls": choose(METERS[version], life.currency)}}
        for version, terms in PLANS.items()
    }


def choose(terms: Any, currency: str) -> Any:
    """Return the terms in one currency."""
    if isinstance(terms, list):
        return [choose(term, currency) for term in terms]
    if not isinstance(terms, dict):
        return terms
    return terms[currency] if currency in terms else {name: choose(value, currency) for name, value in terms.items()}


async def find_fault(of: Sold, name: str, life: Life) -> str | None:
    """Play a life. Return the difference between the product and the second rater, or None."""
    try:
        await LifePlayer(of, name, life).play()
    except DifferenceError as error:
        return str(error)
    return None


async def shrink(of: Sold, life: Life) -> tuple[Life, str | None]:
    """Return the smallest life that still fails, and its failure. It leaves out steps and terms one by one."""
    count, fault = random.getrandbits(32), None
    while True:
        smaller = [
            *(life._replace(steps=life.steps[:at] + life.steps[at + 1 :]) for at in range(len(life.steps))),
            *([life._replace(coupon=None)] if life.coupon else []),
            *([life._replace(is_yearly=False)] if life.is_yearly else []),
        ]
        for one in smaller:
            count += 1
            if (why := await find_fault(of, f"shrunk-{count}", one)) is not None:
                life, fault = one, why
                break
        else:
            return life, fault


def write_plans(folder: Path) -> dict[str, Any]:
    """Write the plans into a file. Return the settings of billing."""
    file = folder / "plans.yaml"
    plans = {version: {**terms, "meters": {"calls": METERS[version]}} for version, terms in PLANS.items()}
    file.write_text(yaml.safe_dump({"plans": plans}))
    meters = {"calls": {"count": "events"}}
    return {"plans": str(file), "meters": meters, "coupons": COUPONS, "breaker": {"enabled": False}}


async def test_random_lives_cost_the_same_by_the_second_rater(tmp_path: Path, database: str, seed: int) -> None:
    seconds = float(os.environ.get("EDGEPROXY_LIFE_SECONDS", settings().max_examples / 10))
    async with sold(tmp_path, database, "http://127.0.0.1:9", **write_plans(tmp_path)) as (of, _):
        if database.startswith("sqlite"):
            event.listen(of.database._writer.sync_engine.pool, "checkout", hurry)
        given = (*KEPT.values(), *NEIGHBOURS.values())
        count, until = 0, time.monotonic() + seconds
        while count <= len(given) or time.monotonic() < until:
            life = given[count] if count < len(given) else draw_life(random.Random(seed + count))
            why = await find_fault(of, f"life-{count}", life)
            if why is not None:
                smallest, fault = await shrink(of, life)
                raise AssertionError(f"seed {seed + count}: {why}\nthe smallest life: {smallest!r}\n{fault}")
            count += 1
        async with of.database.reading(whole=True) as connection:
            await verify_journal(connection)
    print(f"{count} lives from seed {seed} on {database.partition(':')[0]}")
