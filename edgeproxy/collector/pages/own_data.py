"""The page of a customer's own data: an owner downloads it, or begins to delete the account.

Both need a recent sign-in, which the API checks. A contact has no second factor. A person who finds an open page has
access neither to the mailbox nor to the account at the issuer.
"""

import time

from aiohttp import web

from edgeproxy.collector.accounts.pseudonyms import find_display_name
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.pages.site import SIGN_IN, Page, PageError, Visit
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.operators import is_factor_recent

ROOT = "/account/data"
CUSTOMER = "/v1/customers/{customer}"


def list_pages() -> list[Page]:
    """Return the page, and its forms."""
    return [
        Page("GET", ROOT, "customer", show_data),
        Page("POST", f"{ROOT}/download", "customer", download),
        Page("POST", f"{ROOT}/delete", "customer", delete),
    ]


async def show_data(visit: Visit) -> web.Response:
    """Show the actions for all data of the account."""
    session = visit.signed_in
    account = await visit.fetch("GET", CUSTOMER)
    seconds = visit.site.settings_now().retention.deleted
    way = f"{SIGN_IN}/customer?again=1&next={ROOT}" if session.who.by_issuer else f"{SIGN_IN}?next={ROOT}"
    return visit.render(
        "own_data.html",
        account=account,
        days=None if seconds is None else round(seconds * 1000 / DAY_MS),
        sign_in_again=None if is_factor_recent(session.signed_in_at, time.time()) else way,
    )


async def download(visit: Visit) -> web.Response:
    """Send the archive of the account."""
    return visit.send_file(await visit.require("GET", f"{CUSTOMER}/data"))


async def delete(visit: Visit) -> web.Response:
    """Begin to delete the account. The form must repeat its name."""
    name = await find_display_name(visit.site.database, visit.customer)
    if visit.read_field("name").strip() != name:
        raise PageError(page_codes.NAME_NOT_CONFIRMED, f"write {name} to have it deleted", params={"name": name})
    await visit.fetch("DELETE", CUSTOMER)
    return visit.redirect(ROOT, done="account-deleting")
