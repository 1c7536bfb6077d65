"""The split of an invoice into lines that Stripe makes by its meters, and items that we add. Pure."""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import RatedLine


def split_lines(
    lines: Sequence[RatedLine], counted: Mapping[tuple[int, str], int]
) -> tuple[list[RatedLine], list[RatedLine]]:
    """Divide the lines of an invoice into those that Stripe makes by its meters, and those that are items of it.

    `counted` is what Stripe has counted of each segment, by its first second, and meter. Units fill the tiers in their
    order; where Stripe has counted less than was used, or more, an item has the difference. A total below zero is
    charged as none.
    """
    metered: list[RatedLine] = []
    items: list[RatedLine] = []
    remaining = {position: max(0, quantity) for position, quantity in counted.items()}
    for position, line in enumerate(lines):
        key = (line.segment.start, line.meter)
        if line.kind != "usage" or key not in remaining:
            items.append(line)
            continue
        is_last = not any(
            (other.kind, other.segment.start, other.meter) == ("usage", *key) for other in lines[position + 1 :]
        )
        # What Stripe counted beyond the last tier that was reached is in that tier, as far as we can tell.
        quantity = remaining[key] if is_last else min(remaining[key], line.quantity)
        remaining[key] -= quantity
        counted_line = line._replace(quantity=quantity, amount=compute_amount(quantity, line.unit_price or 0))
        if quantity:
            metered.append(counted_line)
        if counted_line.amount != line.amount:
            items.append(line._replace(quantity=line.quantity - quantity, amount=line.amount - counted_line.amount))
    return metered, items
