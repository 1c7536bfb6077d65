"""The forms that create, rotate and revoke keys, for operators and customers. Operators may also restore a key."""

import re
from collections.abc import Iterable, Mapping, Sequence

import orjson
from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages import get_started
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.list_pages import fetch_from, fetch_list, send_list
from edgeproxy.collector.pages.lists import Column, Listing, sort_by
from edgeproxy.collector.pages.site import Audience, Page, PageError, Visit, format_path
from edgeproxy.collector.problems import account_codes, page_codes
from edgeproxy.config.collector.currency_units import to_decimal
from edgeproxy.wire.key_uses import USAGE_KEY_DIGITS

CUSTOMER = "/console/customers/{customer}"
KEYS = "/v1/customers/{customer}/keys"
PUBLIC_KEY = "/v1/customers/{customer}/public-key"
LISTING = Listing(
    "keys",
    (
        Column("start", N_("Begins with")),
        Column("name", N_("Name")),
        Column("state", N_("State")),
        Column("created_at", N_("Created")),
        Column("last_used_on", N_("Last used")),
        Column("budget", N_("Budget")),
    ),
    sort_by("created_at", "name", "-last_used_on"),
    more=(Column("id", ""), Column("expires_at", ""), Column("rotate_by", "")),
    rows_max=20,  # Each key has three forms, and a page stays below 90 KB.
)
BESIDE_MAX = 4
"""Keys on the page of a customer. It also has charts of all meters and must stay below 90 KB."""
DUE_MAX = 10
"""Most due keys that a page lists."""

USAGE_KEY = re.compile(f"[0-9a-f]{{{USAGE_KEY_DIGITS}}}")
LABELS_MAX = 100
"""Most keys shown by name on pages of usage."""


def list_forms(root: str, who: Audience) -> list[Page]:
    """Return the forms of keys below the path `root`."""
    operators = [
        Page("POST", f"{root}/keys/leaked", who, revoke_leaked_key),
        Page("POST", f"{root}/keys/{{key}}/restore", who, restore_key),
    ]
    return [
        Page("GET", f"{CUSTOMER if who == 'operator' else root}/keys/csv", who, send_keys),
        Page("POST", f"{root}/keys/{{key}}/rotate", who, rotate_key),
        Page("POST", f"{root}/keys/{{key}}/revoke", who, revoke_key),
        Page("POST", f"{root}/keys/{{key}}/budget", who, change_budget),
        *(operators if who == "operator" else []),
    ]


async def list_keys(visit: Visit, customer: str, listing: Listing = LISTING) -> dict[str, object]:
    """Return a page of a customer's keys with the values for its template."""
    view = await fetch_list(visit, listing, fetch_from(visit, listing, KEYS, customer=customer))
    budgets = await fetch_budgets(visit, customer, [key["id"] for key in view.rows])
    return {"keys": view, "customer": customer, "budgets": budgets, "to_decimal": to_decimal}


async def fetch_budgets(visit: Visit, customer: str, keys: Sequence[str]) -> dict[str, JsonDocument]:
    """Return the budgets of a customer's keys, at most 100 of them, by the id of the key."""
    if not keys:
        return {}
    names, query = {"customer": customer}, {"key": ",".join(keys)}
    listed = await visit.fetch("GET", "/v1/customers/{customer}/key-budgets", names=names, query=query)
    return {budget["key"]: budget for budget in listed["budgets"]}


async def fetch_labels(visit: Visit, customer: str, usage_keys: Iterable[str]) -> Mapping[str, str]:
    """Return the labels of the keys that usage lists by id: the name and first characters of each.

    Other ids have no label, for example the subject of a token. A contact without the right to see keys gets no labels.
    """
    ids = [usage_key for usage_key in usage_keys if USAGE_KEY.fullmatch(usage_key)][:LABELS_MAX]
    if not ids:
        return {}
    query = {"usage_key": ",".join(ids), "limit": str(LABELS_MAX)}
    response = await visit.call("GET", KEYS, names={"customer": customer}, query=query)
    listed = response.body["keys"] if response.is_success else ()
    return {key["usage_key"]: f"{key['name']} ({key['start']})" if key["name"] else key["start"] for key in listed}


async def send_keys(visit: Visit) -> web.Response:
    """Send a customer's keys as a file without secrets."""
    customer = visit.signed_in.who.customer or visit.path_parameter("customer")
    return await send_list(visit, LISTING, fetch_from(visit, LISTING, KEYS, customer=customer))


