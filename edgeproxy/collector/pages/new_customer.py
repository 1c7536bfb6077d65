"""The console's form for a new customer: its displayed name, plan, first key and first contact.

The id for keys, URLs and edges is derived from the name. The entered name is stored as `name` in the metadata.
"""

import re
import secrets
import unicodedata

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.contact_roles import OWNER
from edgeproxy.collector.accounts.shown_names import NAME_FIELD
from edgeproxy.collector.pages import invitations, keys
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import ApiRefusedError, Page, PageError, Visit, format_path
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.allowance import ANONYMOUS
from edgeproxy.config.field_codes import MISSING

ROOT = "/console/customers"
CUSTOMER = "/console/customers/{customer}"
NAMELESS = "customer"
"""The id for a name without Latin letters and digits."""
ID_CHARACTERS_MAX = 48
IDS_MAX = 5
"""Ids that are tried for a name, before one with random digits."""
LOOKS_LIKE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|c_[0-9a-z]+")


def list_pages() -> list[Page]:
    """Return the form's page and its target."""
    return [
        Page("GET", "/console/new-customer", "operator", show_form),
        Page("POST", ROOT, "operator", create_customer),
    ]


async def show_form(visit: Visit) -> web.Response:
    """Show the form of a new customer, with the plans on sale."""
    plans: list[JsonDocument] = []
    if visit.site.settings_now().billing is not None:
        sold = await visit.call("GET", "/billing/plans")
        plans = sold.body["plans"] if sold.is_success else []
    is_mailed = visit.site.settings.mail is not None
    tiers = sorted(visit.site.tiers.keys() - {ANONYMOUS})
    sign_up = visit.site.settings.sign_up
    usual = None if sign_up is None else sign_up.tier
    return visit.render("new_customer.html", tiers=tiers, usual=usual, plans=plans, is_mailed=is_mailed)


async def create_customer(visit: Visit) -> web.Response:
    """Create a customer with plan, contact and key. Once it exists, failures of other parts are named on its page."""
    shown = " ".join(visit.read_field("name").split())
    if not shown:
        raise PageError(
            request_codes.FIELDS_INVALID,
            "some fields cannot be used",
            [FieldFault("name", "is missing, write a name", MISSING)],
        )
    customer = await _create(visit, shown)
    names, has_failed = {"customer": customer}, False
    if plan := visit.read_field("plan"):
        body: JsonObject = {"plan": plan}
        response = await visit.call("POST", "/billing/subscription", query={"customer": customer}, body=body)
        has_failed |= not response.is_success
    if email := visit.read_field("email").strip().lower():
        body = {"email": email, "role": OWNER}
        response = await visit.call("POST", "/v1/customers/{customer}/contacts", names=names, body=body)
        has_failed |= not response.is_success
        if response.is_success and visit.site.settings.mail is not None:
            has_failed |= await invitations.send_invitation(visit, customer, email) != "invited"
    page = format_path(CUSTOMER, customer=customer)
    if visit.form.get("key") and not has_failed:
        return await keys.show_new_key(visit, customer, {}, page, f"{keys.read_idempotency_key(visit)}k")
    return visit.redirect(page, done="created-partly" if has_failed else "created")


async def _create(visit: Visit, shown: str) -> str:
    """Create a customer with the first free id for its name, and return the id."""
    base, once = build_id(shown), keys.read_idempotency_key(visit)
    ids = [base, *(f"{base}-{number}" for number in range(2, IDS_MAX + 1)), f"{base}-{secrets.token_hex(4)}"]
    body: JsonObject = {"tier": visit.read_field("tier").strip()}
    if external_id := visit.read_field("external_id").strip():
        body["external_id"] = external_id
    if shown != base:
        body["metadata"] = {NAME_FIELD: shown}
    for place, name in enumerate(ids):
        response = await visit.call("POST", "/v1/customers", body={**body, "name": name}, once=f"{once}{place}")
        if response.is_success:
            return str(response.body["name"])
        if response.body.get("code") != account_codes.CUSTOMER_EXISTS.name:
            raise ApiRefusedError(response)
    raise PageError(account_codes.CUSTOMER_EXISTS, "there is a customer with this name already")


def build_id(shown: str) -> str:
    """Return the id for a name: `Zephyr GmbH & Co` becomes `zephyr-gmbh-co`, and no Latin letters become `customer`."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", shown) and not LOOKS_LIKE_ID.fullmatch(shown):
        return shown
    plain = unicodedata.normalize("NFKD", shown.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain)[:ID_CHARACTERS_MAX].strip("-")
    return NAMELESS if not name or LOOKS_LIKE_ID.fullmatch(name) else name
