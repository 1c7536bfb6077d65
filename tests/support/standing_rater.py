"""An independent computation of reduced invoices: void ones, credit notes, lost disputes and others.

It follows only *Standing lines* and *Coupons* of docs/billing/billing.md, and shares no code with the product. It
keeps each cent of a charge in a set, by its number: usage that costs $1.00 reaches the cents 1 to 100.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from tests.support.second_rater import (
    PAID_IN,
    PlanPart,
    discount,
    discounted_periods,
    nearest,
    rest_of_fee,
    smallest,
    usage_items,
)


class Charge(NamedTuple):
    """A line of an invoice."""

    item: tuple[object, ...]
    """The charged item: a fee, an unused fee, usage of one price, or a discount."""
    amount: int
    period: int
    """The start of the period whose coupon applies."""


class WrittenInvoice:
    """An expected invoice and its reductions."""

    def __init__(self, lines: Sequence[Charge], unit: int = 1) -> None:
        """All amounts are multiples of `unit`."""
        self.lines = lines
        self._unit = unit
        self.is_off = False
        """The invoice is void or uncollectible."""
        self.amount_off = 0
        """The sum of its credit notes and lost disputes."""

    @property
    def total(self) -> int:
        """The sum of its lines."""
        return sum(line.amount for line in self.lines)

    @property
    def share_off(self) -> Fraction:
        """Return the share of each line that does not stand."""
        if self.is_off:
            return Fraction(1)
        return Fraction(self.amount_off, self.total) if self.total > 0 else Fraction(0)

    def amounts_off(self) -> list[int]:
        """Return the part of each line that does not stand. Running sums, from the first line on, are rounded."""
        sums, whole = [0], 0
        for line in self.lines:
            whole += line.amount
            sums.append(self._unit * round(whole * self.share_off / self._unit))
        return [after - before for before, after in pairwise(sums)]


class Account:
    """The expected invoices of a subscription, in the order in which their lines were written."""

    def __init__(self, plans: Mapping[str, Any], currency: str, coupon: Mapping[str, Any] | None) -> None:
        self._plans, self._currency, self._coupon = plans, currency, coupon
        self.invoices: list[WrittenInvoice] = []

    def write(
        self,
        parts: Sequence[PlanPart],
        ended: Sequence[PlanPart] = (),
        usage: Mapping[int, Mapping[str, Mapping[str, int]]] | None = None,
    ) -> WrittenInvoice:
        """Return the next invoice: all fees of `parts`, and the `usage` by now of the parts that have `ended`."""
        parts = [part for part in parts if not part.is_trial]
        now = [*self._fees(parts)]
        for period in sorted({part.period_start for part in parts}):
            # `usage_items` needs the earlier parts of a plan too, because a later part continues their prices.
            own = [part for part in parts if part.period_start == period and part in ended]
            items = usage_items(self._plans, own, usage or {}, self._currency)
            now += [Charge(item, amount, period) for item, amount in items]
        settled = [
            part for part in parts if all(one in ended for one in parts if one.period_start == part.period_start)
        ]
        now += self._minimums(settled, now)
        rated = {"usage": {part.start for part in ended}, "minimum": {part.start for part in settled}}
        return self._write(parts, self._due_lines(now, rated))

    def write_usage(
        self,
        parts: Sequence[PlanPart],
        running: Sequence[PlanPart],
        usage: Mapping[int, Mapping[str, Mapping[str, int]]],
    ) -> WrittenInvoice | None:
        """Return the invoice for the usage so far of the `running` parts, or None if it is below the threshold.

        The last of these parts is in force, and its plan has the threshold.
        """
        plan = self._plans[parts[-1].version]
        if "threshold" not in plan or parts[-1].is_trial:
            return None
        own = [part for part in running if not part.is_trial]
        items = usage_items(self._plans, own, usage, self._currency)
        charges = [Charge(item, amount, parts[-1].period_start) for item, amount in items]
        lines = self._due_lines(charges, {"usage": {part.start for part in own}})
        if sum(line.amount for line in lines) < nearest(smallest(plan["threshold"], self._currency), self._currency):
            return None
        return self._write([part for part in parts if not part.is_trial], lines)

    def _due_lines(self, now: Sequence[Charge], rated: Mapping[str, set[int]]) -> list[Charge]:
        """Return the charges due if these items cost this much by now.

        `rated` holds, by kind of item, the parts whose items are all among them.
        """
        before = self._known_items()
        current = {charge.item for charge in now}
        # The other items were corrected to zero.
        nothing = [
            Charge(item, 0, period)
            for item, (_, period) in before.items()
            if item[2:] and item[2] in rated.get(str(item[0]), ()) and item not in current
        ]
        lines = []
        for charge in (*now, *nothing):
            known = before.get(charge.item)
            if due := _due(charge.amount, [] if known is None else known[0]):
                lines.append(charge._replace(amount=due))
        return lines

    def _write(self, parts: Sequence[PlanPart], lines: Sequence[Charge]) -> WrittenInvoice:
        invoice = WrittenInvoice([*lines, *self._discounts(parts, lines)], PAID_IN.get(self._currency, 1))
        self.invoices.append(invoice)
        return invoice

    def _minimums(self, settled: Sequence[PlanPart], charges: Sequence[Charge]) -> Iterator[Charge]:
        """Yield each period's shortfall from the minimum fees of its parts. Minimum fees are prorated like fees."""
        for period in sorted({part.period_start for part in settled}):
            parts = [part for part in settled if part.period_start == period and not part.is_resting]
            parts = [part for part in parts if "minimum" in self._plans[part.version]]
            starts = {part.start for part in parts}
            missing = -sum(
                charge.amount for charge in charges if charge.item[0] == "usage" and charge.item[2] in starts
            )
            for part in parts:
                least = smallest(self._plans[part.version]["minimum"], self._currency)
                share = Fraction(part.end - part.start, part.period_end - part.period_start)
                missing += nearest(least * share, self._currency)
                fee = rest_of_fee(self._plans, part, part._replace(start=part.paid_start), self._currency)
                share = Fraction(part.end - part.start, part.paid_end - part.paid_start)
                missing -= nearest(fee * share, self._currency)
            if missing > 0:
                yield Charge(("minimum", parts[-1].version, parts[-1].start), missing, period)

    def _known_items(self) -> dict[tuple[object, ...], tuple[list[tuple[int, int]], int]]:
        """Return, by item, the (amount, part off) of all lines until now, and the period."""
        items: dict[tuple[object, ...], tuple[list[tuple[int, int]], int]] = {}
        for invoice in self.invoices:
            for line, off in zip(invoice.lines, invoice.amounts_off(), strict=True):
                items.setdefault(line.item, ([], line.period))[0].append((line.amount, off))
        return items

    def _fees(self, parts: Sequence[PlanPart]) -> Iterator[Charge]:
        """Yield the fees of all parts. A change returns the unused time of the standing part of the earlier fee."""
        items = self._known_items()
        last: PlanPart | None = None
        fee = Charge((), 0, 0)
        for part in parts:
            terms = (part.version, part.paid_start, part.paid_end, part.is_resting, part.quantity)
            if last is None or terms != (
                *(last.version, last.paid_start, last.paid_end, last.is_resting, last.quantity),
            ):
                whole = rest_of_fee(self._plans, part, part, self._currency)
                if last is not None and last.paid_end > part.start:
                    unused = rest_of_fee(self._plans, last, part, self._currency)
                    charged = items.get(fee.item, ([], 0))[0]
                    off, sum_charged = sum(off for _, off in charged), sum(amount for amount, _ in charged)
                    if off:
                        unused = nearest(Fraction(unused * (sum_charged - off), sum_charged), self._currency)
                    if last.end < part.start:  # The end gave nothing back.
                        unused = min(unused, whole)
                    yield Charge(("unused", part.start), -unused, fee.period)
                fee = Charge(("fee", part.start), whole, part.period_start)
                yield fee
            last = part

    def _discounts(self, parts: Sequence[PlanPart], lines: Sequence[Charge]) -> Iterator[Charge]:
        """Yield the coupon's discount for each of its periods, less the discounts given before."""
        if self._coupon is None:
            return
        periods = sorted({part.period_start for part in parts})[: discounted_periods(self._coupon)]
        stand = [line for invoice in self.invoices if invoice.share_off < 1 for line in invoice.lines]
        for period in periods:
            of_period = [line for line in (*stand, *lines) if line.period == period]
            cost = sum(line.amount for line in of_period if line.item[0] != "discount")
            before = sum(line.amount for line in of_period if line.item[0] == "discount")
            if due := -discount(self._coupon, cost, self._currency) - before:
                yield Charge(("discount", period), due, period)


