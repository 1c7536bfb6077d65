"""Codes of invalid fields, for programs: `code` beside each field in the `errors` of a problem."""

from typing import Final, NamedTuple


class FieldCode(NamedTuple):
    """A row of the table of invalid fields."""

    name: str
    meaning: str
    """The fault, in one sentence; `%(NAME)s` is the member NAME of `params`."""


INVALID: Final = FieldCode("invalid", "The value cannot be used. `detail` has the reason.")
MISSING: Final = FieldCode("missing", "The field is required.")
UNKNOWN: Final = FieldCode("unknown", "There is no field of this name.")
WRONG_TYPE: Final = FieldCode("wrong-type", "The value is of another type.")
EMPTY: Final = FieldCode("empty", "The text or the list is empty.")
TOO_LONG: Final = FieldCode("too-long", "The text has more than %(most)s characters.")
NOT_PLAIN: Final = FieldCode("not-plain", "The text is not 1 to %(most)s printable characters on one line.")
NOT_A_NAME: Final = FieldCode(
    "not-a-name", "A name is 1 to %(most)s letters, digits, `-` or `_`, the first a letter or a digit."
)
LOOKS_LIKE_ID: Final = FieldCode("looks-like-id", "A name may not look like an id.")
NOT_OFFERED: Final = FieldCode("not-offered", "The value is none of those that the field can have.")
OUT_OF_RANGE: Final = FieldCode("out-of-range", "The number is too small or too large.")
NOT_A_DATE: Final = FieldCode("not-a-date", "The value is neither a date nor a time.")
TIME_OUT_OF_RANGE: Final = FieldCode("time-out-of-range", "The time is not between 1970 and 2100.")
SPAN_OUT_OF_RANGE: Final = FieldCode("span-out-of-range", "The length of time is too short or too long.")
PAST: Final = FieldCode("past", "The time is not in the future.")
BEGUN: Final = FieldCode("begun", "The beginning cannot change, because it is past.")
END_TOO_LATE: Final = FieldCode("end-too-late", "The end is not within %(days)s days after the beginning.")
TOO_FAR: Final = FieldCode("too-far", "The time is more than %(days)s days away.")
NOT_DUE: Final = FieldCode("not-due", "The amount is not the amount due.")
NOT_A_MULTIPLE: Final = FieldCode("not-a-multiple", "The amount has more places than payments have.")
NOT_A_COUNTRY: Final = FieldCode("not-a-country", "The value is no code of a country.")
NOT_A_TAX_NUMBER: Final = FieldCode("not-a-tax-number", "A tax number is 1 to %(most)s letters and digits.")
COUNTRY_NEEDED: Final = FieldCode("country-needed", "The tax number needs an address in a country with known numbers.")
REFUSED_BY_STRIPE: Final = FieldCode("refused-by-stripe", "Stripe refuses the value.")
NOT_AN_EMAIL: Final = FieldCode("not-an-email", "The value is no e-mail address.")
NOT_A_URL: Final = FieldCode("not-a-url", "Messages cannot be sent to this URL.")
NOT_A_CONTACT: Final = FieldCode("not-a-contact", "The address is no contact of the customer.")
TIER_UNKNOWN: Final = FieldCode("tier-unknown", "There is no such tier.")
NOT_A_KEY: Final = FieldCode("not-a-key", "The value has not the form of a key.")
NOT_A_BUDGET: Final = FieldCode("not-a-budget", "A budget is written like `$50/month` or `1000000 tokens/day`.")
NOT_COUNTED_BY_KEY: Final = FieldCode("not-counted-by-key", "The meter has no dimension for keys.")
NO_PRICE_BY_KEY: Final = FieldCode("no-price-by-key", "No meter with a price has a dimension for keys.")
OTHER_CURRENCY: Final = FieldCode("other-currency", "The customer's plan has its prices in %(currency)s.")

FIELD_CODES: Final = {code.name: code for code in tuple(globals().values()) if isinstance(code, FieldCode)}
"""Each code by its name."""


def find_field_code(name: str) -> FieldCode:
    """Return the code with a name. A name of another version has no meaning here."""
    return FIELD_CODES.get(name) or FieldCode(name, "")
