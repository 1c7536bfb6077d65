"""The amount that is due of one price after a part of the charged amount was taken off. Pure.

The smallest units of money, such as cents, have numbers: usage that costs $1.00 reaches cents 1 to 100. A line charges
the reached cents that no earlier line has charged. A void invoice or a credit note takes off the last cents of a line.
Such a cent is owed no more, however often the usage is rated again: no invoice charges it again or gives it back.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class CentRange(NamedTuple):
    """The cents after `after`, up to and with `last`."""

    after: int
    last: int


def compute_due(amount: int, lines: Sequence[tuple[int, int]]) -> int:
    """Return the amount to charge, or to give back below 0, where everything costs `amount` by now.

    `lines` has the amount of each line of this price and the part of it that was taken off, in the order in which the
    lines were written. `amount` and the sum of the lines have the same sign.
    """
    if not any(taken_off for _, taken_off in lines):
        return amount - sum(charged for charged, _ in lines)
    if amount < 0 or sum(charged for charged, _ in lines) < 0:
        return -compute_due(-amount, [(-charged, -taken_off) for charged, taken_off in lines])
    owed, reached = 0, 0
    taken: list[CentRange] = []
    for charged, taken_off in lines:
        owed += charged
        before, reached = reached, _find_reached(owed, taken)
        if charged < 0:
            owed -= taken_off  # The amount that this line gave back is owed again.
            continue
        off = _cut_last(CentRange(before, reached), taken, taken_off)
        owed -= sum(last - after for after, last in off)
        taken = sorted([*taken, *off])
    return _count_owed(amount, taken) - owed


def _count_owed(reached: int, taken: Iterable[CentRange]) -> int:
    """Return how many of the first cents are owed."""
    return reached - sum(max(0, min(last, reached) - after) for after, last in taken)


def _find_reached(owed: int, taken: Iterable[CentRange]) -> int:
    """Return the number of the last cent that is reached where so many are owed."""
    reached = max(0, owed)
    for after, last in taken:
        if after < reached:
            reached += last - after
    return reached


def _cut_last(charged: CentRange, taken: Sequence[CentRange], number: int) -> list[CentRange]:
    """Return the last cents of a range, at most `number`, without cents that were taken off before."""
    off: list[CentRange] = []
    end = charged.last
    for after, last in (*reversed(taken), CentRange(0, 0)):
        begin = max(charged.after, last, end - number)
        if begin < end:
            off.append(CentRange(begin, end))
            number -= end - begin
        end = min(end, after)
    return off
