"""Currencies for display beside the charged US dollars, at a rate that operators configure."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_moment, read_text, value_error

CHARGED = "USD"
"""The currency of prices with approximate amounts beside them."""
CODE = re.compile(r"[A-Z]{3}")
RATE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?")
A_CODE = "the code of a currency other than USD in capitals, such as EUR (ISO 4217)"
A_RATE = 'how much of the currency a US dollar is, such as "0.86"'


@written(build_text("currency code", CODE.pattern, "EUR"))
def read_code(value: object) -> str:
    """Read the code of a currency."""
    code = read_text(value, A_CODE)
    if not CODE.fullmatch(code) or code == CHARGED:
        raise value_error(f"{format_value(code)} is no such code", A_CODE)
    return code


@written(build_text("decimal number", RATE.pattern, "0.86"))
def read_rate(value: object) -> Decimal:
    """Read a rate exactly as written."""
    if isinstance(value, Decimal):
        return value
    rate = read_text(value, A_RATE)
    if not RATE.fullmatch(rate) or not Decimal(rate):
        raise value_error(f"{format_value(rate)} is no rate", A_RATE)
    return Decimal(rate)


Code = Annotated[str, BeforeValidator(read_code)]


class ExchangeRate(Part):
    """An exchange rate, by the code of a currency such as `EUR`. Nothing is charged at this rate."""

    rate: Annotated[Decimal, BeforeValidator(read_rate)] = Field(
        description="Amount of the currency for one US dollar, in quotes."
    )
    date: Annotated[float, BeforeValidator(read_moment)] = Field(description="Date of the rate. Pages show it.")


Currencies = dict[Code, ExchangeRate]
