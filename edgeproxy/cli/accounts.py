"""Commands about customers, keys and tokens of a collector: `customers …`, `keys …`, `tokens …`."""

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import quote

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Url, show, table
from edgeproxy.cli.endpoint_commands import (
    CUSTOMER,
    DRY_RUN,
    REQUIRED,
    WHY,
    Arguments,
    Parameter,
    Rows,
    Sentence,
    argument,
    build_command,
    option,
    print_secret,
    select_arguments,
    switch,
)
from edgeproxy.cli.outcome import fail
from edgeproxy.collector.accounts.fields import LEAKED_KEYS_MAX
from edgeproxy.config.key_form import FORM, START_CHARACTERS

KEY_MARK = "_v1_"
"""The mark of keys that the product creates, after their prefix."""
CUSTOMER_PATH = "/v1/customers/{customer}"
RAISE_PATH = f"{CUSTOMER_PATH}/limits/raise"
KEY_PATH = "/v1/keys/{key}"
TOKEN_PATH = "/v1/tokens/{name}"
BUDGET_HELP = "Most that it may use: $50/month, or 1000000 tokens/day of a meter."
ROTATION_COLUMNS = ("start", "name", "state", "delivery", "rotate_by", "expires_at", "id", "next_key")


def _parse_fields(_: Api, arguments: Arguments) -> JsonObject:
    """Parse the values of --set: each is JSON, else text."""
    values: JsonObject = {}
    for field in arguments["fields"] or ():
        name, equals, value = field.partition("=")
        if not equals:
            fail(f"--set: {field!r} is not FIELD=VALUE", 2)
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _build_customer(api: Api, arguments: Arguments) -> JsonObject:
    return {"name": arguments["name"], "tier": arguments["tier"], **_parse_fields(api, arguments)}


def _require_fields(fields: list[str] | None) -> list[str]:
    return fields or fail("say what to change: --set FIELD=VALUE", 2)


def _build_pause(_: Api, arguments: Arguments) -> JsonObject:
    return {"paused": {"why": arguments["why"], "status": 402 if arguments["unpaid"] else 403}}


def _build_fields_option(callback: Callable[..., object] | None = None) -> Parameter:
    about = "A field of the customer, its value a text or JSON; repeatable."
    return option("fields", about, "--set", kind=list[str] | None, metavar="FIELD=VALUE", callback=callback)


customers_ls = build_command(
    "List customers.",
    "GET",
    "/v1/customers",
    option("tier", "Those of this tier alone."),
    option("plan", "Those with this plan alone."),
    option("sort", "The order, for example -spent or -overdue."),
    output=Rows(
        "customers",
        (
            *("name", "tier", "plan", "state", "spent", "overdue", "currency", "cap_percent", "last_call_on"),
            *("external_id", "created_at", "id"),
        ),
        is_paged=True,
    ),
)
customers_show = build_command("Show a customer.", "GET", CUSTOMER_PATH, CUSTOMER)
customers_add = build_command(
    "Create a customer.",
    "POST",
    "/v1/customers",
    argument("name", "By which edges and usage know the customer."),
    option("tier", "The tier that the customer pays for.", kind=str, default=REQUIRED),
    _build_fields_option(),
    DRY_RUN,
    body=_build_customer,
    is_created_once=True,
)
customers_change = build_command(
    "Change fields of a customer; FIELD=null takes one away.",
    "PATCH",
    CUSTOMER_PATH,
    CUSTOMER,
    _build_fields_option(_require_fields),
    DRY_RUN,
    body=_parse_fields,
)
customers_pause = build_command(
    "Stop serving a customer for now.",
    "PATCH",
    CUSTOMER_PATH,
    CUSTOMER,
    option("why", "What the customer is told.", kind=str, default=REQUIRED),
    switch("unpaid", "Answer 402 instead of 403.", "--unpaid"),
    body=_build_pause,
)
customers_resume = build_command(
    "Serve a paused customer again.", "PATCH", CUSTOMER_PATH, CUSTOMER, body={"paused": None}
)
customers_raise_limit = build_command(
    "Raise a customer's rates and concurrency for a while; quotas, credits and caps stay.",
    "POST",
    RAISE_PATH,
    CUSTOMER,
    option("factor", "2 or 5: the multiple of the usual rates and concurrency.", kind=int, default=REQUIRED),
    option("for_", "From 1h to 24h; then they fall back.", "--for", kind=str, default=REQUIRED, metavar="TIME"),
    WHY,
    DRY_RUN,
    is_created_once=True,
)
customers_show_raise = build_command(
    "Show whether a customer's limits are raised, and until when.", "GET", RAISE_PATH, CUSTOMER
)
customers_end_raise = build_command("End the raise of a customer's limits now.", "DELETE", RAISE_PATH, CUSTOMER)
customers_delete = build_command(
    "Begin to delete a customer: no edge serves it from then on, and its usage stays.",
    "DELETE",
    CUSTOMER_PATH,
    CUSTOMER,
)


