"""Currencies of Stripe, the least amounts that can be charged in them, and how amounts are written."""

from fractions import Fraction

from stripe_sandbox.amounts import format_decimal
from stripe_sandbox.refusal import invalid_request

CODES = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp
cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils
inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk
mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp
sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar
zmw
"""
CURRENCIES = frozenset(CODES.split())
"""The currencies that can be charged."""
MINIMUMS = {
    "aed": 200,
    "aud": 50,
    "bgn": 100,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1000,
    "usd": 50,
}
"""The least amounts of a charge, in the smallest unit."""

WHOLE = "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
THOUSANDTHS = "bhd jod kwd omr tnd"
PLACES = {**dict.fromkeys(WHOLE.split(), 0), **dict.fromkeys(THOUSANDTHS.split(), 3)}
"""Decimal places of the currencies that do not have two."""
SYMBOLS = {"eur": "€", "gbp": "£", "jpy": "¥", "usd": "$"}


def parse_currency(written: str) -> str:
    """Parse a currency into lower case; raises the refusal of one that Stripe does not have."""
    lower = written.lower()
    if lower not in CURRENCIES:
        known = ", ".join(sorted(CURRENCIES))
        raise invalid_request(
            f"Invalid currency: {written}. Stripe currently supports these currencies: {known}", "currency"
        )
    return lower


def get_minimum(currency: str) -> int:
    """Return the least amount that can be charged in a currency; those without one of their own have 1.

    Payments in currencies of three places are multiples of ten (docs.stripe.com/currencies).
    """
    return MINIMUMS.get(currency, 10 if PLACES.get(currency) == 3 else 1)


def require_minimum(amount: int, currency: str) -> None:
    """Raise the refusal of an amount that is below the least one of its currency."""
    least = get_minimum(currency)
    if amount < least:
        message = f"Amount must be at least {format_units(least, currency)} {currency}"
        raise invalid_request(message, "amount", "amount_too_small")


def format_units(amount: int | Fraction, currency: str) -> str:
    """Format an amount of the smallest unit, or a part of it, in units of the currency: 2000 yen as `2000`."""
    places = PLACES.get(currency, 2)
    whole, _, rest = format_decimal(Fraction(amount) / 10**places).partition(".")
    return f"{whole}.{rest.ljust(places, '0')}" if places or rest else whole


def format_amount(amount: int | Fraction, currency: str) -> str:
    """Format an amount of the smallest unit for people: `-$1,234.50`, `20.00 CHF`."""
    whole, dot, rest = format_units(-amount if amount < 0 else amount, currency).partition(".")
    written, sign = f"{int(whole):,}{dot}{rest}", "-" * (amount < 0)
    symbol = SYMBOLS.get(currency)
    return f"{sign}{written} {currency.upper()}" if symbol is None else f"{sign}{symbol}{written}"
