"""Currencies of Stripe, and the least amounts that can be charged in them."""

from edgeproxy.stripe_sandbox.refusal import invalid_request

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
    """Return the least amount that can be charged in a currency; those without one of their own have 1."""
    return MINIMUMS.get(currency, 1)


def require_minimum(amount: int, currency: str) -> None:
    """Raise the refusal of an amount that is below the least one of its currency."""
    least = get_minimum(currency)
    if amount < least:
        shown = str(least) if currency == "jpy" else f"{least / 100:.2f}"
        message = f"Amount must be at least {shown} {currency}"
        raise invalid_request(message, "amount", "amount_too_small")