async def fetch_due_keys(visit: Visit, customer: str) -> dict[str, object]:
    """Return the keys that the customer must rotate here, oldest first, and the seconds until an old key stops working.

    If new keys are sent to webhooks, `rotation` is the state of the delivery. There are no keys if the settings do not
    let customers rotate keys, or if the contact may not.
    """
    rotation = visit.site.settings_now().rotation
    if rotation is None or not visit.signed_in.who.builds:
        return {"due_keys": [], "overlap": 0.0, "rotation": None}
    state = None
    if rotation.deliver == "webhook":
        state = await visit.fetch("GET", "/v1/customers/{customer}/key-rotation", names={"customer": customer})
    query = {"due": "true", "limit": str(DUE_MAX)}
    body = await visit.fetch("GET", "/v1/customers/{customer}/keys", names={"customer": customer}, query=query)
    return {"due_keys": body["keys"], "overlap": rotation.grace, "rotation": state}


async def put_public_key(visit: Visit) -> web.Response:
    """Register the public key for encrypting new keys."""
    try:
        jwk = orjson.loads(visit.read_field("jwk"))
    except orjson.JSONDecodeError:
        jwk = None
    body: JsonObject = {"jwk": jwk if isinstance(jwk, dict) else {}}
    await visit.fetch("PUT", PUBLIC_KEY, body=body)
    return visit.redirect("/account/keys", done="changed")


async def delete_public_key(visit: Visit) -> web.Response:
    """Remove the public key."""
    await visit.fetch("DELETE", PUBLIC_KEY)
    return visit.redirect("/account/keys", done="changed")


async def create_key(visit: Visit, customer: str, back: str) -> web.Response:
    """Create a key and show its secret. No later page shows it."""
    body: JsonObject = {}
    if name := visit.read_field("name").strip():
        body["name"] = name
    if expires := visit.read_field("expires").strip():
        body["expires_at"] = expires
    if budget := visit.read_field("budget").strip():
        body["budget"] = budget
    return await show_new_key(visit, customer, body, back, read_idempotency_key(visit))


async def show_new_key(visit: Visit, customer: str, body: JsonObject, back: str, once: str) -> web.Response:
    """Create a key once from a body, and show its secret."""
    names = {"customer": customer}
    key = await visit.fetch("POST", "/v1/customers/{customer}/keys", names=names, body=body, once=once)
    return visit.render("key_secret.html", key=key, back=back, **get_started.build_values(visit, key))


async def rotate_key(visit: Visit) -> web.Response:
    """Rotate a key and show the successor's secret. No later page shows it."""
    body = {"overlap": visit.form["overlap"]} if "overlap" in visit.form else {}
    key = await visit.fetch("POST", "/v1/keys/{key}/rotate", body=body, once=read_idempotency_key(visit))
    back, values = find_keys_page(visit, key["customer"]), get_started.build_values(visit, key)
    replaced = await visit.call("GET", "/v1/keys/{key}")
    if replaced.is_success:  # The new secret is shown in any case: no later page has it.
        values["before"] = replaced.body
    return visit.render("key_secret.html", key=key, back=back, **values)


async def revoke_key(visit: Visit) -> web.Response:
    """Revoke a key."""
    key = await visit.fetch("DELETE", "/v1/keys/{key}")
    return visit.redirect(find_keys_page(visit, key["customer"]), done="revoked")


async def change_budget(visit: Visit) -> web.Response:
    """Change the budget of a key, or remove it."""
    body = {"budget": visit.read_field("budget").strip() or None}
    key = await visit.fetch("PATCH", "/v1/keys/{key}", body=body)
    return visit.redirect(find_keys_page(visit, key["customer"]), done="changed")


async def revoke_leaked_key(visit: Visit) -> web.Response:
    """Revoke a pasted key and show its customer. The key is in no URL and is not shown again."""
    body = {"key": visit.read_field("key").strip()}
    key = await visit.fetch("POST", "/v1/keys/find", body=body)
    if key["state"] == "revoked":
        raise PageError(account_codes.KEY_REVOKED, "the key is revoked already")
    await visit.fetch("POST", "/v1/keys/leaked", body=body)
    return visit.redirect(find_keys_page(visit, key["customer"]), done="leaked")


async def restore_key(visit: Visit) -> web.Response:
    """Restore a revoked key."""
    key = await visit.fetch("POST", "/v1/keys/{key}/restore")
    return visit.redirect(find_keys_page(visit, key["customer"]), done="key-restored")


def find_keys_page(visit: Visit, customer: str) -> str:
    """Return the path of the page with a customer's keys."""
    return "/account/keys" if visit.signed_in.who.customer else format_path(CUSTOMER, customer=customer)


def read_idempotency_key(visit: Visit) -> str:
    """Return a form's Idempotency-Key. Repeated forms are applied once. Raises PageError."""
    once = visit.read_field("once")
    if not (16 <= len(once) <= 64 and once.isalnum() and once.isascii()):
        raise PageError(page_codes.FORM_INCOMPLETE, "the form is not whole: open the page again")
    return once
