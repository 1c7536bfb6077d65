"""The random lives of `test_lives.py` run against the Stripe sandbox, by both collections.

At Stripe invoices are paid, voided and written off, banks decide disputes, and operators create credit notes. Each
invoice has the second rater's total, and agrees with Stripe. The journal has Stripe's balances.
`EDGEPROXY_LIVES` is the number of lives.
"""

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

from edgeproxy.collector.billing.invoices import invoices, note_requests
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.credit_decision import NoteRefusedError
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.jobs import billing as billing_jobs
from tests.collector.billing.test_lives import (
    MONTHS,
    DifferenceError,
    Life,
    LifePlayer,
    Step,
    draw_life,
    fetch_accounts,
    write_plans,
)
from tests.support.era import Era, era
from tests.support.invoiced import FREEZE, JANUARY, ON_BOTH_IF_SOAKED, apply_stripe_events
from tests.support.stripe_sandbox import Sandbox

LIVES = max(1, min(12, settings().max_examples // 25))
STEPS_MIN = 8
"""The minimum number of steps of a life."""
STEPS_MAX = 4
"""The maximum number of rounds of the job at one time."""
DISPUTED_CARD, GOOD_CARD = "pm_card_createDispute", "pm_card_visa"


class StripePlayer(LifePlayer):
    """A life with invoices at Stripe."""

    def __init__(self, of: Era, sandbox: Sandbox, name: str, life: Life) -> None:
        super().__init__(of.of, name, life)
        self._sandbox = sandbox

    async def ask(self, method: str, path: str, form: str = "") -> dict[str, Any]:
        """Call Stripe and return the answer. An error has the key `error`."""
        return dict((await asyncio.to_thread(self._sandbox.call, method, path, form)).json())

    async def register(self) -> None:
        """Let the second rater write each invoice that has lines by now, ordered by closing time."""
        async with self._of.database.reading() as connection:
            rows = [row for row in await self.fetch_rows() if row.id not in self._written]
            written = [row for row in rows if row.state != invoices.DRAFT and await has_lines(connection, row)]
        for row in sorted(written, key=lambda row: (row.closes_at, row.id)):
            await self._write(row)

    async def _settle(self, step: Step) -> None:
        """Pay, void or write off an invoice, note a credit or decide a dispute, if Stripe allows it."""
        rows = [row for row in await self.fetch_rows() if row.id in self._written and row.total > 0]
        rows = [row for row in rows if row.stripe_id]
        if not rows:
            return
        row = sorted(rows, key=lambda row: row.id)[int(step.invoice * len(rows))]
        path = f"/v1/invoices/{row.stripe_id}"
        if step.kind == "pay":
            card = DISPUTED_CARD if step.part < 0.6 else GOOD_CARD
            await self.ask("POST", f"{path}/pay", f"payment_method={card}")
        elif step.kind in ("void", "uncollectible"):
            await self.ask("POST", f"{path}/{'void' if step.kind == 'void' else 'mark_uncollectible'}")
        elif step.kind == "credit":
            async with self._of.database.writing() as connection:
                locked = await invoices.get_invoice(connection, row.id, lock=True)
                amount = max(1, round(step.part * (locked.total - locked.credited - locked.lost)))
                try:
                    await note_requests.request_note(connection, locked, amount, "agreed")
                except NoteRefusedError:
                    return
        elif step.kind == "uncredit":
            notes = (await self.ask("GET", f"/v1/credit_notes?invoice={row.stripe_id}"))["data"]
            for note in notes[:1]:
                await self.ask("POST", f"/v1/credit_notes/{note['id']}/void")
        else:
            for dispute in await self._list_disputes(row):
                if dispute["status"] == "needs_response":
                    word = "losing" if step.kind == "lose" else "winning"
                    await self.ask(
                        "POST", f"/v1/disputes/{dispute['id']}", f"evidence[uncategorized_text]={word}_evidence"
                    )

    async def _list_disputes(self, row: InvoiceRow) -> list[dict[str, Any]]:
        payments = (await self.ask("GET", f"/v1/invoice_payments?invoice={row.stripe_id}"))["data"]
        disputes = []
        for payment in payments:
            intent = payment["payment"].get("payment_intent")
            if intent:
                disputes += (await self.ask("GET", f"/v1/disputes?payment_intent={intent}"))["data"]
        return disputes

    async def observe(self) -> None:
        """Report Stripe's reductions to the second rater. Raise DifferenceError if an invoice differs from Stripe's."""
        for row in await self.fetch_rows():
            written = self._written.get(row.id)
            if written is None or not row.stripe_id:
                continue
            theirs = await self.ask("GET", f"/v1/invoices/{row.stripe_id}")
            notes = (await self.ask("GET", f"/v1/credit_notes?invoice={row.stripe_id}&limit=100"))["data"]
            written.is_off = theirs["status"] in ("void", "uncollectible")
            credited = sum(note["amount"] for note in notes if note["status"] == "issued")
            lost = sum(dispute["amount"] for dispute in await self._list_disputes(row) if dispute["status"] == "lost")
            written.amount_off = min(credited + lost, max(written.total, 0))
            ours = (row.state, row.amount_due if row.state == "open" else 0, row.credited)
            expected = (theirs["status"], theirs["amount_remaining"] if theirs["status"] == "open" else 0, credited)
            if ours != expected:
                raise DifferenceError(f"{self._name} {row.period} {row.kind}: {ours} here and {expected} at Stripe")

    async def check(self) -> None:
        """Raise DifferenceError if the journal differs from Stripe."""
        await self.observe()
        async with self._of.database.reading(whole=True) as connection:
            ours = await fetch_accounts(connection, self._customer.id)
        rows = await self.fetch_rows()
        owed = sum(row.amount_due for row in rows if row.state == invoices.OPEN)
        if ours.get("receivable", 0) != owed:
            raise DifferenceError(f"{self._name}: receivable is {ours.get('receivable', 0)} and not {owed}")
        people = (await self.ask("GET", "/v1/customers?limit=100"))["data"]
        balance = sum(person["balance"] for person in people if person["name"] == self._name)
        if ours.get("customer_balance", 0) != balance:
            raise DifferenceError(f"{self._name}: the balance is {ours.get('customer_balance', 0)} and not {balance}")
        expected = self.compute_standing([row for row in rows if row.id in self._written])
        for account in ("deferred_fees", "discounts"):
            if ours.get(account, 0) != expected[account]:
                raise DifferenceError(f"{self._name}: {account} is {ours.get(account, 0)} and not {expected[account]}")


async def has_lines(connection: Any, row: InvoiceRow) -> bool:
    return row.state in (invoices.CLOSING, invoices.OPEN, invoices.PAID) or await invoices.is_written(
        connection, row.id
    )


async def live(of: Era, players: list[StripePlayer]) -> None:
    """Play all lives by one clock."""
    begun_players: list[StripePlayer] = []

    async def turn(now: float, changed: StripePlayer | None = None) -> None:
        if changed is not None:
            await changed.register()
        await of.to(now)
        for _ in range(STEPS_MAX):
            is_busy = await of.closing.step(now)
            if of.collection == "meters":
                await of.export()
            if not is_busy:
                break
        await apply_stripe_events(of.of)
        while await book_invoices(of.of.database):
            pass
        for player in begun_players:
            await player.register()
            if player is changed:
                await player.observe()

    events: list[tuple[float, int, Step | None]] = []
    for number, player in enumerate(players):
        begun, steps = player.plan_steps()
        events += [(begun, number, None), *((now, number, step) for now, step in steps)]
    events += [(float(month + wait), -1, None) for month in MONTHS for wait in (5, 700, FREEZE, FREEZE + 700)]
    for now, number, step in sorted(events, key=lambda event: event[:2]):
        if number < 0:
            await turn(now)
            continue
        await of.to(now)
        player = players[number]
        if step is None:
            await player.begin(now)
            begun_players.append(player)
        else:
            await turn(now)
            await player.do(step, now)
        await turn(now, player)
    for hours in (1, 2, 3):
        await turn(MONTHS[-1] + FREEZE + 3600 * hours)


async def play(
    folder: Path, url: str, sandbox: Sandbox, collection: str, lives: Mapping[str, Life], player_of: type[StripePlayer]
) -> Counter[str]:
    """Play lives, by the name of the customer, and check them. Return the number of invoices in each state."""
    async with era(folder, url, sandbox, JANUARY, collection=collection, **write_plans(folder)) as of:
        of.collection = collection
        players = [player_of(of, sandbox, name, life) for name, life in lives.items()]
        with mock.patch.object(billing_jobs, "time", mock.Mock(time=of.now)):
            await live(of, players)
            for player in players:
                await player.check()
        async with of.of.database.reading(whole=True) as connection:
            await verify_journal(connection)
        return Counter([row.state for player in players for row in await player.fetch_rows()])


@pytest.mark.timeout(3600)
@ON_BOTH_IF_SOAKED
@pytest.mark.parametrize("collection", ["invoice_items", "meters"])
@pytest.mark.usefixtures("secret_key")
async def test_random_lives_agree_with_stripe(
    new_sandbox: Sandbox, tmp_path: Path, database: str, seed: int, collection: str
) -> None:
    count = int(os.environ.get("EDGEPROXY_LIVES", LIVES))
    long = (one for one in itertools.count(seed) if len(draw_life(random.Random(one)).steps) >= STEPS_MIN)
    lives = {f"{collection}-{one}": draw_life(random.Random(one)) for one in itertools.islice(long, count)}
    states = await play(tmp_path, database, new_sandbox, collection, lives, StripePlayer)
    assert states
    print(f"{count} lives from seed {seed} by {collection}: {dict(states)}")
