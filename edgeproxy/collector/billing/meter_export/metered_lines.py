"""The split of an invoice into lines that Stripe creates from its meters, and items that we add. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgeproxy.collector.billing.meter_export.meter_keys import build_key
from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import RatedLine


def split_lines(
    lines: Sequence[RatedLine],
    counted: Mapping[tuple[int, str], int],
    unit_prices: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> tuple[list[RatedLine], list[RatedLine]]:
    """Divide the lines of an invoice into lines created by Stripe's meters and items.

    `counted` is the quantity that Stripe has counted, by the segment's first second and meter key. Units fill the tiers
    in order. If Stripe has counted less or more than was used, an item has the difference. A negative total is charged
    as zero.

    `unit_prices` are the prices, by version and key, that Stripe charges from the first unit on although the plan
    includes units. An item takes these units off.
    """
    metered: list[RatedLine] = []
    items: list[RatedLine] = []
    remaining = {position: max(0, quantity) for position, quantity in counted.items()}
    for position, line in enumerate(lines):
        key = _identify_counted(line)
        if line.kind != "usage" or key not in remaining:
            items.append(line)
            continue
        is_last = not any(other.kind == "usage" and _identify_counted(other) == key for other in lines[position + 1 :])
        unit_price = unit_prices.get((line.version, key[1]))
        if unit_price is not None:
            if is_last:
                own = [line for line in lines if line.kind == "usage" and _identify_counted(line) == key]
                _split_value(own, remaining[key], unit_price, metered, items)
            continue
        # Units that Stripe counted beyond the last tier reached are assumed to be in that tier.
        quantity = remaining[key] if is_last else min(remaining[key], line.quantity)
        remaining[key] -= quantity
        counted_line = line._replace(quantity=quantity, amount=compute_amount(quantity, line.unit_price or 0))
        if quantity:
            metered.append(counted_line)
        if counted_line.amount != line.amount:
            items.append(line._replace(quantity=line.quantity - quantity, amount=line.amount - counted_line.amount))
    return metered, items


def _split_value(
    lines: Sequence[RatedLine], quantity: int, unit_price: int, metered: list[RatedLine], items: list[RatedLine]
) -> None:
    """Divide the lines of one value. Stripe has counted and charged `quantity` of its units, from the first unit on."""
    amount = compute_amount(quantity, unit_price)
    if quantity:
        metered.append(lines[-1]._replace(quantity=quantity, unit_price=unit_price, amount=amount))
    if difference := sum(line.amount for line in lines) - amount:
        charged = sum(line.quantity for line in lines if line.unit_price)
        items.append(lines[-1]._replace(quantity=charged - quantity, unit_price=unit_price, amount=difference))


def _identify_counted(line: RatedLine) -> tuple[int, str]:
    """Return the segment and the meter key that count the units of a line."""
    return line.segment.start, build_key(line.meter, line.value)
