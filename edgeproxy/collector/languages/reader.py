"""The readers of pages and mails: their language, and their formats of numbers, dates and money."""

import math
from collections.abc import Callable, Iterable
from copy import copy
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

from babel import Locale, UnknownLocaleError, dates, numbers, units

from edgeproxy.collector.languages.catalogs import DEFAULT, LANGUAGES
from edgeproxy.collector.languages.currencies import DisplayCurrency
from edgeproxy.config.collector.currency_units import DECIMALS, USD, choose_price_units, get_symbol_gap, to_decimal

HEADER_CHARACTERS_MAX = 500
"""Characters of Accept-Language that are read."""
AGO_SECONDS_MAX = 30 * 86400
"""Older times are written as a date."""
COMPACT_MIN = 10_000
"""Smaller numbers are written out."""
BYTES = ("B", "kB", "MB", "GB", "TB")
"""The symbols of units of bytes. Each unit is a thousand times the previous one."""
DURATIONS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
"""The units of durations, by their seconds."""

Number = TypeVar("Number", float, Decimal)

MILLION = 1_000_000
PLACES_MAX = 15
"""Most decimal places of an amount in whole units: twelve of a smallest unit (config/collector/money.py), and its own.
"""


class Reader(NamedTuple):
    """The reader of a page: the language, and the locale for formats."""

    language: str
    locale: Locale

    def number(self, value: float) -> str:
        """Return a number in the form 1,234,567."""
        return numbers.format_decimal(drop_zero_sign(value, 3), locale=self.locale)

    def rounded(self, value: float) -> str:
        """Return a number rounded to an integer."""
        return numbers.format_decimal(round(value), locale=self.locale)

    def share(self, value: float, digits: int = 2, promised: float = 1) -> str:
        """Return a share of 1 in percent, rounded: but 99.996 % is 99.99 %, not 100 %, and 0.4 % is <1 %.

        A share below the `promised` one never reads as that one: 99.946 % of 99.95 % is 99.94 %.
        """
        scale = 10 ** (digits + 2)
        steps = math.floor(abs(value) * scale + 0.5 + 1e-6)
        if value and not steps:
            return f"{'<' if value > 0 else '>'}{self.share(math.copysign(1 / scale, value), digits)}"
        bound = promised if abs(value) < promised else 1
        if abs(value) < bound:
            steps = min(steps, math.ceil(bound * scale - 1e-6) - 1)
        form = self.locale.percent_formats[None].pattern
        if digits:
            form = form.replace("#,##0", f"#,##0.{'0' * digits}")
        return numbers.format_percent((-steps if value < 0 else steps) / scale, format=form, locale=self.locale)

    def money(self, amount: int, currency: str = USD) -> str:
        """Return an amount given in smallest units, for example cents."""
        return self._format_amount(to_decimal(amount, currency), currency)

    def amount(self, amount: Decimal, currency: str) -> str:
        """Return an amount given in whole units of a currency."""
        unsigned = drop_zero_sign(amount, numbers.get_currency_precision(currency))
        return self._format_amount(Decimal(unsigned), currency)

    def whole_money(self, amount: int, currency: str = USD) -> str:
        """Return an amount given in smallest units, rounded to whole units of the currency."""
        form = self.locale.currency_formats["standard"].pattern.replace("0.00", "0")
        return self._format_amount(Decimal(round(to_decimal(amount, currency))), currency, form)

    def approximate(self, cents: float, beside: DisplayCurrency) -> str:
        """Return the approximate amount in another currency for cents of US dollars."""
        return f"≈ {self.amount(beside.of(cents), beside.code)}"

    def rate(self, beside: DisplayCurrency) -> str:
        """Return the rate of the US dollar in another currency, with all decimal places."""
        return numbers.format_currency(
            beside.rate, beside.code, locale=self.locale, currency_digits=False, decimal_quantization=False
        )

    def credits(self, millicredits: int) -> str:
        """Return credits. A thousand are a US dollar, or a hundred smallest units of another currency."""
        return numbers.format_decimal(Decimal(millicredits).scaleb(-3), locale=self.locale)

    def exact(self, millicredits: int, currency: str = USD) -> str:
        """Return credits in their currency, with all decimal places."""
        return self._format_exactly(to_decimal(millicredits, currency).scaleb(-4), currency)

    def exact_of(self, currency: str) -> Callable[[float], str]:
        """Return the function that formats credits in this currency, with all decimal places."""
        return lambda millicredits: self.exact(round(millicredits), currency)

    def _format_exactly(self, amount: Decimal, currency: str) -> str:
        """Return an amount in whole units of a currency with all its decimal places, and at least the currency's."""
        places = "0" * DECIMALS[currency] + "#" * PLACES_MAX
        form = self.locale.currency_formats["standard"].pattern.replace("0.00", f"0.{places}")
        return self._format_amount(amount, currency, form)

    def _format_amount(self, amount: Decimal, currency: str, form: str = "") -> str:
        """Return an amount in whole units by a pattern, or by the standard one with the currency's decimal places."""
        code = currency.upper()
        pattern = _create_pattern(self.locale, code, form)
        return str(pattern.apply(amount, self.locale, currency=code, currency_digits=not form))

    def unit_price(
        self, written: str, package: int = 1, currency: str = USD, scale: int | None = None
    ) -> tuple[str, int]:
        """Return a unit price for display, and its number of units. `written` is in smallest units of the currency.

        The price is for `scale` units, or for as many units or packages as on invoices.
        """
        return _format_unit_price(self, written, package, currency, scale)

    def price_units(self, prices: Iterable[str]) -> int:
        """Return one number of units that all these unit prices can be written for. They are in smallest units."""
        return max((choose_price_units(Decimal(price)) for price in prices), default=1)

    def country(self, code: str) -> str:
        """Return the name of a country by its code (ISO 3166-1 alpha-2)."""
        return str(self.locale.territories.get(code, code))

    def date(self, second: float) -> str:
        """Return the UTC day of a Unix second."""
        return _format_day(datetime.fromtimestamp(second, UTC).date(), self.locale)

    def short_day(self, second: float) -> str:
        """Return the UTC day of a Unix second without the year, in the form Nov 22."""
        return dates.format_skeleton("MMMd", datetime.fromtimestamp(second, UTC), locale=self.locale)

    def iso_day(self, second: float) -> str:
        """Return the UTC day of a Unix second for a date field, in the form 2026-11-22."""
        return datetime.fromtimestamp(second, UTC).date().isoformat()

    def iso_minute(self, second: float) -> str:
        """Return the UTC time of a Unix second for a field with date and time."""
        return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M}"

    def month_of(self, second: float) -> str:
        """Return the UTC month of a Unix second, in the form November 2026."""
        return self.month(f"{datetime.fromtimestamp(second, UTC):%Y-%m}")

    def month(self, written: str) -> str:
        """Return the name of a month written as 2027-03."""
        return dates.format_skeleton("yMMMM", parse_time(f"{written}-01"), locale=self.locale)

    def moment(self, written: str | float | None) -> str:
        """Return an RFC 3339 time or a Unix second in UTC with a 24-hour clock, or a dash for None."""
        if written is None:
            return "–"
        at = datetime.fromtimestamp(written, UTC) if isinstance(written, int | float) else parse_time(written)
        clock = self.locale.time_formats["medium"].pattern
        joined = str(self.locale.datetime_formats["medium"])
        time = dates.format_time(at, "HH:mm:ss" if "h" in clock else "medium", tzinfo=UTC, locale=self.locale)
        date = dates.format_date(at, "medium", locale=self.locale)
        moment = f"{joined.replace('{0}', time).replace('{1}', date)} UTC"
        # The text has letters of both directions. It is isolated (Unicode UAX 9), so that it cannot mix with a time
        # beside it.
        return moment if self.locale.text_direction == "ltr" else f"\u2068{moment}\u2069"

    def brief(self, written: str | float, now: float, clock: str = "%H:%M") -> str:
        """Return a UTC time to the minute, with the year unless it is the year of `now`: Nov 22, 23:48."""
        at = datetime.fromtimestamp(written, UTC) if isinstance(written, int | float) else parse_time(written)
        is_this_year = at.year == datetime.fromtimestamp(now, UTC).year
        date = dates.format_skeleton("MMMd" if is_this_year else "yMMMd", at, locale=self.locale)
        joined = str(self.locale.datetime_formats["medium"])
        brief = joined.replace("{0}", f"{at:{clock}}").replace("{1}", date)
        return brief if self.locale.text_direction == "ltr" else f"\u2068{brief}\u2069"

    def day(self, written: str | None) -> str:
        """Return the day of an RFC 3339 time, or a dash for None."""
        return "–" if written is None else _format_day(parse_time(written).date(), self.locale)

    def ago(self, written: str | float, now: float) -> str:
        """Return how long ago a time is at Unix second `now`, or its day after a month: 5 minutes ago."""
        at = written if isinstance(written, int | float) else parse_time(written).timestamp()
        if abs(now - at) > AGO_SECONDS_MAX:
            return self.date(at)
        return dates.format_timedelta(int(at - now) or -1, threshold=0.99, add_direction=True, locale=self.locale)

    def clock(self, second: float) -> str:
        """Return the UTC time of day of a Unix second, in the form 23:48:10."""
        return f"{datetime.fromtimestamp(second, UTC):%H:%M:%S}"

    def compact(self, value: float) -> str:
        """Return a short number for an axis or a tile, in the form 9.4M."""
        if abs(value) < COMPACT_MIN:
            return numbers.format_decimal(drop_zero_sign(value, 2), format="#,##0.##", locale=self.locale)
        short = numbers.format_compact_decimal(value, fraction_digits=1, locale=self.locale)
        # German, for example, has no short word for a thousand. It would be written 15000, without a separator.
        return short if any(character.isalpha() for character in short) else self.rounded(value)

    def about(self, value: int) -> str:
        """Return a number truncated after three digits, in the form 12,400 or 1.2 million."""
        cut = 10 ** max(0, len(str(value)) - 3)
        value = value // cut * cut
        if value < MILLION:
            return self.number(value)
        return numbers.format_compact_decimal(value, format_type="long", fraction_digits=1, locale=self.locale)

    def within(self, word: str) -> str:
        """Return a noun as written within a sentence: in lower case, except in German."""
        return word if self.language == "de" else word[:1].lower() + word[1:]

    def quantity(self, value: float, unit: str = "", scale: int | None = None) -> str:
        """Return a short number of a unit. Bytes are written as B, kB, MB, GB or TB, seconds in the unit of the scale.

        Bytes use the unit of the scale too, unless the number is below a hundredth of it and would look like zero.
        """
        if unit == "seconds" and scale is not None:
            number = drop_zero_sign(value / scale, 2)
            called = f"duration-{DURATIONS[scale]}"
            return units.format_unit(number, called, "short", format="#,##0.##", locale=self.locale)
        if unit != "bytes":
            return self.compact(value)
        size = value if scale is None or 0 < value < scale / 100 else scale
        power = min(len(str(int(size))) - 1, 3 * len(BYTES) - 1) // 3
        number = drop_zero_sign(value / 1000**power, 2)
        # Babel writes 3 byte, in German 1 kbyte. The symbols are the same in all languages.
        return f"{numbers.format_decimal(number, format='#,##0.##', locale=self.locale)} {BYTES[power]}"

    def quantity_of(self, unit: str, scale: int | None = None) -> Callable[[float], str]:
        """Return the function that formats a short number of this unit."""
        return partial(self.quantity, unit=unit, scale=scale)

    def change(self, now: float, before: float) -> str:
        """Return the growth since `before` as an arrow and a share, in the form ↑ 6.1%, or a dash if `before` is 0."""
        if not before:
            return "–"
        growth = now / before - 1
        return f"{'↑' if growth > 0 else '↓' if growth < 0 else '±'} {self.share(abs(growth), 1)}"

    def times(self, value: float) -> str:
        """Return a multiple in the form 4.2 ×."""
        return f"{numbers.format_decimal(drop_zero_sign(value, 2), format='#,##0.0#', locale=self.locale)} ×"

    def days(self, count: int) -> str:
        """Return a number of days in the form 21 days."""
        return dates.format_timedelta(count * 86400, granularity="day", threshold=count + 1.0, locale=self.locale)

    def span(self, seconds: float) -> str:
        """Return an approximate duration in the form 5 minutes."""
        return dates.format_timedelta(int(seconds), threshold=0.99, locale=self.locale)