def customers_name(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What a token says of the customer.")],
    back: Annotated[bool, typer.Option("--back", help="Print the subject of a name instead.")] = False,
) -> None:
    """Print the name of the customer for the subject of a token."""
    from edgeproxy.config.subject_names import name_subject, subject_name

    try:
        result = name_subject(subject) if back else subject_name(subject)
    except ValueError:
        result = None
    if result is None:
        fail(f"{subject!r} is not the name of a subject, or has only its hash" if back else "SUBJECT is no text", 2)
    typer.echo(result)


def _hash_key(_: Api, arguments: Arguments) -> str:
    """Return the reference of a key; a secret is replaced by its hash."""
    ref: str = arguments["key"]
    return sha256(ref.encode()).hexdigest() if FORM.fullmatch(ref.encode()) else ref


def _find_shown_key(api: Api, arguments: Arguments) -> str:
    """Return the reference of a key, which may be its first characters."""
    ref = _hash_key(api, arguments)
    return _find_key(api, ref) if KEY_MARK in ref and quote(ref, safe="") == ref else ref


def _find_key(api: Api, start: str) -> str:
    """Return the id of the key that begins with these characters; exits with 1 unless there is exactly one."""
    start = start[: start.index(KEY_MARK) + len(KEY_MARK) + START_CHARACTERS]
    owners = api.fetch_list("/v1/customers", "customers", search=start)
    keys = [key for owner in owners for key in api.fetch_all(api.customer_path(str(owner["id"]), "keys"), "keys")]
    ids = [str(key["id"]) for key in keys if str(key["start"]).startswith(start)]
    if len(ids) != 1:
        unknown = "there is no such key [key-not-found]"
        fail(f"{len(ids)} keys begin with {start}: use an id, {' or '.join(ids)}" if ids else unknown, 1)
    return ids[0]


def _build_key(_: Api, arguments: Arguments) -> JsonObject:
    fields = {
        "name": arguments["name"],
        "scopes": arguments["scope"],
        "expires_at": arguments["expires_at"],
        "prefix": arguments["prefix"],
        "limits": [{"rate": rate} for rate in arguments["rate"] or ()],
        "budget": arguments["budget"],
    }
    return {field: value for field, value in fields.items() if value}


def _print_new_key(created: JsonObject, arguments: Arguments) -> None:
    """Print a key and, with --wait, wait for the edges."""
    print_secret(created, arguments)
    if arguments["wait"]:
        from edgeproxy.cli.propagation import wait_for_edges

        wait_for_edges(Api(arguments["collector"], arguments["ca"]))


def _print_rotation(rotation: JsonObject, arguments: Arguments) -> None:
    _show_rotation(rotation, arguments["as_json"])


KEY = argument("key", "The key's id, as `keys ls` lists it, its secret, or the SHA-256 of that.", compute=_hash_key)
EXPIRES = option("expires_at", "When it ends: 2027-01-01, or RFC 3339.", "--expires", metavar="TIME")

