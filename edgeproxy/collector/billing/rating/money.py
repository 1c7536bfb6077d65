"""Money in whole numbers, with a single rounding. Pure.

An amount is a whole number of the smallest unit of its currency, for example cents. A unit price is a whole number of
10⁻¹² smallest units, so that a price of a thousandth of a cent per unit is exact. Amounts to pay are multiples of the
currency's payable unit (config/collector/currency_units.py), for example 10 fils.
"""

from decimal import Decimal

from edgeproxy.config.collector.currency_units import DECIMALS, USD, get_payable_unit, get_symbol_gap, to_decimal
from edgeproxy.config.collector.money import PRICE_SCALE


def compute_amount(quantity: int, price: int, currency: str = USD) -> int:
    """Return the price of `quantity` units as a payable amount in a currency, with a half rounded away from zero."""
    return divide_rounded(quantity * price, PRICE_SCALE, get_payable_unit(currency))


def compute_share(fee: int, part: int, whole: int, currency: str = USD) -> int:
    """Return the share of a fee for `part` of `whole` seconds, rounded as `compute_amount` does."""
    return divide_rounded(fee * part, whole, get_payable_unit(currency))


def divide_rounded(numerator: int, denominator: int, step: int = 1) -> int:
    """Return the quotient as a multiple of `step`, with a half rounded away from zero.

    `denominator` must be positive.
    """
    denominator *= step
    magnitude = step * ((2 * abs(numerator) + denominator) // (2 * denominator))
    return magnitude if numerator >= 0 else -magnitude


def compute_millicredits(quantity: int, price: int) -> int:
    """Return the price of `quantity` units in whole millicredits, 10,000 per cent. `price` is in 10⁻¹² cents."""
    return divide_rounded(quantity * price, PRICE_SCALE // 10_000)


def format_amount(amount: int, currency: str) -> str:
    """Format an amount of smallest units for commands and letters: `$1,234.50`, `¥1,200`, `KWD 1.250`."""
    return format_places(to_decimal(amount, currency), currency, DECIMALS[currency])


def format_places(amount: Decimal, currency: str, places: int) -> str:
    """Format an amount of whole units in English with this number of decimal places."""
    from babel.numbers import format_currency, get_currency_symbol  # Few commands need their data, which is long.

    symbol, code = get_currency_symbol(currency.upper(), "en_US"), currency.upper()
    pattern = f"¤{get_symbol_gap(symbol)}#,##0.{'0' * places}".removesuffix(".")
    return format_currency(amount, code, pattern, locale="en_US", currency_digits=False)