@lru_cache(maxsize=256)
def _create_pattern(locale: Locale, currency: str, form: str) -> numbers.NumberPattern:
    """Return the pattern of amounts with the currency's symbol in place; `form` is empty for the standard pattern.

    Babel would read the pattern, and look up the plural of the currency's name, for each amount.
    """
    pattern = copy(numbers.parse_pattern(form or locale.currency_formats["standard"]))
    symbol = numbers.get_currency_symbol(currency, locale)
    before = symbol if "¤\u00a0" in pattern.prefix[0] else symbol + get_symbol_gap(symbol)
    pattern.prefix = pattern.prefix[0].replace("¤", before), pattern.prefix[1].replace("¤", before)
    pattern.suffix = pattern.suffix[0].replace("¤", symbol), pattern.suffix[1].replace("¤", symbol)
    return pattern


@lru_cache(maxsize=1024)
def _format_unit_price(reader: Reader, written: str, package: int, currency: str, scale: int | None) -> tuple[str, int]:
    price = Decimal(written)
    count = choose_price_units(price) if scale is None or package > 1 else scale
    amount = (price * count).scaleb(-DECIMALS[currency])
    return reader._format_exactly(amount, currency), package * count


@lru_cache(maxsize=1024)
def _format_day(day: date, locale: Locale) -> str:
    return dates.format_date(day, "medium", locale=locale)


