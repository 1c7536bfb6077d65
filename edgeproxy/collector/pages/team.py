"""The page of a customer's people, who may sign in, with their roles."""

from aiohttp import web

from edgeproxy.collector.accounts.contact_roles import CONTACT_ROLES
from edgeproxy.collector.pages import invitations
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.pages import MAILBOX

ROOT = "/account/team"
CONTACTS = "/v1/customers/{customer}/contacts"


def list_pages() -> list[Page]:
    """Return the page of a customer's people, and its forms."""
    forms = (("invite", invite), ("invite-again", invite_again), ("role", change_role), ("remove", remove))
    return [
        Page("GET", ROOT, "customer", show_team),
        *(Page("POST", f"{ROOT}/{name}", "customer", handler) for name, handler in forms),
    ]


async def show_team(visit: Visit) -> web.Response:
    """Show the people who may sign in."""
    people = await visit.fetch("GET", CONTACTS)
    is_mailed = visit.site.settings.mail is not None
    return visit.render("team.html", people=people["contacts"], roles=CONTACT_ROLES, is_mailed=is_mailed)


async def invite(visit: Visit) -> web.Response:
    """Add a colleague, and mail an invitation if the collector can send mail."""
    email, is_mailed = visit.read_field("email").strip().lower(), visit.site.settings.mail is not None
    if is_mailed and MAILBOX.fullmatch(email):
        await invitations.require_allowance(visit, visit.customer, email)  # Before anything is changed.
    await _put(visit, email, visit.read_field("role"))
    return visit.redirect(
        ROOT, done=await invitations.send_invitation(visit, visit.customer, email) if is_mailed else "added"
    )


async def invite_again(visit: Visit) -> web.Response:
    """Mail another invitation to a colleague."""
    email = visit.read_field("email")
    people = await visit.fetch("GET", CONTACTS)
    if email not in people["emails"] or visit.site.settings.mail is None:
        raise PageError(page_codes.PAGE_NOT_FOUND, "there is no such page")
    await invitations.require_allowance(visit, visit.customer, email)
    return visit.redirect(ROOT, done=await invitations.send_invitation(visit, visit.customer, email))


async def change_role(visit: Visit) -> web.Response:
    """Change a colleague's role."""
    await _put(visit, visit.read_field("email"), visit.read_field("role"))
    return visit.redirect(ROOT, done="role")


async def remove(visit: Visit) -> web.Response:
    """Remove a colleague. The colleague's sessions end."""
    body = {"email": visit.read_field("email")}
    await visit.fetch("POST", f"{CONTACTS}/remove", body=body)
    return visit.redirect(ROOT, done="removed")


async def _put(visit: Visit, email: str, role: str) -> None:
    body = {"email": email, "role": role}
    await visit.fetch("POST", CONTACTS, body=body)
