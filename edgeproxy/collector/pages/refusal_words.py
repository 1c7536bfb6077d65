"""The texts of pages for refusals of the API: the error of a field, or the reason for a failed request. Pure.

The API writes for programmers, in English. Each row maps a pattern of an API text to the text that a page shows in its
place, with its figures. A text that matches no row is shown unchanged and marked as English, after a sentence in the
reader's language.
"""

import re
from collections.abc import Callable, Sequence

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.words import REASONS

Rows = Sequence[tuple[re.Pattern[str], str]]
Say = Callable[[str], str]

UNKNOWN_FIELD = N_("This cannot be used:")
FIELDS: Rows = tuple(
    (re.compile(form), words)
    for form, words in (
        (r"is missing, .*", N_("Fill this in.")),
        (r"cannot be used, 1 to (?P<most>\d+) printable characters", N_("Write 1 to %(most)s characters on one line.")),
        (r"has 0 characters, .*|String should have at least 1 character.*", N_("Fill this in.")),
        (r"String should have at most (?P<most>\d+) characters.*", N_("Write %(most)s characters at most.")),
        (
            r".* is not a name, 1 to (?P<most>\d+) letters.*",
            N_("Write 1 to %(most)s letters, digits, - or _, the first a letter or a digit."),
        ),
        (r"has the form of an id, .*", N_("This looks like an id. Choose another name.")),
        (r".* is not a date, .*", N_("Choose a date.")),
        (r"is out of range, a time from 1970 to 2100", N_("Choose a day before 2100.")),
        (r"is not within \d+ days after its .*", N_("Choose an end that is after the beginning, by 7 days at most.")),
        (r"cannot be changed: it has begun", N_("It has begun: change its end alone.")),
        (r"is past.*|is not in the future.*", N_("Choose a time that is still to come.")),
        (r".* is out of range, a time from .*", N_("Choose one of the times offered.")),
        (r".* is out of range, .*|is above the .* left", N_("This amount cannot be used here.")),
        (r"is not what is due.*", N_("This is not what is due. Credit what is not to be paid.")),
        (r"is no multiple of .*", N_("Write the amount with fewer places.")),
        (r".* is not a country that .*", N_("Choose a country.")),
        (
            r".* is not a tax number, 1 to (?P<most>\d+) .*",
            N_("Write 1 to %(most)s letters and digits, as the tax office writes it."),
        ),
        (
            r"needs an address in a country .*",
            N_("Choose a country above. Tax numbers of some countries can be entered at Stripe alone."),
        ),
        (
            r"is refused by Stripe: .*",
            N_("Stripe does not take this. Look at how it is written, and at the country."),
        ),
        (r".* is not an e-mail address.*", N_("Write e-mail addresses, one a line.")),
        (
            r"is not a URL to which messages can be sent, .*",
            N_("Write an address that begins with https://, without a user, of 2,000 characters at most."),
        ),
        (r"is no contact of the customer", N_("This address is no contact of the customer.")),
        (r"is more than (?P<days>\d+) days away", N_("That is more than %(days)s days away.")),
        (r"there is no tier .*", N_("There is no such tier.")),
        (r"is no key.*", N_("This is no key: write it as it was found, without spaces around it.")),
        (r".* is no budget.*", N_("Write a budget such as $50/month or 1000000 tokens/day.")),
        (r".* is not counted by key: .*", N_("The usage of this meter is not told apart by key.")),
        (r"no meter with a price is counted by key: .*", N_("No usage with a price is told apart by key.")),
        (r"the customer's plan has its prices in (?P<code>.*)", N_("The prices of the plan are in %(code)s.")),
        (
            r".* is not (known here|a status for this), .*|cannot be used, 2 or 5",
            N_("Choose one that is offered."),
        ),
    )
)
WHYS: Rows = tuple(
    (re.compile(form), words)
    for form, words in (
        (r"there is a customer with this name already", N_("There is a customer of this name already.")),
        (
            r"there is a customer with this external_id already",
            N_("Another customer has this external id."),
        ),
        (r"there is no such customer", N_("There is no such customer.")),
        (
            r"you are new here: .*",
            N_("Your sign-in is new here: in a week you may do this, or once an owner has saved your role again."),
        ),
        (r"the key is revoked already", N_("The key is revoked already.")),
        (r"there is no such key", N_("There is no such key.")),
        (r"the customer has no plan, and so no prices: .*", N_("Without a plan there are no prices. Choose a meter.")),
        (
            r"the \w+ would be wider than your keys have them: .*",
            N_("This would be wider than your keys are. The provider can do that."),
        ),
        (r"the customer is being deleted", N_("The customer is being deleted.")),
        (r"the customer is not being deleted", N_("The customer is not being deleted.")),
        (
            r"the customer is on its way to .*",
            N_("The account is being moved to another region. It can be deleted once that is done."),
        ),
        (r"the customer is erased: .*", N_("The customer is erased: keys and settings are gone.")),
        (
            r"the (customer|key) has changed meanwhile",
            N_("It has changed meanwhile. Look at it again."),
        ),
        (
            r"the customer has (?P<count>\d+) keys, and \d+ is as many as there may be",
            N_("The customer has %(count)s keys, as many as there may be. Revoke one first."),
        ),
        (r"it has been rotated already, .*", N_("The key has been rotated already.")),
        (r"it has been revoked.*|the key is (revoked|expired): .*", N_("The key has ended: make a new one.")),
        (r"(?P<who>.+) has acknowledged it, at .*", N_("%(who)s has acknowledged it already.")),
        (r"tick the alerts to acknowledge", N_("Tick the alerts that you have seen.")),
        (r"there is no such alert", N_("There is no such alert.")),
        (r"the invoice is (?P<state>\w+): .*", N_("That cannot be done with the invoice as it is now.")),
        (r"the maintenance has begun: .*", N_("It has begun: change its end alone.")),
        (r"the maintenance is \w+: .*", N_("It is over or cancelled: announce another one.")),
        (r"it has \d+ updates, .*", N_("The incident has as many updates as there may be.")),
        (
            r"nobody is charged already: (?P<who>.+) has stopped it",
            N_("%(who)s has stopped charging already."),
        ),
        (r"customers are charged already", N_("Customers are charged already.")),
        (r"there is a token (?P<name>.+) already", N_("There is a token %(name)s already.")),
        (r"write (?P<name>.+) to have it deleted", N_("Write %(name)s to say that you mean it.")),
        (r"the form is not whole: .*", N_("The form is not whole: open the page again.")),
        (r"others change the same now", N_("Others are changing the same now. Try again.")),
        (
            r"insufficient_user_authentication: sign in again; .*",
            N_("This asks for a sign-in within the last 10 minutes."),
        ),
        (
            r"Stripe (cannot be reached now|has not answered in time)",
            N_("Stripe does not answer now. Look at the details below before you try again: some may be changed."),
        ),
        (
            r"too many mails were asked for from your network: try again in (?P<minutes>\d+) minutes",
            N_("Too many mails were asked for from your network. None was sent. Try again in %(minutes)s min."),
        ),
        (
            r"too many mails were asked for: try again in (?P<minutes>\d+) minutes",
            N_("Too many mails were asked for. None was sent. Try again in %(minutes)s min."),
        ),
        (r"it is too large for a download: .*", N_("It is too large for a download: ask your provider for it.")),
        (r"insufficient_user_authentication: .*", N_("This asks for a second factor, shown within the last minutes.")),
    )
)


def explain_field(detail: str, say: Say) -> str | None:
    """Return the error of a field in the reader's language, or None if no row matches."""
    return _find(FIELDS, detail, say)


def explain_why(why: str, say: Say) -> str | None:
    """Return the reason for a failed request in the reader's language, or None if no row matches."""
    if why in REASONS:
        return say(REASONS[why])
    return _find(WHYS, why, say)


def _find(rows: Rows, written: str, say: Say) -> str | None:
    for form, words in rows:
        if match := form.fullmatch(written):
            return say(words) % match.groupdict()
    return None
