"""Money in whole numbers, with one rounding. Pure.

An amount is a whole number of cents. A unit price is a whole number of 10⁻¹² cents, so that a price of a thousandth of
a cent a unit is exact.
"""

from edgeproxy.config.catalog import PRICE_SCALE


def amount(quantity: int, price: int) -> int:
    """What so many units cost at a price a unit: whole cents, half a cent rounded away from zero."""
    return rounded(quantity * price, PRICE_SCALE)


def share(fee: int, part: int, whole: int) -> int:
    """The part of a fee for `part` of `whole` seconds, rounded as `amount` does."""
    return rounded(fee * part, whole)


def rounded(numerator: int, denominator: int) -> int:
    """The quotient as a whole number, a half rounded away from zero; `denominator` is above zero."""
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def millicredits(quantity: int, price: int) -> int:
    """What so many units come to at a price a unit in 10⁻¹² cents: whole millicredits, 10,000 of which are a cent."""
    return rounded(quantity * price, PRICE_SCALE // 10_000)


def usd(cents: int) -> str:
    """An amount as people write it."""
    return f"{'-' * (cents < 0)}${abs(cents) // 100:,}.{abs(cents) % 100:02}"
