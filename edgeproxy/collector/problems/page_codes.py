"""The problems of pages alone."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.marks import N_

PAGE_NOT_FOUND: Final = ProblemCode(
    "page-not-found",
    404,
    "There is no such page.",
    "Follow a link of the pages.",
    N_("The address may be mistyped, or what it showed is gone."),
)
PAGE_DENIED: Final = ProblemCode(
    "page-denied",
    403,
    "The page is for another role.",
    "Sign in as another person.",
    N_("Your roles do not allow this page."),
)
PAGES_EXCEEDED: Final = ProblemCode(
    "pages-exceeded",
    429,
    "The visitor has opened too many pages in a minute.",
    "Wait for `Retry-After`.",
    N_("You have opened too many pages. Wait a minute."),
)
SESSION_ENDED: Final = ProblemCode(
    "session-ended", 401, "The session has ended.", "Sign in, and send the form again.", N_("The session has ended.")
)
SESSION_UNCONFIRMED: Final = ProblemCode(
    "session-unconfirmed",
    401,
    "The session has to be confirmed at the issuer.",
    "Open the page again, and send the form again.",
    N_("The session has to be confirmed."),
)
FORM_OF_ANOTHER_SESSION: Final = ProblemCode(
    "form-of-another-session",
    403,
    "The form is of another session.",
    "Open the page again.",
    N_("The form is of another session: open the page again."),
)
FORM_OF_ANOTHER_SITE: Final = ProblemCode(
    "form-of-another-site",
    403,
    "No page of this site sent the form.",
    "Open the page here.",
    N_("The form was not sent by a page of this site."),
)
FORM_TYPE_UNSUPPORTED: Final = ProblemCode(
    "form-type-unsupported",
    415,
    "The form is in another coding.",
    "Send `application/x-www-form-urlencoded`.",
    N_("The form cannot be read."),
)
FORM_TOO_LARGE: Final = ProblemCode(
    "form-too-large", 413, "The form has too many bytes.", "Write less.", N_("The form is too large.")
)
FORM_TOO_SLOW: Final = ProblemCode(
    "form-too-slow", 408, "The form took too long.", "Send it again.", N_("The form came too slowly.")
)
FORM_UNREADABLE: Final = ProblemCode(
    "form-unreadable", 400, "The form cannot be read.", "Open the page again.", N_("The form cannot be read.")
)
FORM_INCOMPLETE: Final = ProblemCode(
    "form-incomplete",
    422,
    "The form lacks a field, or has a value that the page does not offer.",
    "Open the page again.",
    N_("The form is not whole: open the page again."),
)
ALERTS_NOT_TICKED: Final = ProblemCode(
    "alerts-not-ticked", 422, "No alert is ticked.", "Tick the alerts.", N_("Tick the alerts that you have seen.")
)
NAME_NOT_CONFIRMED: Final = ProblemCode(
    "name-not-confirmed",
    422,
    "The name was not written as a confirmation.",
    "Write the name.",
    N_("Type %(name)s to confirm."),
)
EMAIL_INVALID: Final = ProblemCode(
    "email-invalid",
    422,
    "The text is no e-mail address.",
    "Write an address such as `ann@example.com`.",
    N_("This is not an e-mail address."),
)
AMOUNT_INVALID: Final = ProblemCode(
    "amount-invalid",
    422,
    "The amount cannot be read.",
    "Write an amount such as the one shown.",
    N_("Write an amount such as %(example)s."),
)
AMOUNT_NOT_SOLD: Final = ProblemCode(
    "amount-not-sold",
    422,
    "This amount is not sold.",
    "Write an amount within the bounds shown.",
    N_("Write an amount from %(least)s to %(most)s %(currency)s, in whole parts of %(step)s."),
)
PERCENT_INVALID: Final = ProblemCode(
    "percent-invalid",
    422,
    "The percentage is no whole number from 0 to 100.",
    "Write such a number.",
    N_("Write a whole number from 0 to 100."),
)
QUANTITY_INVALID: Final = ProblemCode(
    "quantity-invalid",
    422,
    "The quantity is no whole number from 1.",
    "Write such a number.",
    N_("Write a whole number from 1."),
)
ROWS_EXCEEDED: Final = ProblemCode(
    "rows-exceeded",
    422,
    "The table has more rows than a file can have.",
    "Choose a shorter time or longer steps.",
    N_("There are more rows than a file has: choose a shorter time or longer steps."),
)
INVITATIONS_EXCEEDED: Final = ProblemCode(
    "invitations-exceeded",
    429,
    "As many invitations as a week may have were sent.",
    "Wait a week.",
    N_("As many invitations as a week may have were sent."),
)
INVITATION_SENT: Final = ProblemCode(
    "invitation-sent",
    409,
    "Invitations to this address are on their way.",
    "Wait for the mail.",
    N_("Invitations to this address are on their way already."),
)
MAILS_EXCEEDED: Final = ProblemCode(
    "mails-exceeded",
    429,
    "Too many mails were asked for.",
    "Wait for `Retry-After`.",
    N_("Too many mails were asked for. None was sent. Try again in %(minutes)s min."),
)
NETWORK_MAILS_EXCEEDED: Final = ProblemCode(
    "network-mails-exceeded",
    429,
    "Too many mails were asked for from one network.",
    "Wait for `Retry-After`.",
    N_("Too many mails were asked for from your network. None was sent. Try again in %(minutes)s min."),
)
MAILS_BUSY: Final = ProblemCode(
    "mails-busy",
    503,
    "Many mails are being sent.",
    "Try again after `Retry-After`.",
    N_("Many mails are being sent now. No link was sent to you. Try again in a minute."),
)
SIGN_IN_EXCEEDED: Final = ProblemCode(
    "sign-in-exceeded",
    429,
    "Too many sign-ins were asked for.",
    "Wait for `Retry-After`.",
    N_("This was asked too often. Try again in a minute."),
)
SIGN_IN_NOT_BEGUN: Final = ProblemCode(
    "sign-in-not-begun",
    400,
    "The sign-in was not begun in this browser, or took too long.",
    "Begin again.",
    N_("The sign-in was not begun here, or took too long: begin again."),
)
SIGN_IN_UNAVAILABLE: Final = ProblemCode(
    "sign-in-unavailable",
    404,
    "There is no sign-in of this kind here.",
    "Use another way to sign in.",
    N_("There is no sign-in of this kind here."),
    has_reason=True,
)
SIGN_IN_UNKNOWN: Final = ProblemCode(
    "sign-in-unknown",
    403,
    "No customer has this address as a contact.",
    "Ask the provider.",
    N_("Nobody has this address as a contact: ask whom you buy from."),
)
LINK_UNUSABLE: Final = ProblemCode(
    "link-unusable",
    403,
    "The link was used, or has ended.",
    "Ask for another one.",
    N_("The link was used already, or has ended: ask for another one."),
)
SUBSCRIPTION_LINK_UNUSABLE: Final = ProblemCode(
    "subscription-link-unusable",
    404,
    "The link of the subscription was used, or has ended.",
    "Subscribe again.",
    N_("The link was used already, or has ended: ask for another one."),
)
SUBSCRIBERS_FULL: Final = ProblemCode(
    "subscribers-full",
    503,
    "No more addresses can be subscribed.",
    "Try again later.",
    N_("No more addresses can be subscribed. No mail was sent."),
)
SIGN_UPS_EXCEEDED: Final = ProblemCode(
    "sign-ups-exceeded",
    429,
    "Too many people sign up.",
    "Try again in an hour.",
    N_("Too many people sign up now. Try again in an hour."),
)
SIGN_UP_FAILED: Final = ProblemCode(
    "sign-up-failed", 503, "The account cannot be created.", "Try again later.", N_("An account cannot be created now.")
)
INCIDENT_NOT_FOUND: Final = ProblemCode(
    "incident-not-found",
    404,
    "There is no such incident.",
    "Read the list of the incidents.",
    N_("There is no such incident."),
)
INCIDENT_UPDATES_FULL: Final = ProblemCode(
    "incident-updates-full",
    409,
    "The incident has as many updates as there may be.",
    "Open another incident.",
    N_("The incident has as many updates as there may be."),
)
MAINTENANCE_NOT_FOUND: Final = ProblemCode(
    "maintenance-not-found",
    404,
    "There is no such maintenance.",
    "Read the list of the maintenance.",
    N_("There is no such maintenance."),
)
MAINTENANCE_ENDED: Final = ProblemCode(
    "maintenance-ended",
    409,
    "The maintenance is over or cancelled.",
    "Announce another one.",
    N_("It is over or cancelled: announce another one."),
)
MAINTENANCE_BEGUN: Final = ProblemCode(
    "maintenance-begun", 409, "The maintenance has begun.", "Change its end.", N_("It has begun: change its end alone.")
)
