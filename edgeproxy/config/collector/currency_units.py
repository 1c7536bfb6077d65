"""Currencies in which prices can be: their smallest units, and the amounts that can be paid in them."""

from decimal import Decimal
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
"""Places behind the point of each currency (ISO 4217, in lower case as Stripe writes it)."""
USD = "usd"
PAYABLE_DECIMALS = 2
"""Places behind the point that payments can have: Stripe takes amounts of three places only with a 0 at the end
(docs.stripe.com/currencies, three-decimal currencies)."""
AMOUNT_MAX: Final = Decimal(10) ** 13
"""The largest amount that is read, in whole units of a currency: more than any, and quick to convert."""
LEAST_CHARGES: Final = dict.fromkeys(
    ("aud", "brl", "cad", "chf", "eur", "inr", "jpy", "nzd", "sgd", "usd"), 50
) | dict.fromkeys(("aed", "myr", "pln", "ron"), 200)
LEAST_CHARGES.update(bgn=100, czk=1500, dkk=250, gbp=30, hkd=400, huf=17500, mxn=1000, nok=300, sek=300, thb=1000)
"""The smallest units of the least amount that Stripe charges in each currency; others have none of their own
(docs.stripe.com/currencies, minimum and maximum charge amounts)."""
CHARGE_MAX = 99_999_999
"""The smallest units of the largest amount that Stripe charges at once: eight digits."""
A_CURRENCY = "the code of a currency in lower case, such as usd, eur or jpy (ISO 4217)"


@written(build_words(*sorted(DECIMALS), title="currency code"))
def read_currency(value: object) -> str:
    """Read the code of a currency in which prices can be."""
    code = read_text(value, A_CURRENCY)
    if code not in DECIMALS:
        raise value_error(f"{format_value(code)} is no currency in which prices can be", A_CURRENCY)
    return code


Currency = Annotated[str, BeforeValidator(read_currency)]


def get_unit_count(currency: str) -> int:
    """Return how many of its smallest unit are one of a currency: 100 cents, 1 yen, 1,000 fils."""
    return int(10 ** DECIMALS[currency])


def get_payable_unit(currency: str) -> int:
    """Return the smallest units of the least amount of which payments are multiples: 1 cent, 1 yen, 10 fils."""
    return int(10 ** max(0, DECIMALS[currency] - PAYABLE_DECIMALS))


def get_least_charge(currency: str) -> int:
    """Return the smallest units of the least amount that can be charged in a currency."""
    return LEAST_CHARGES.get(currency, get_payable_unit(currency))


def to_decimal(amount: int, currency: str) -> Decimal:
    """Return an amount of smallest units in the currency's whole units, with all their places: 1234.50."""
    return Decimal(amount).scaleb(-DECIMALS[currency])


def parse_amount(written: str, currency: str) -> int:
    """Return an amount above zero as people write it, such as 12.34, in smallest units; raises ValueError where it is
    none that can be paid in this currency."""
    step = get_payable_unit(currency)
    try:
        amount = Decimal(written.strip())
        if amount.is_finite() and 0 < amount <= AMOUNT_MAX:
            scaled = amount.scaleb(DECIMALS[currency])
            if scaled == int(scaled) and not int(scaled) % step:
                return int(scaled)
    except ArithmeticError:  # Of what is no number, or has an exponent that no decimal can have.
        pass
    raise ValueError(
        f"is no amount in {currency.upper()}, such as {to_decimal(1234 * step, currency)}: above 0, "
        f"in whole parts of {to_decimal(step, currency)}"
    )
