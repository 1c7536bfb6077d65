"""Currencies of prices: their smallest units, and the amounts that can be paid in them."""

from decimal import Decimal
from functools import cache
from typing import Annotated, Final

from pydantic import BeforeValidator

from edgeproxy.config.forms import build_words, written
from edgeproxy.config.units import format_value, read_text, value_error

DECIMALS: Final = dict.fromkeys(("clp", "jpy", "krw", "vnd"), 0) | dict.fromkeys(
    (
        *("aed", "aud", "bgn", "brl", "cad", "chf", "cny", "czk", "dkk", "eur", "gbp", "hkd", "huf", "ils", "inr"),
        *("mxn", "myr", "nok", "nzd", "php", "pln", "ron", "sar", "sek", "sgd", "thb", "try", "twd", "usd", "zar"),
    ),
    2,
)
DECIMALS.update(dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 3))
"""Decimal places of each currency (ISO 4217, in lower case as at Stripe)."""
USD = "usd"
PAYABLE_DECIMALS = 2
"""Decimal places of payments.

Stripe accepts amounts with three places only if the last is 0 (docs.stripe.com/currencies, three-decimal currencies).
"""
AMOUNT_MAX: Final = Decimal(10) ** 13
"""The maximum readable amount, in whole units of a currency. No real amount is larger, and it is quick to convert."""
LEAST_CHARGES: Final = dict.fromkeys(
    ("aud", "brl", "cad", "chf", "eur", "inr", "jpy", "nzd", "sgd", "usd"), 50
) | dict.fromkeys(("aed", "myr", "pln", "ron"), 200)
LEAST_CHARGES.update(bgn=100, czk=1500, dkk=250, gbp=30, hkd=400, huf=17500, mxn=1000, nok=300, sek=300, thb=1000)
"""The minimum amount that Stripe charges in each currency, in smallest units.

Other currencies have no own minimum (docs.stripe.com/currencies, minimum and maximum charge amounts).
"""
CHARGE_MAX = 99_999_999
"""The maximum amount that Stripe charges at once, in smallest units: eight digits."""
PRICED_UNITS = (1, 1000, 1_000_000)
"""The numbers of units that prices are written for."""
MILLICREDITS = 10_000
"""Millicredits in the smallest unit of any currency. Prepaid credits are counted in them."""
A_CURRENCY = "the code of a currency in lower case, such as usd, eur or jpy (ISO 4217)"


@written(build_words(*sorted(DECIMALS), title="currency code"))
def read_currency(value: object) -> str:
    """Read the code of a currency that prices can have."""
    code = read_text(value, A_CURRENCY)
    if code not in DECIMALS:
        raise value_error(f"{format_value(code)} is no currency in which prices can be", A_CURRENCY)
    return code


Currency = Annotated[str, BeforeValidator(read_currency)]


def choose_price_units(price: Decimal) -> int:
    """Return the number of units that a unit price is written for: the first that costs a smallest unit or more.

    `price` is in smallest units. Customers cannot compare prices such as $0.00001.
    """
    return next((units for units in PRICED_UNITS if not price or price * units >= 1), PRICED_UNITS[-1])


def get_unit_count(currency: str) -> int:
    """Return the number of smallest units in one unit of a currency: 100 cents, 1 yen, 1,000 fils."""
    return int(10 ** DECIMALS[currency])


@cache  # An invoice has hundreds of amounts.
def get_payable_unit(currency: str) -> int:
    """Return the payment step in smallest units, as all payments are multiples of it: 1 cent, 1 yen, 10 fils."""
    return int(10 ** max(0, DECIMALS[currency] - PAYABLE_DECIMALS))


def get_least_charge(currency: str) -> int:
    """Return the minimum amount that can be charged in a currency, in smallest units."""
    return LEAST_CHARGES.get(currency, get_payable_unit(currency))


def to_decimal(amount: int, currency: str) -> Decimal:
    """Return an amount of smallest units in whole units of the currency, with all decimal places: 1234.50."""
    return Decimal(amount).scaleb(-DECIMALS[currency])


def format_with_code(amount: int, currency: str) -> str:
    """Format an amount of smallest units with the code of its currency: `0.49 USD`."""
    return f"{to_decimal(amount, currency)} {currency.upper()}"


def format_millicredits(amount: int, currency: str = USD) -> str:
    """Format millicredits exactly in their currency: `0.001234`, with at least the currency's decimal places."""
    least = DECIMALS[currency]
    whole, fraction = divmod(abs(amount), MILLICREDITS * get_unit_count(currency))
    decimals = f"{fraction:0{least + len(str(MILLICREDITS)) - 1}}"
    decimals = decimals[:least] + decimals[least:].rstrip("0")
    return f"{'-' * (amount < 0)}{whole}{'.' * bool(decimals)}{decimals}"


def format_millicredits_with_code(amount: int, currency: str) -> str:
    """Format millicredits exactly with the code of their currency: `0.001234 USD`."""
    return f"{format_millicredits(amount, currency)} {currency.upper()}"


def parse_amount(written: str, currency: str) -> int:
    """Return an amount above zero, as people write it, in smallest units: 12.34.

    Raises ValueError if it cannot be paid in this currency.
    """
    step = get_payable_unit(currency)
    try:
        amount = Decimal(written.strip())
        if amount.is_finite() and 0 < amount <= AMOUNT_MAX:
            scaled = amount.scaleb(DECIMALS[currency])
            if scaled == int(scaled) and not int(scaled) % step:
                return int(scaled)
    except ArithmeticError:  # It is no number, or its exponent is too large.
        pass
    raise ValueError(
        f"is no amount in {currency.upper()}, such as {to_decimal(1234 * step, currency)}: above 0, "
        f"in whole parts of {to_decimal(step, currency)}"
    )


def get_symbol_gap(symbol: str) -> str:
    """Return the no-break space between a currency's code and the amount after it: `KWD 1.250`, but `$1.25`.

    Unicode's rule (UTS 35, currency spacing), which Babel leaves out.
    """
    return "\u00a0" if symbol[-1:].isalpha() else ""
