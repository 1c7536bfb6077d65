"""The sentences of pages about refusals, by the codes of the API: for a failed request, and for an invalid field. Pure.

The API writes for programmers, in English. A problem whose code has no words here, for example one of a newer
collector, is shown in the API's sentence, which is marked as English.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.refilled_form import FieldRefusal
from edgeproxy.collector.problems.coded_error import CodedError, FieldFault, Params
from edgeproxy.config import field_codes

Say = Callable[[str], str]

UNKNOWN_FIELD = N_("This cannot be used:")
FIELD_WORDS: Mapping[str, str] = {
    code.name: words
    for code, words in (
        (field_codes.MISSING, N_("Fill this in.")),
        (field_codes.EMPTY, N_("Fill this in.")),
        (field_codes.TOO_LONG, N_("Write %(most)s characters at most.")),
        (field_codes.NOT_PLAIN, N_("Write 1 to %(most)s characters on one line.")),
        (
            field_codes.NOT_A_NAME,
            N_("Write 1 to %(most)s letters, digits, - or _, the first a letter or a digit."),
        ),
        (field_codes.LOOKS_LIKE_ID, N_("This looks like an id. Choose another name.")),
        (field_codes.NOT_OFFERED, N_("Choose one that is offered.")),
        (field_codes.OUT_OF_RANGE, N_("This amount cannot be used here.")),
        (field_codes.NOT_A_DATE, N_("Choose a date.")),
        (field_codes.TIME_OUT_OF_RANGE, N_("Choose a day before 2100.")),
        (field_codes.SPAN_OUT_OF_RANGE, N_("Choose one of the times offered.")),
        (field_codes.PAST, N_("Choose a time that is still to come.")),
        (field_codes.BEGUN, N_("It has begun: change its end alone.")),
        (field_codes.END_TOO_LATE, N_("Choose an end that is after the beginning, by %(days)s days at most.")),
        (field_codes.TOO_FAR, N_("That is more than %(days)s days away.")),
        (field_codes.NOT_DUE, N_("This is not what is due. Credit what is not to be paid.")),
        (field_codes.NOT_A_MULTIPLE, N_("Write the amount with fewer places.")),
        (field_codes.NOT_A_COUNTRY, N_("Choose a country.")),
        (
            field_codes.NOT_A_TAX_NUMBER,
            N_("Write 1 to %(most)s letters and digits, as the tax office writes it."),
        ),
        (
            field_codes.COUNTRY_NEEDED,
            N_("Choose a country above. Tax numbers of some countries can be entered at Stripe alone."),
        ),
        (
            field_codes.REFUSED_BY_STRIPE,
            N_("Stripe does not take this. Look at how it is written, and at the country."),
        ),
        (field_codes.NOT_AN_EMAIL, N_("Write e-mail addresses, one a line.")),
        (
            field_codes.NOT_A_URL,
            N_("Write an address that begins with https://, without a user, of 2,000 characters at most."),
        ),
        (field_codes.NOT_A_CONTACT, N_("This address is no contact of the customer.")),
        (field_codes.TIER_UNKNOWN, N_("There is no such tier.")),
        (field_codes.NOT_A_KEY, N_("This is no key: write it as it was found, without spaces around it.")),
        (field_codes.NOT_A_BUDGET, N_("Write a budget such as $50/month or 1000000 tokens/day.")),
        (field_codes.NOT_COUNTED_BY_KEY, N_("The usage of this meter is not told apart by key.")),
        (field_codes.NO_PRICE_BY_KEY, N_("No usage with a price is told apart by key.")),
        (field_codes.OTHER_CURRENCY, N_("The prices of the plan are in %(currency)s.")),
    )
}
"""The sentence for each code that says more than that the value cannot be used."""


class Reason(NamedTuple):
    """The reason for a refusal, for a reader."""

    words: str
    is_english: bool
    """True if it is the API's sentence, and not in the reader's language."""
    detail: str = ""
    """The API's sentence, in English, if it says more than the words."""


def explain_error(error: CodedError, say: Say) -> Reason:
    """Return the reason for a failed request."""
    words = _fill(error.code.words, error.params, say)
    if not words:
        return Reason(error.why, is_english=True)
    return Reason(words, is_english=False, detail=error.why if error.code.has_reason else "")


def explain_fault(fault: FieldFault, say: Say) -> FieldRefusal:
    """Return the reason for an invalid field."""
    words = _fill(FIELD_WORDS.get(fault.code.name, ""), fault.params, say)
    return FieldRefusal(fault.field, words or say(UNKNOWN_FIELD), "" if words else fault.detail)


def _fill(words: str, params: Params, say: Say) -> str:
    """Return a sentence with its figures; empty if one is missing, as it may be in answers of another version."""
    try:
        return (say(words) % params).strip()  # A figure at the end may be empty.
    except KeyError:
        return ""