keys_ls = build_command(
    "List the keys of a customer.",
    "GET",
    f"{CUSTOMER_PATH}/keys",
    CUSTOMER,
    switch("due", "Those that are to be rotated alone.", "--due"),
    output=Rows(
        "keys",
        ("start", "name", "state", "created_at", "expires_at", "last_used_on", "rotate_by", "id"),
        is_paged=True,
    ),
)
keys_show = build_command(
    "Show a key, without its secret. The secret itself is hashed here, and not sent.",
    "GET",
    KEY_PATH,
    argument("key", "The key's id, its secret, the SHA-256 of that, or its first characters.", compute=_find_shown_key),
)
keys_add = build_command(
    "Create a key: it is printed this once.",
    "POST",
    f"{CUSTOMER_PATH}/keys",
    CUSTOMER,
    option("name", "What people call it."),
    option("scope", "What it may do; repeatable.", kind=list[str] | None),
    EXPIRES,
    option("rate", "Its own limit: 10/s; repeatable.", kind=list[str] | None, metavar="RATE"),
    option("budget", BUDGET_HELP, metavar="BUDGET"),
    option("prefix", "What it begins with; edgetest for keys to test with."),
    switch("wait", "Return once all edges accept it.", "--wait"),
    body=_build_key,
    output=_print_new_key,
    is_created_once=True,
)
keys_budget = build_command(
    "Change the budget of a key. Its used amount stays.",
    "PATCH",
    KEY_PATH,
    KEY,
    argument(
        "budget",
        f"{BUDGET_HELP} none removes it.",
        compute=lambda _, arguments: None if arguments["budget"] == "none" else arguments["budget"],
    ),
)
keys_budgets = build_command(
    "List the budgets of a customer's keys, and the used amount of each.",
    "GET",
    f"{CUSTOMER_PATH}/key-budgets",
    CUSTOMER,
    output=Rows(
        "budgets",
        ("start", "name", "amount", "meter", "per", "used", "percent", "resets", "key"),
        amounts=("amount", "used"),
    ),
)
keys_rotate = build_command(
    "Create a key in place of another one: it is printed this once.",
    "POST",
    f"{KEY_PATH}/rotate",
    KEY,
    option(
        "overlap",
        "How long both work: 7d, 12h; 0s ends it at once. By default what the collector's file says, or 7d.",
        metavar="TIME",
    ),
    body=select_arguments("overlap"),
    output=print_secret,
    is_created_once=True,
)
keys_rotation = build_command(
    "Show how a customer's keys rotate, and which keys are due, on their way or replaced.",
    "GET",
    f"{CUSTOMER_PATH}/key-rotation",
    CUSTOMER,
    output=_print_rotation,
)
keys_revoke = build_command("End a key at once.", "DELETE", KEY_PATH, KEY)
keys_restore = build_command(
    "Take back the revocation of a key, within 24 hours. Needs a token with `sensitive: true`.",
    "POST",
    f"{KEY_PATH}/restore",
    KEY,
)


def keys_public_key(
    customer: CustomerRef,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A public key as JWK (JSON).")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the key instead.")] = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Register the public key that encrypts a customer's new keys."""
    if (file is None) != delete:
        fail("name the FILE of a public key, or --delete", 2)
    api = Api(collector, ca)
    path = api.customer_path(customer, "public-key")
    if file is None:
        _show_rotation(api.call("DELETE", path), as_json)
        return
    try:
        jwk = json.loads(file.read_bytes())
    except (OSError, ValueError):
        fail(f"{file} cannot be read as JSON", 2)
    _show_rotation(api.call("PUT", path, {"jwk": jwk}), as_json)


def _show_rotation(rotation: JsonObject, as_json: bool) -> None:
    if as_json:
        show(rotation, as_json)
        return
    show({name: value for name, value in rotation.items() if name != "keys"}, as_json)
    table(cast(list[JsonObject], rotation["keys"]), ROTATION_COLUMNS, as_json)


def keys_leaked(collector: Url = None, ca: Authorities = None) -> None:
    """Revoke leaked keys; they are read from standard input, one a line."""
    keys = [line.strip() for line in sys.stdin if line.strip()]
    if not keys:
        fail("standard input has no key: edgeproxy keys leaked < file", 2)
    api = Api(collector, ca)
    for begin in range(0, len(keys), LEAKED_KEYS_MAX):
        api.call("POST", "/v1/keys/leaked", {"keys": keys[begin : begin + LEAKED_KEYS_MAX]})
    typer.echo("if there are such keys, they are revoked")


TOKEN = argument("name", "The token's name, as `tokens ls` lists it.")

tokens_ls = build_command(
    "List the tokens of the collector.",
    "GET",
    "/v1/tokens",
    output=Rows("tokens", ("name", "role", "customer", "edge", "region", "secrets", "expires_at", "source")),
)
tokens_add = build_command(
    "Create a token: it is printed this once.",
    "POST",
    "/v1/tokens",
    argument("name", "What the audit log calls it."),
    option("role", "edge, beacon, service, read, support, billing or admin."),
    option("customer", "The customer whose own it may see, instead of a role."),
    option("edge", "The only edge that may ship with it."),
    option("region", "The only region whose edges may ship with it."),
    EXPIRES,
    body=select_arguments("name", "role", "customer", "edge", "region", "expires_at"),
    output=print_secret,
    is_created_once=True,
)
tokens_rotate = build_command(
    "Give a token another secret: it is printed this once.",
    "POST",
    TOKEN_PATH,
    TOKEN,
    option("overlap", "How long both work: 7d, 12h; 0s ends it at once.", kind=str, default="7d", metavar="TIME"),
    output=print_secret,
    is_created_once=True,
)
tokens_revoke = build_command("End a token at once.", "DELETE", TOKEN_PATH, TOKEN, output=Sentence("{name} is revoked"))
