"""The currency of approximate amounts that a reader sees beside US dollars, by a configured rate. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from babel import Locale
from babel.core import get_global
from babel.numbers import get_territory_currencies

from edgeproxy.config.collector.currencies import CHARGED, ExchangeRate

CENTS = 100


class DisplayCurrency(NamedTuple):
    """A currency, its rate to the US dollar, and the Unix second of the rate's day."""

    code: str
    rate: Decimal
    on: float

    def of(self, cents: float) -> Decimal:
        """Return an amount in cents of US dollars in this currency."""
        return Decimal(cents) * self.rate / CENTS


def choose_currency(rates: Mapping[str, ExchangeRate], chosen: str | None, locale: Locale) -> DisplayCurrency | None:
    """Return the chosen currency, or else the currency of the reader's locale; None: US dollars only.

    A language without a territory stands for the territory with most of its readers.
    """
    if chosen == CHARGED:
        return None
    code = chosen if chosen in rates else next((listed for listed in list_currencies(locale) if listed in rates), None)
    return None if code is None else DisplayCurrency(code, rates[code].rate, rates[code].date)


def list_currencies(locale: Locale) -> list[str]:
    """Return the currencies of a locale's territory."""
    territory = locale.territory
    if territory is None:
        territory = get_global("likely_subtags").get(locale.language, "").rpartition("_")[2]
    return list(get_territory_currencies(territory)) if territory else []
