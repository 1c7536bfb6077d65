"""The random lives of `test_lives.py` without a database: the pure modules decide and rate, many lives per second.

Changes, prorations, usage, minimum fees, coupons and standing lines are the product's. Each invoice must have the
second rater's total.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import yaml

from edgeproxy.collector.billing.invoices.invoiced_lines import compute_share_taken_off, take_off
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.discounts import Discount, rate_discounts
from edgeproxy.collector.billing.rating.rater import (
    DISCOUNT,
    RatedLine,
    Segment,
    Span,
    UsageKey,
    rate_segments,
    sum_amounts,
)
from edgeproxy.collector.billing.subscriptions import changes
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, PlanChangeError, SubscriptionState
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.currency_units import get_payable_unit, parse_amount
from edgeproxy.config.collector.load import load_plans_text
from tests.collector.billing.test_lives import (
    COUPONS,
    KEPT,
    METERS,
    MONTHS,
    NEIGHBOURS,
    PLANS,
    DifferenceError,
    Life,
    Step,
    build_plans,
    choose,
    draw_life,
    list_parts,
    round_amount,
)
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY
from tests.support.second_rater import PlanPart
from tests.support.standing_rater import Account, WrittenInvoice

LONG = (pytest.mark.soak, pytest.mark.timeout(7200))
SOLD = load_plans_text(
    "plans",
    yaml.safe_dump({"plans": {name: {**terms, "meters": {"calls": METERS[name]}} for name, terms in PLANS.items()}}),
).plans


class Draft(NamedTuple):
    """An invoice without lines. They are written later."""

    closes_at: int
    period: Span


class Invoice:
    """An invoice with its lines, and the second rater's invoice."""

    def __init__(self, lines: Sequence[RatedLine], twin: WrittenInvoice) -> None:
        self.lines, self.twin = lines, twin
        self.total = sum_amounts(lines)
        self.state = "open" if self.total > 0 else "paid"


