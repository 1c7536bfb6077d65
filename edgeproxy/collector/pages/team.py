"""The page of a customer's people: who may sign in, in which role, and invitations by mail.

An invitation is a link that signs in once. It is made for a contact who is there already, so it gives nothing that the
contact could not have by asking for a link, and nothing to whoever was removed.
"""

import time

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.collector.accounts.contact_roles import CONTACT_ROLES
from edgeproxy.collector.accounts.contacts import format_label
from edgeproxy.collector.accounts.pseudonyms import find_display_name
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.mails import mail
from edgeproxy.collector.pages import sessions
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages.sign_in import format_link
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.config.collector.pages import MAILBOX

ROOT = "/account/team"
INVITATION_SECONDS = 7 * 86400
INVITATIONS_PER_ADDRESS = 2
"""Usable invitations of one address and customer; one link is left to who asks for it at the sign-in."""
INVITATIONS_PER_PERSON = 10
"""Usable invitations of one address by all customers, as anybody may become some; further ones are not mailed."""
INVITATIONS_PER_CUSTOMER = 50
"""Invitations of a customer in INVITATION_SECONDS, to whomever: they are mail to addresses that anybody may write."""
CONTACTS = "/v1/customers/{customer}/contacts"


def list_pages() -> list[Page]:
    """Return the page of a customer's people, and its forms."""
    forms = (("invite", invite), ("invite-again", invite_again), ("role", change_role), ("remove", remove))
    return [
        Page("GET", ROOT, "customer", show_team),
        *(Page("POST", f"{ROOT}/{name}", "customer", handler) for name, handler in forms),
    ]


async def show_team(visit: Visit) -> web.Response:
    """Show who may sign in."""
    people = await visit.fetch("GET", CONTACTS, names={"customer": visit.customer})
    is_mailed = visit.site.settings.mail is not None
    return visit.render("team.html", people=people["contacts"], roles=CONTACT_ROLES, is_mailed=is_mailed)


async def invite(visit: Visit) -> web.Response:
    """Add a colleague, and mail an invitation where the collector sends mails."""
    email, is_mailed = visit.form.get("email", "").strip().lower(), visit.site.settings.mail is not None
    if is_mailed and MAILBOX.fullmatch(email):
        await _require_allowance(visit, email)  # Before anything is changed.
    await _put(visit, email, visit.form.get("role", ""))
    return visit.redirect(ROOT, done=await _send_invitation(visit, email) if is_mailed else "added")


async def invite_again(visit: Visit) -> web.Response:
    """Mail another invitation to a colleague."""
    email = visit.form.get("email", "")
    people = await visit.fetch("GET", CONTACTS, names={"customer": visit.customer})
    if email not in people["emails"] or visit.site.settings.mail is None:
        raise PageError(404, "there is no such page")
    await _require_allowance(visit, email)
    return visit.redirect(ROOT, done=await _send_invitation(visit, email))


async def change_role(visit: Visit) -> web.Response:
    """Give a colleague another role."""
    await _put(visit, visit.form.get("email", ""), visit.form.get("role", ""))
    return visit.redirect(ROOT, done="role")


async def remove(visit: Visit) -> web.Response:
    """Remove a colleague, whose sessions end."""
    names, body = {"customer": visit.customer}, {"email": visit.form.get("email", "")}
    await visit.fetch("POST", f"{CONTACTS}/remove", names=names, body=body)
    return visit.redirect(ROOT, done="removed")


async def _put(visit: Visit, email: str, role: str) -> None:
    body = {"email": email, "role": role}
    await visit.fetch("POST", CONTACTS, names={"customer": visit.customer}, body=body)


async def _require_allowance(visit: Visit, email: str) -> None:
    """Raise PageError where a customer has sent as many invitations as it may."""
    link = Link(format_label(email), visit.customer)
    async with visit.site.database.reading() as connection:
        counts = await sessions.count_invitations(connection, link, time.time())
    if counts.of_customer >= INVITATIONS_PER_CUSTOMER:
        raise PageError(429, "as many invitations as a week may have were sent")
    if counts.of_both >= INVITATIONS_PER_ADDRESS:
        raise PageError(409, "invitations to this address are on their way")


async def _send_invitation(visit: Visit, email: str) -> str:
    """Mail an invitation; return the message for the page that follows."""
    settings, now = visit.site.settings.mail, time.time()
    assert settings is not None
    link = Link(format_label(email), visit.customer)
    async with visit.site.database.writing() as connection:
        counts, secret = await sessions.count_invitations(connection, link, now), None
        if counts.of_customer < INVITATIONS_PER_CUSTOMER and counts.of_person < INVITATIONS_PER_PERSON:
            secret = await sessions.create_link(connection, link, now, INVITATION_SECONDS, INVITATIONS_PER_ADDRESS)
    if secret is None:
        return "not-mailed"
    url, days = format_link(visit.site.url, secret), INVITATION_SECONDS // 86400
    inviter = visit.signed_in.who.label.partition(":")[2]
    name = await find_display_name(visit.site.database, visit.customer)
    text = visit.render_text("invitation.txt", customer=name, inviter=inviter, link=url, days=days)
    subject, _, body = text.strip().partition("\n\n")
    html = visit.render_mail(subject, body, [url], load_catalog(visit.reader.language).gettext("Sign in"))
    try:
        await mail.send_message(settings, mail.create_message(settings.sender, email, subject, body, html))
    except mail.MAIL_ERRORS as error:
        log.get_logger().error("an invitation could not be mailed", why=str(error)[:200])
        return "not-mailed"
    return "invited"
