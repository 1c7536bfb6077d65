"""Money in files: in the file's currency, or in several currencies for plans, `{usd: "10", jpy: "1500"}`.

A plan is read once for each currency that any of its prices has, so each price must have all of them. Amounts are whole
numbers of the currency's smallest unit. Unit prices are in 10⁻¹² of it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.base.json_values import JsonObject
from edgeproxy.config.collector.currency_units import DECIMALS, USD, get_payable_unit, get_unit_count, read_currency
from edgeproxy.config.forms import build_any_of, build_text, written
from edgeproxy.config.units import format_value, read_text, value_error

PRICE_SCALE = 10**12
"""Parts of a unit price per smallest unit (a cent, for example)."""
PRICE_PLACES = 12
"""Decimal places of a price in smallest units, as many as Stripe accepts."""
CENTS = 100

DECIMAL = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,16}))?")
PRICE = re.compile(rf"({DECIMAL.pattern})(?:/([1-9][0-9]{{0,9}})(M)?)?")
MILLION = 10**6
A_FEE = 'an amount such as "99" or "99.50", or one in each currency: {usd: "99", jpy: "14800"}'
A_PRICE = (
    'a price a unit such as "0.10", or for so many units such as "0.01/1000" or "1.25/1M"; or {usd: "0.10", jpy: "15"}'
)


class MoneyReading:
    """The current currency of reading, and the other currencies that were found."""

    def __init__(self, currency: str, base: str, *, is_plan: bool) -> None:
        self.currency = currency
        self.base = base
        """The currency of money without a written currency."""
        self.is_plan = is_plan
        """True if money may be written in several currencies."""
        self.named: set[str] = set()
        """The currencies of all money that was read."""


_reading: ContextVar[MoneyReading | None] = ContextVar("reading", default=None)


def get_reading() -> MoneyReading:
    """Return the current currency of reading: by default US dollars."""
    return _reading.get() or MoneyReading(USD, USD, is_plan=False)


@contextmanager
def reading_in(currency: str, base: str | None = None, *, is_plan: bool = False) -> Iterator[MoneyReading]:
    """Read money in a currency. Money without a written currency is in `base`, by default this currency."""
    reading = MoneyReading(currency, base or currency, is_plan=is_plan)
    token = _reading.set(reading)
    try:
        yield reading
    finally:
        _reading.reset(token)


def find_currency(section: object) -> str:
    """Return the `currency` of a section, for its amounts without one. The default is US dollars."""
    currency = section.get("currency", USD) if isinstance(section, Mapping) else USD
    return currency if isinstance(currency, str) and currency in DECIMALS else USD


def _build_money(title: str, pattern: str, *examples: str) -> JsonObject:
    """Build the schema of money, in the file's currency or in several by code."""
    one = build_text(title, pattern, *examples)
    each: JsonObject = {
        "type": "object",
        "title": f"{title} by currency",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {code: {"type": "string", "pattern": one["pattern"]} for code in sorted(DECIMALS)},
    }
    return build_any_of(one, each)


def _choose_currency(value: object, hint: str) -> tuple[str, str]:
    """Return the current currency and the text of the amount in it."""
    reading = get_reading()
    if not reading.is_plan or not isinstance(value, Mapping):
        written = read_text(value, hint)
        if DECIMAL.fullmatch(written.partition("/")[0]) and not written.partition("/")[0].strip("0."):
            return reading.currency, written  # Zero is zero in any currency.
        value = {reading.base: written}
    codes = {str(code): amount for code, amount in value.items()}
    reading.named.update(read_currency(code) for code in codes)
    if reading.currency not in codes:
        raise value_error(
            f"has no price in {reading.currency}, in which other prices of the plan are"
            if reading.currency != reading.base
            else f"has no price in {reading.currency}, the currency of the file",
            f"write {{{', '.join(codes)}, {reading.currency}: ...}}, each with an amount in quotes",
        )
    return reading.currency, read_text(codes[reading.currency], hint)


@written(_build_money("amount", DECIMAL.pattern, "99", "99.50"), lambda _: None)
def read_fee(value: object) -> int:
    """Read an amount in smallest units (cents, for example): `99`, `99.50`, `{usd: "99", jpy: "14800"}`."""
    if isinstance(value, int):
        return value
    currency, written = _choose_currency(value, A_FEE)
    match = DECIMAL.fullmatch(written)
    if match is None:
        raise value_error(f"{format_value(written)} is not an amount", A_FEE)
    step = get_payable_unit(currency)
    decimals = DECIMALS[currency] - len(str(step)) + 1
    whole, places = match[1], (match[2] or "").rstrip("0")
    if len(places) > decimals:
        raise value_error(
            f"{format_value(written)} has parts of a cent"
            if currency == USD
            else f"{format_value(written)} has more than the {decimals} places that payments in {currency} can have",
            A_FEE,
        )
    return int(whole + places.ljust(decimals, "0")) * step


@written(_build_money("price", PRICE.pattern, "0.10", "0.01/1000", "1.25/1M"), lambda _: None)
def read_price(value: object) -> int:
    """Read the price of a unit, in 10⁻¹² smallest units: `0.10`, `0.01/1000`, `1.25/1M`, `{usd: "0.10", jpy: "15"}`."""
    if isinstance(value, int):
        return value
    currency, written = _choose_currency(value, A_PRICE)
    match = PRICE.fullmatch(written)
    if match is None:
        raise value_error(f"{format_value(written)} is not a price", A_PRICE)
    whole, places, units = match[2], match[3] or "", int(match[4] or 1) * (MILLION if match[5] else 1)
    numerator = int(whole + places) * get_unit_count(currency) * PRICE_SCALE
    parts, rest = divmod(numerator, units * int("1" + "0" * len(places)))
    if rest:
        raise value_error(
            f"{format_value(written)} has more than {PRICE_PLACES} places in "
            f"{'cents' if currency == USD else f'the smallest unit of {currency}'} a unit",
            "write a rounder price",
        )
    return parts


@written(_build_money("amount", DECIMAL.pattern, "99", "99.50"), lambda _: None)
def read_amounts(value: object) -> dict[str, int]:
    """Read an amount in smallest units by currency code: `{usd: "10", jpy: "1500"}`, or `10` in one currency."""
    if not isinstance(value, Mapping):
        return {get_reading().currency: read_fee(value)}
    amounts: dict[str, int] = {}
    for code, amount in value.items():
        if isinstance(amount, int) and not isinstance(amount, bool):
            amounts[str(code)] = amount
            continue
        with reading_in(read_currency(str(code))):
            amounts[str(code)] = read_fee(amount)
    if not amounts:
        raise value_error("has no amount", A_FEE)
    return amounts


@written(_build_money("price", PRICE.pattern, "0.10", "0.01/1000", "1.25/1M"), lambda _: None)
def read_unit_costs(value: object) -> dict[str, int]:
    """Read the cost of a unit in 10⁻¹² smallest units, in one currency or in several by code."""
    if not isinstance(value, Mapping):
        return {get_reading().currency: read_price(value)}
    costs: dict[str, int] = {}
    for code, cost in value.items():
        with reading_in(read_currency(str(code))):
            costs[str(code)] = read_price(cost)
    if not costs:
        raise value_error("has no price", A_PRICE)
    return costs


Price = Annotated[int, BeforeValidator(read_price)]