class PureLife:
    """A subscription of a life."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._plans = {name: plan.in_currency(life.currency) for name, plan in SOLD.items()}
        self._begun = JANUARY + life.share * (FEBRUARY - JANUARY)
        self._state: SubscriptionState
        self._is_over = False
        self._drafts: list[Draft] = []
        self._invoices: list[Invoice] = []
        self._used: Counter[int] = Counter()
        coupon = COUPONS.get(life.coupon or "")
        self._account = Account(build_plans(life), life.currency, choose(coupon, life.currency))
        self._discounts: list[Discount] = []

    def play(self) -> None:
        """Play all months. Raises DifferenceError."""
        life = self._life
        self._state = changes.begin_subscription(
            life.plan, self._plans[life.plan], now=self._begun, anchor=None, is_yearly=life.is_yearly, has_trial=True
        )
        if life.coupon:
            terms = COUPONS[life.coupon]
            first = self._state.period
            first = periods.period_after(first) if self._state.last.is_trial else first
            until = periods.find_end_after(first, None, int(terms["periods"])) if "periods" in terms else None
            amount = terms.get("amount_off", {}).get(life.currency)  # type: ignore[attr-defined]
            cents = None if amount is None else parse_amount(amount, life.currency)
            share = None if amount is not None else 33 * 10**10
            self._discounts = [Discount(life.coupon, share, cents, frozenset(), first.start, until)]
        if not self._state.last.is_trial:
            self._invoice_fees(changes.compute_fees(self._state.segments, ()))
        steps = [(self._get_time(step) + (28 * 86400 if step.kind == "late" else 0), step) for step in life.steps]
        for now, step in sorted(steps):
            if self._begun + 60 < now < MONTHS[-1]:
                self._pass_time(now)
                self._do(step, now)
                self._look_at_threshold(now)
        self._pass_time(MONTHS[-1] + FREEZE)

    def _get_time(self, step: Step) -> float:
        start, end = MONTHS[step.month], MONTHS[step.month + 1]
        return start + step.share * (end - start)

    def _pass_time(self, now: float) -> None:
        while True:
            due = [(draft.closes_at, 0) for draft in self._drafts]
            due += [] if self._is_over else [(self._state.period.end, 1)]
            if not due or min(due)[0] > now:
                return
            if min(due)[1]:
                self._roll()
            else:
                draft = min(self._drafts)
                self._drafts.remove(draft)
                self._close(draft)

    def _roll(self) -> None:
        """Begin the next period."""
        state = self._state
        begun = changes.next_segment(state, self._plans)
        assert begun is not None
        if not state.last.is_trial:
            self._drafts.append(Draft(state.period.end + FREEZE, state.period))
        period = periods.period_after(state.period)
        self._state = SubscriptionState([*state.segments, begun], period, None)
        if state.last.is_trial:
            self._invoice_fees(changes.compute_fees([begun], ()))

    def _do(self, step: Step, now: float) -> None:
        is_yearly = {"month": False, "year": True, "": None}[step.interval]
        plan = self._plans.get(step.plan)
        if step.kind in ("use", "late"):
            at = now if step.kind == "use" else max(self._get_time(step), self._begun + 60)
            self._used[int(at) // 60 * 60] += step.calls
        elif step.kind in ("change", "return", "end"):
            try:
                self._change(step, plan, now, is_yearly=is_yearly)
            except PlanChangeError:
                pass
        elif self._invoices:
            self._settle(step)

    def _change(self, step: Step, plan: Plan | None, now: float, *, is_yearly: bool | None) -> None:
        state, quantity = self._state, step.quantity
        if step.kind == "end" and self._is_over:
            return
        if step.kind == "end":
            at = min(periods.compute_boundary(now, state.last.span.start), state.period.end)
            self._state = state._replace(segments=changes.end_segments(state.segments, at), cancel_at=at)
            self._is_over = True
            if not state.last.is_trial:
                self._drafts.append(Draft(min(state.period.end, at) + FREEZE, state.period))
            return
        assert plan is not None
        if step.kind == "change" and not self._is_over:
            change = changes.change_plan(
                state, step.plan, plan, None, now, self._list_lines(), is_yearly=is_yearly, quantity=quantity
            )
            self._apply(change)
        elif step.kind == "return" and self._is_over and state.period.end > now and not state.last.is_trial:
            change = changes.resume_plan(
                state, step.plan, plan, now, self._list_lines(), is_yearly=bool(is_yearly), quantity=quantity or 1
            )
            self._is_over = False
            self._apply(change)

    def _apply(self, change: PlanChange) -> None:
        state, begun = self._state, change.begun
        if begun is None:
            self._state = state._replace(
                next_version=change.next_version,
                next_is_yearly=change.next_is_yearly,
                next_quantity=change.next_quantity,
                cancel_at=None,
            )
            return
        before = state.segments
        if state.last.span.end > change.at:
            before = changes.end_segments(before, change.at)
        self._state = SubscriptionState([*before, begun], state.period, None)
        if change.lines:
            self._invoice_fees(change.lines)

    def _list_lines(self) -> list[RatedLine]:
        """Return the lines of all invoices, with the parts that do not stand."""
        lines: list[RatedLine] = []
        for invoice in self._invoices:
            share = compute_share_taken_off(invoice.state, invoice.total, invoice.twin.amount_off)
            lines += take_off(invoice.lines, share, get_payable_unit(self._life.currency))
        return lines

    def _invoice_fees(self, fees: Sequence[RatedLine]) -> None:
        lines = [*fees, *rate_discounts(fees, self._list_lines(), self._state.segments, self._discounts)]
        self._write(lines, self._account.write(list_parts(self._state.segments)))

    def _close(self, draft: Draft) -> None:
        """Write the invoice of a period, as `compute_period_lines` does."""
        segments = [segment for segment in self._state.segments if segment.span.start <= draft.period.end]
        ended = [segment for segment in segments if segment.span.end <= min(draft.period.end, draft.closes_at)]
        lines = self._rate(segments, ended)
        discounts = rate_discounts(lines, self._list_lines(), self._state.segments, self._discounts)
        parts = [part for part in list_parts(self._state.segments) if part.start <= draft.period.end]
        over = [part for part in parts if part.end <= min(draft.period.end, draft.closes_at)]
        self._write([*lines, *discounts], self._account.write(parts, over, self._count_parts(over)))

    def _look_at_threshold(self, now: float) -> None:
        """Write the invoice of the threshold if it is reached, as `threshold_invoices.py` does."""
        state, last = self._state, self._state.last
        if self._is_over or last.is_trial or state.period.end <= now:
            return
        running = [segment for segment in state.segments if segment.period == state.period]
        parts = list_parts(state.segments)
        of_period = [part for part in parts if part.period_start == state.period.start]
        twin = self._account.write_usage(parts, of_period, self._count_parts(of_period))
        starts = {segment.span.start for segment in running}
        lines = [one for one in self._rate(state.segments, running) if one.meter and one.segment.start in starts]
        is_reached = last.plan.threshold is not None and sum_amounts(lines) >= last.plan.threshold
        if is_reached != (twin is not None):
            raise DifferenceError(f"the threshold: {lines} and not {twin and twin.lines}")
        if twin is not None:
            discounts = rate_discounts(lines, self._list_lines(), state.segments, self._discounts)
            self._write([*lines, *discounts], twin)

    def _rate(self, segments: Sequence[Segment], ended: Sequence[Segment]) -> list[RatedLine]:
        """Return the lines that follow earlier invoices, without discounts, as `invoice_lines.py` computes them."""
        all_lines = self._list_lines()
        quantities = {
            UsageKey(segment.span, "calls"): self._count(segment.span) for segment in ended if not segment.is_trial
        }
        known = {key.segment for key in quantities}
        incomplete = {segment.period for segment in segments if segment.span not in known}
        settled = frozenset(segment.span for segment in segments if segment.period not in incomplete)
        starts = {segment.span.start for segment in segments}
        before = [
            line
            for line in all_lines
            if line.kind != DISCOUNT
            and line.segment.start
            in (
                {span.start for span in known}
                if line.meter
                else {span.start for span in settled}
                if line.kind == "minimum"
                else starts
            )
        ]
        return rate_segments(segments, quantities, before, settled=settled)

    def _count_parts(self, parts: Sequence[PlanPart]) -> dict[int, dict[str, dict[str, int]]]:
        return {part.start: {"calls": {"": self._count(Span(part.start, part.end))}} for part in parts}

    def _count(self, span: Span) -> int:
        return sum(calls for minute, calls in self._used.items() if span.start <= minute < span.end)

    def _write(self, lines: Sequence[RatedLine], twin: WrittenInvoice) -> None:
        invoice = Invoice(lines, twin)
        self._invoices.append(invoice)
        if invoice.total != twin.total:
            raise DifferenceError(f"{invoice.total} and not {twin.total}: {lines} and not {twin.lines}")

    def _settle(self, step: Step) -> None:
        """Pay or reduce an invoice."""
        invoice = self._invoices[int(step.invoice * len(self._invoices))]
        twin, left = invoice.twin, invoice.total - invoice.twin.amount_off
        if invoice.total <= 0:
            return
        if step.kind == "pay" and invoice.state in ("open", "uncollectible"):
            invoice.state, twin.is_off = "paid", False
        elif step.kind in ("void", "uncollectible") and invoice.state in ("open", "uncollectible"):
            invoice.state, twin.is_off = step.kind, True
        elif step.kind in ("credit", "lose") and invoice.state in ("open", "paid") and left:
            twin.amount_off += round_amount(step.part * left, self._life.currency)
        elif step.kind in ("uncredit", "win") and invoice.state in ("open", "paid"):
            twin.amount_off = 0


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=LONG)])
def test_random_subscription_lives_cost_the_same_by_the_second_rater(seed: int, count: int) -> None:
    for number in range(count):
        life = draw_life(random.Random(seed + number))
        try:
            PureLife(life).play()
        except DifferenceError as error:
            smallest, why = shrink(life, str(error))
            raise AssertionError(f"seed {seed + number}: {why}\nthe smallest life: {smallest!r}") from None
    print(f"{count} lives from seed {seed}")


@pytest.mark.parametrize("life", [*KEPT.values(), *NEIGHBOURS.values()])
def test_recorded_subscription_life_costs_the_same_by_the_second_rater(life: Life) -> None:
    PureLife(life).play()


def shrink(life: Life, why: str) -> tuple[Life, str]:
    """Return the smallest life that still fails, by leaving out steps, and how it fails."""
    while True:
        for at in range(len(life.steps)):
            smaller = life._replace(steps=life.steps[:at] + life.steps[at + 1 :])
            try:
                PureLife(smaller).play()
            except DifferenceError as error:
                life, why = smaller, str(error)
                break
        else:
            return life, why
