"""The split of an invoice into lines that Stripe creates from its meters, and items that we add. Pure."""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import RatedLine


def split_lines(
    lines: Sequence[RatedLine], counted: Mapping[tuple[int, str], int]
) -> tuple[list[RatedLine], list[RatedLine]]:
    """Divide the lines of an invoice into lines created by Stripe's meters and items.

    `counted` is the quantity that Stripe has counted, by the segment's first second and meter. Units fill the tiers in
    order. If Stripe has counted less or more than was used, an item has the difference. A negative total is charged as
    zero.
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
        # Units that Stripe counted beyond the last tier reached are assumed to be in that tier.
        quantity = remaining[key] if is_last else min(remaining[key], line.quantity)
        remaining[key] -= quantity
        counted_line = line._replace(quantity=quantity, amount=compute_amount(quantity, line.unit_price or 0))
        if quantity:
            metered.append(counted_line)
        if counted_line.amount != line.amount:
            items.append(line._replace(quantity=line.quantity - quantity, amount=line.amount - counted_line.amount))
    return metered, items
