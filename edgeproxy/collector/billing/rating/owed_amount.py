"""The amount that is due for one price after a part of the charged amount was taken off. Pure.

The smallest units of money, such as cents, have numbers: usage that costs $1.00 reaches the cents 1 to 100. A line
charges the reached cents that no earlier line has charged. A void invoice or a credit note takes off the last cents of
a line. A cent that was taken off is never owed again, even if the usage is rated again. No later invoice charges it or
gives it back.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class CentRange(NamedTuple):
    """The cents after `after`, up to and including `last`."""

    after: int
    last: int


def compute_due(amount: int, lines: Sequence[tuple[int, int]]) -> int:
    """Return the amount to charge if all usage so far costs `amount`. A negative result is an amount to give back.

    `lines` has two numbers for each line of this price: its amount, and the part of the amount that was taken off. The
    order is the order of creation.
    """
    if not any(taken_off for _, taken_off in lines):
        return amount - sum(charged for charged, _ in lines)
    if amount < 0 or (amount == 0 and next(charged for charged, _ in lines if charged) < 0):
        return -_compute_due(-amount, [(-charged, -taken_off) for charged, taken_off in lines], is_given=True)
    return _compute_due(amount, lines, is_given=False)


def _compute_due(amount: int, lines: Sequence[tuple[int, int]], *, is_given: bool) -> int:
    """Return the amount to charge; if it is an amount `is_given` to the customer, the amount to give.

    A line below zero corrects earlier lines. If it was taken off, the corrected cents are owed again. But cents that a
    customer keeps after a credited correction are dead: they are neither charged nor given again.
    """
    owed, reached = 0, 0
    taken: list[CentRange] = []
    for charged, taken_off in lines:
        owed += charged
        before, reached = reached, _find_reached(owed, taken)
        if charged < 0 and not is_given:
            owed -= taken_off
            continue
        off = _cut_last(CentRange(min(before, reached), max(before, reached)), taken, abs(taken_off))
        number = sum(last - after for after, last in off)
        owed += -taken_off - number if charged < 0 else -number
        taken = sorted([*taken, *off])
    return _count_owed(amount, taken) - owed


def _count_owed(reached: int, taken: Iterable[CentRange]) -> int:
    """Return the number of owed cents among the first `reached` cents."""
    return reached - sum(max(0, min(last, reached) - after) for after, last in taken)


def _find_reached(owed: int, taken: Iterable[CentRange]) -> int:
    """Return the number of the last reached cent if `owed` cents are owed."""
    reached = max(0, owed)
    for after, last in taken:
        if after < reached:
            reached += last - after
    return reached


def _cut_last(charged: CentRange, taken: Sequence[CentRange], number: int) -> list[CentRange]:
    """Return the last cents of a range, at most `number`. Cents that were taken off before do not count."""
    off: list[CentRange] = []
    end = charged.last
    for after, last in (*reversed(taken), CentRange(0, 0)):
        begin = max(charged.after, last, end - number)
        if begin < end:
            off.append(CentRange(begin, end))
            number -= end - begin
        end = min(end, after)
    return off
