"""Invitations: a mail to a contact of a customer, with a link that signs in once.

The link is created only for an existing contact. The contact could request such a link anyway, and the link of a
removed contact does not work.
"""

import time

from edgeproxy.base import log
from edgeproxy.collector.accounts.contacts import format_label
from edgeproxy.collector.accounts.shown_names import find_shown_name
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.mails import mail
from edgeproxy.collector.pages import sessions
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages.sign_in import format_link
from edgeproxy.collector.pages.site import PageError, Visit
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.pages import MAILBOX

INVITATION_SECONDS = 7 * 86400
INVITATIONS_PER_ADDRESS = 2
"""Most valid invitations of one address and customer. One more link is reserved for a request at the sign-in."""
INVITATIONS_PER_PERSON = 10
"""Most valid invitations of one address by all customers, since anyone may sign up several. Others are not mailed."""
INVITATIONS_PER_CUSTOMER = 50
"""Most invitations by a customer in INVITATION_SECONDS. Customers may enter any address, so it limits unwanted mail."""


async def require_allowance(visit: Visit, customer: str, email: str) -> None:
    """Raise PageError if a customer may send no more invitations."""
    link = Link(format_label(email), customer)
    async with visit.site.database.reading() as connection:
        counts = await sessions.count_invitations(connection, link, time.time())
    if counts.of_customer >= INVITATIONS_PER_CUSTOMER:
        raise PageError(page_codes.INVITATIONS_EXCEEDED, "as many invitations as a week may have were sent")
    if counts.of_both >= INVITATIONS_PER_ADDRESS:
        raise PageError(page_codes.INVITATION_SENT, "invitations to this address are on their way")


async def send_invitation(visit: Visit, customer: str, email: str) -> str:
    """Mail an invitation. Return the message for the next page."""
    settings, now = visit.site.settings.mail, time.time()
    assert settings is not None
    link = Link(format_label(email), customer)
    async with visit.site.database.writing() as connection:
        counts, secret = await sessions.count_invitations(connection, link, now), None
        if counts.of_customer < INVITATIONS_PER_CUSTOMER and counts.of_person < INVITATIONS_PER_PERSON:
            secret = await sessions.create_link(connection, link, now, INVITATION_SECONDS, INVITATIONS_PER_ADDRESS)
    if secret is None:
        return "not-mailed"
    url, days = format_link(visit.site.url, secret), INVITATION_SECONDS // 86400
    say = load_catalog(visit.reader.language).gettext
    label = visit.signed_in.who.label.partition(":")[2]
    inviter = label if MAILBOX.fullmatch(label) else say("Operator")
    name = await find_shown_name(visit.site.database, customer)
    text = visit.render_text("invitation.txt", customer=name, inviter=inviter, link=url, days=days)
    subject, _, body = text.strip().partition("\n\n")
    html = visit.render_mail(subject, body, [url], say("Sign in"))
    try:
        await mail.send_message(settings, mail.create_message(settings.sender, email, subject, body, html))
    except mail.MAIL_ERRORS as error:
        log.get_logger().error("an invitation could not be mailed", why=str(error)[:200])
        return "not-mailed"
    return "invited"