def drop_zero_sign(value: Number, places: int) -> Number | int:
    """Return a number, or 0 if it is rounded to nothing: a reader sees 0.00 and never -0.00."""
    return value if round(value, places) else 0


def parse_time(written: str) -> datetime:
    """Return an RFC 3339 time or a date as a time in UTC."""
    at = datetime.fromisoformat(written.replace("Z", "+00:00"))
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def create_reader(language: str) -> Reader:
    """Return the reader of a language, or of the default language if it is unknown."""
    known = language if language in LANGUAGES else DEFAULT
    return Reader(known, Locale.parse(known))


def choose_reader(chosen: str | None, accepted: str | None) -> Reader:
    """Return the reader for the chosen language, or else by Accept-Language (RFC 9110 section 12.5.4).

    The locale of a chosen language comes from Accept-Language if it lists the language.
    """
    ranked = list(rank_languages((accepted or "")[:HEADER_CHARACTERS_MAX]))
    language = chosen if chosen in LANGUAGES else None
    for tag in ranked:
        spoken = tag.partition("-")[0].lower()
        if spoken in LANGUAGES and language in (None, spoken):
            return Reader(spoken, find_locale(tag, spoken))
    return create_reader(language or DEFAULT)


def rank_languages(accepted: str) -> list[str]:
    """Return the language tags of Accept-Language, preferred ones first."""
    ranked_tags = []
    for place, part in enumerate(accepted.split(",")):
        tag, _, weight = part.strip().partition(";")
        try:
            rank = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if rank > 0 and tag:
            ranked_tags.append((-rank, place, tag.strip()))
    return [tag for _, _, tag in sorted(ranked_tags)]


def find_locale(tag: str, language: str) -> Locale:
    """Return the locale of a tag in the form de-CH, or the locale of its language."""
    try:
        return Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        return Locale.parse(language)
