"""The currency that somebody reads amounts in beside US dollars: approximate, by a rate of the configuration. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from babel import Locale
from babel.core import get_global
from babel.numbers import get_territory_currencies

from edgeproxy.config.collector.currencies import CHARGED, ExchangeRate

CENTS = 100


class DisplayCurrency(NamedTuple):
    """A currency, how much of it a US dollar is, and the Unix second of the day on which it was."""

    code: str
    rate: Decimal
    on: float

    def of(self, cents: float) -> Decimal:
        """Return what so many cents of US dollars are in it."""
        return Decimal(cents) * self.rate / CENTS


def choose_currency(rates: Mapping[str, ExchangeRate], chosen: str | None, locale: Locale) -> DisplayCurrency | None:
    """Return the currency that was `chosen`, else that of where somebody reads; None: US dollars are enough.

    Who reads Dutch or German, and does not say where, is taken for living where most who read it do.
    """
    if chosen == CHARGED:
        return None
    code = chosen if chosen in rates else next((one for one in list_currencies(locale) if one in rates), None)
    return None if code is None else DisplayCurrency(code, rates[code].rate, rates[code].date)


def list_currencies(locale: Locale) -> list[str]:
    """List the currencies of where a locale is spoken."""
    territory = locale.territory
    if territory is None:
        territory = get_global("likely_subtags").get(locale.language, "").rpartition("_")[2]
    return list(get_territory_currencies(territory)) if territory else []
