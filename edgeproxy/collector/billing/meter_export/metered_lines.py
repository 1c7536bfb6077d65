"""Which lines of an invoice Stripe makes of what it has counted, and which are made for it. Pure."""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.billing.rating.money import amount
from edgeproxy.collector.billing.rating.rater import Line


def split(lines: Sequence[Line], counted: Mapping[tuple[int, str], int]) -> tuple[list[Line], list[Line]]:
    """Divide the lines of an invoice into those that Stripe makes by its meters, and those that are items of it.

    `counted` is what Stripe has counted of each segment, by its first second, and meter. Units fill the tiers in their
    order; where Stripe has counted less than was used, or more, an item has the difference. A total below zero is
    charged as none.
    """
    metered: list[Line] = []
    items: list[Line] = []
    left = {place: max(0, quantity) for place, quantity in counted.items()}
    for place, line in enumerate(lines):
        key = (line.segment.start, line.meter)
        if line.kind != "usage" or key not in left:
            items.append(line)
            continue
        is_last = not any(
            (other.kind, other.segment.start, other.meter) == ("usage", *key) for other in lines[place + 1 :]
        )
        # What Stripe counted beyond the last tier that was reached is in that tier, as far as we can tell.
        quantity = left[key] if is_last else min(left[key], line.quantity)
        left[key] -= quantity
        theirs = line._replace(quantity=quantity, amount=amount(quantity, line.unit_price or 0))
        if quantity:
            metered.append(theirs)
        if theirs.amount != line.amount:
            items.append(line._replace(quantity=line.quantity - quantity, amount=line.amount - theirs.amount))
    return metered, items
