"""Money in whole numbers, with one rounding. Pure.

An amount is a whole number of cents. A unit price is a whole number of 10⁻¹² cents, so that a price of a thousandth of
a cent a unit is exact.
"""

from edgeproxy.config.collector.catalog import PRICE_SCALE


def compute_amount(quantity: int, price: int) -> int:
    """Return the price of so many units in whole cents, half a cent rounded away from zero."""
    return divide_rounded(quantity * price, PRICE_SCALE)


def compute_share(fee: int, part: int, whole: int) -> int:
    """Return the share of a fee for `part` of `whole` seconds, rounded as `compute_amount` does."""
    return divide_rounded(fee * part, whole)


def divide_rounded(numerator: int, denominator: int) -> int:
    """Return the quotient as a whole number, a half rounded away from zero; `denominator` is above zero."""
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def compute_millicredits(quantity: int, price: int) -> int:
    """Return the price of so many units in whole millicredits, of which a cent has 10,000; the unit price is in 10⁻¹²
    cents."""
    return divide_rounded(quantity * price, PRICE_SCALE // 10_000)


def format_usd(cents: int) -> str:
    """Format cents in US dollars: `$1,234.50`."""
    return f"{'-' * (cents < 0)}${abs(cents) // 100:,}.{abs(cents) % 100:02}"