def _due(amount: int, lines: Sequence[tuple[int, int]]) -> int:
    """Return the charge due if an item costs this much by now, after lines of (amount, part off).

    Cents that were taken off are neither charged nor returned again.
    """
    if not any(off for _, off in lines):
        return amount - sum(charged for charged, _ in lines)
    first = next(charged for charged, _ in lines if charged)
    if amount < 0 or (amount == 0 and first < 0):
        return -_due_of_cents(-amount, [(-charged, -off) for charged, off in lines], is_given=True)
    return _due_of_cents(amount, lines, is_given=False)


def _due_of_cents(amount: int, lines: Sequence[tuple[int, int]], *, is_given: bool) -> int:
    """Return the cents that are due. If `is_given`, a customer keeps a returned amount after the charge that corrected
    it is credited.
    """
    owed: set[int] = set()
    dead: set[int] = set()
    too_much = 0
    """Cents that were returned although the customer no longer owed them, because they were taken off."""
    for charged, off in lines:
        if charged < 0:
            back = sorted(owed)[charged:]
            too_much += -charged - len(back)
            if is_given:
                kept = back[max(0, len(back) + off) :] if off else []
                dead |= set(kept)
                owed -= set(back)
                too_much -= -off - len(kept)
                continue
            restored = min(-off, too_much)  # If a line that returned money is taken off, that part is owed again.
            too_much -= restored
            owed -= set(back[-off - restored :])
            continue
        returned = min(charged, too_much)
        too_much -= returned
        new, cent = list[int](), 0
        while len(new) < charged - returned:
            cent += 1
            if cent not in owed and cent not in dead:
                new.append(cent)
        gone = set(new[max(0, len(new) - off) :])
        dead |= gone
        owed |= set(new) - gone
    return len(set(range(1, amount + 1)) - dead) - len(owed) + too_much
