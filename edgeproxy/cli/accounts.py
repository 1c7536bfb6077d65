"""Commands about customers, keys and tokens of a collector: `customers …`, `keys …`, `tokens …`."""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import quote

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Url, show, table
from edgeproxy.cli.outcome import fail
from edgeproxy.collector.accounts.fields import LEAKED_KEYS_MAX
from edgeproxy.config.key_form import FORM, START_CHARACTERS

KeyRef = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, as `keys ls` lists it, its secret, or the SHA-256 of that.")
]
ShownKeyRef = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, its secret, the SHA-256 of that, or its first characters.")
]
TokenRef = Annotated[str, typer.Argument(metavar="NAME", help="The token's name, as `tokens ls` lists it.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field of the customer, its value a text or JSON; repeatable."),
]
KEY_MARK = "_v1_"
"""The mark of keys that the product creates, after their prefix."""
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would come of it, and change nothing.")]

CUSTOMER_COLUMNS = ("name", "tier", "state", "external_id", "created_at", "id")
BUDGET_COLUMNS = ("start", "name", "amount", "currency", "meter", "per", "used", "percent", "resets", "key")
BUDGET_HELP = "Most that it may use: $50/month, or 1000000 tokens/day of a meter."
ROTATION_COLUMNS = ("start", "name", "state", "delivery", "rotate_by", "expires_at", "id", "next_key")
KEY_COLUMNS = ("start", "name", "state", "created_at", "expires_at", "last_used_on", "rotate_by", "id")
TOKEN_COLUMNS = ("name", "role", "customer", "edge", "region", "secrets", "expires_at", "source")


def customers_ls(
    tier: Annotated[str | None, typer.Option(help="Those of this tier alone.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """List customers."""
    table(Api(collector, ca).fetch_all("/v1/customers", "customers", tier=tier), CUSTOMER_COLUMNS, as_json)


def customers_show(customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """Show a customer."""
    api = Api(collector, ca)
    show(api.call("GET", api.customer_path(customer)), as_json)


def customers_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="By which edges and usage know the customer.")],
    tier: Annotated[str, typer.Option(help="The tier that the customer pays for.")],
    fields: Fields = None,
    dry: DryRun = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Create a customer."""
    body = {"name": name, "tier": tier, **_parse_fields(fields)}
    show(Api(collector, ca).call("POST", "/v1/customers", body, create=True, dry_run=_format_switch(dry)), as_json)


def customers_change(
    customer: CustomerRef,
    fields: Fields = None,
    dry: DryRun = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Change fields of a customer; FIELD=null takes one away."""
    if not fields:
        fail("say what to change: --set FIELD=VALUE", 2)
    api = Api(collector, ca)
    show(
        api.call("PATCH", api.customer_path(customer), _parse_fields(fields), dry_run=_format_switch(dry)),
        as_json,
    )


def customers_pause(
    customer: CustomerRef,
    why: Annotated[str, typer.Option(help="What the customer is told.")],
    unpaid: Annotated[bool, typer.Option("--unpaid", help="Answer 402 instead of 403.")] = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Stop serving a customer for now."""
    body = {"paused": {"why": why, "status": 402 if unpaid else 403}}
    api = Api(collector, ca)
    show(api.call("PATCH", api.customer_path(customer), body), as_json)


def customers_resume(
    customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Serve a paused customer again."""
    api = Api(collector, ca)
    show(api.call("PATCH", api.customer_path(customer), {"paused": None}), as_json)


def customers_raise_limit(
    customer: CustomerRef,
    factor: Annotated[int, typer.Option(help="2 or 5: the multiple of the usual rates and concurrency.")],
    span: Annotated[str, typer.Option("--for", metavar="TIME", help="From 1h to 24h; then they fall back.")],
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")],
    dry: DryRun = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Raise a customer's rates and concurrency for a while; quotas, credits and caps stay."""
    body = {"factor": factor, "for": span, "why": why}
    api = Api(collector, ca)
    path, dry_run = _raise_path(api, customer), _format_switch(dry)
    show(api.call("POST", path, body, create=True, dry_run=dry_run), as_json)


def customers_show_raise(
    customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Show whether a customer's limits are raised, and until when."""
    api = Api(collector, ca)
    show(api.call("GET", _raise_path(api, customer)), as_json)


def customers_end_raise(
    customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """End the raise of a customer's limits now."""
    api = Api(collector, ca)
    show(api.call("DELETE", _raise_path(api, customer)), as_json)


def customers_delete(
    customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Begin to delete a customer: no edge serves it from then on, and its usage stays."""
    api = Api(collector, ca)
    show(api.call("DELETE", api.customer_path(customer)), as_json)


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


def keys_ls(
    customer: CustomerRef,
    due: Annotated[bool, typer.Option("--due", help="Those that are to be rotated alone.")] = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """List the keys of a customer."""
    api = Api(collector, ca)
    rows = api.fetch_all(api.customer_path(customer, "keys"), "keys", due=_format_switch(due))
    table(rows, KEY_COLUMNS, as_json)


def keys_show(key: ShownKeyRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """Show a key, without its secret. The secret itself is hashed here, and not sent."""
    api = Api(collector, ca)
    path = _key_path(key)
    if path.endswith(key) and KEY_MARK in key:
        path = _key_path(_find_key(api, key))
    show(api.call("GET", path), as_json)


def _find_key(api: Api, start: str) -> str:
    """Return the id of the key that begins with these characters; exits with 1 unless there is exactly one."""
    start = start[: start.index(KEY_MARK) + len(KEY_MARK) + START_CHARACTERS]
    owners = api.fetch_list("/v1/customers", "customers", search=start)
    keys = [key for owner in owners for key in api.fetch_all(api.customer_path(str(owner["id"]), "keys"), "keys")]
    ids = [str(key["id"]) for key in keys if str(key["start"]).startswith(start)]
    if len(ids) != 1:
        fail(f"{len(ids)} keys begin with {start}: use an id, {' or '.join(ids)}" if ids else "there is no such key", 1)
    return ids[0]


def keys_add(
    customer: CustomerRef,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; repeatable.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends: 2027-01-01, or RFC 3339.")] = None,
    rate: Annotated[list[str] | None, typer.Option(metavar="RATE", help="Its own limit: 10/s; repeatable.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="BUDGET", help=BUDGET_HELP)] = None,
    prefix: Annotated[str | None, typer.Option(help="What it begins with; edgetest for keys to test with.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return once all edges accept it.")] = False,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Create a key: it is printed this once."""
    limits = [{"rate": each} for each in rate or ()]
    fields = {
        "name": name,
        "scopes": scope,
        "expires_at": expires,
        "prefix": prefix,
        "limits": limits,
        "budget": budget,
    }
    body = {field: value for field, value in fields.items() if value}
    api = Api(collector, ca)
    _print_secret(api.call("POST", api.customer_path(customer, "keys"), body, create=True), as_json)
    if wait:
        from edgeproxy.cli.propagation import wait_for_edges

        wait_for_edges(api)


def keys_budget(
    key: KeyRef,
    budget: Annotated[str, typer.Argument(metavar="BUDGET", help=f"{BUDGET_HELP} none removes it.")],
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Change the budget of a key. Its used amount stays."""
    body = {"budget": None if budget == "none" else budget}
    show(Api(collector, ca).call("PATCH", _key_path(key), body), as_json)


def keys_budgets(customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List the budgets of a customer's keys, and the used amount of each."""
    api = Api(collector, ca)
    rows = api.fetch_list(api.customer_path(customer, "key-budgets"), "budgets")
    table(rows, BUDGET_COLUMNS, as_json)


def keys_rotate(
    key: KeyRef,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long both work: 7d, 12h; 0s ends it at once. By default what the collector's file says, or 7d.",
        ),
    ] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Create a key in place of another one: it is printed this once."""
    body = {"overlap": overlap} if overlap else {}
    _print_secret(Api(collector, ca).call("POST", f"{_key_path(key)}/rotate", body, create=True), as_json)


def keys_rotation(customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """Show how a customer's keys rotate, and which keys are due, on their way or replaced."""
    api = Api(collector, ca)
    _show_rotation(api.call("GET", api.customer_path(customer, "key-rotation")), as_json)


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


def keys_revoke(key: KeyRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """End a key at once."""
    show(Api(collector, ca).call("DELETE", _key_path(key)), as_json)


def keys_restore(key: KeyRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """Take back the revocation of a key, within 24 hours. Needs a token with `sensitive: true`."""
    show(Api(collector, ca).call("POST", f"{_key_path(key)}/restore"), as_json)


def keys_leaked(collector: Url = None, ca: Authorities = None) -> None:
    """Revoke leaked keys; they are read from standard input, one a line."""
    keys = [line.strip() for line in sys.stdin if line.strip()]
    if not keys:
        fail("standard input has no key: edgeproxy keys leaked < file", 2)
    api = Api(collector, ca)
    for begin in range(0, len(keys), LEAKED_KEYS_MAX):
        api.call("POST", "/v1/keys/leaked", {"keys": keys[begin : begin + LEAKED_KEYS_MAX]})
    typer.echo("if there are such keys, they are revoked")


def tokens_ls(as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List the tokens of the collector."""
    table(Api(collector, ca).fetch_list("/v1/tokens", "tokens"), TOKEN_COLUMNS, as_json)


def tokens_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the audit log calls it.")],
    role: Annotated[str | None, typer.Option(help="edge, beacon, service, read, support, billing or admin.")] = None,
    customer: Annotated[str | None, typer.Option(help="The customer whose own it may see, instead of a role.")] = None,
    edge: Annotated[str | None, typer.Option(help="The only edge that may ship with it.")] = None,
    region: Annotated[str | None, typer.Option(help="The only region whose edges may ship with it.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends: 2027-01-01, or RFC 3339.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Create a token: it is printed this once."""
    api = Api(collector, ca)
    bound = {"customer": customer and api.resolve_customer(customer), "edge": edge, "region": region}
    fields = {"name": name, "role": role, **bound, "expires_at": expires}
    body = {field: value for field, value in fields.items() if value}
    _print_secret(api.call("POST", "/v1/tokens", body, create=True), as_json)


def tokens_rotate(
    name: TokenRef,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long both work: 7d, 12h; 0s ends it at once.")
    ] = "7d",
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Give a token another secret: it is printed this once."""
    _print_secret(Api(collector, ca).call("POST", _token_path(name), {"overlap": overlap}, create=True), as_json)


def tokens_revoke(name: TokenRef, collector: Url = None, ca: Authorities = None) -> None:
    """End a token at once."""
    Api(collector, ca).call("DELETE", _token_path(name))
    typer.echo(f"{name} is revoked")


def _print_secret(created: JsonObject, as_json: bool) -> None:
    """Print a created object. Only the secret goes to standard output, for scripts."""
    if as_json:
        typer.echo(json.dumps(created, indent=2))
        return
    typer.echo(f"{created.get('id') or created.get('name')}, whose secret is shown only now:", err=True)
    typer.echo(created["secret"])


def _raise_path(api: Api, ref: str) -> str:
    return api.customer_path(ref, "limits/raise")


def _key_path(ref: str) -> str:
    """Return the path of a key; a secret is replaced by its hash."""
    if FORM.fullmatch(ref.encode()):
        ref = sha256(ref.encode()).hexdigest()
    return f"/v1/keys/{quote(ref, safe='')}"


def _token_path(name: str) -> str:
    return f"/v1/tokens/{quote(name, safe='')}"


def _format_switch(is_so: bool) -> str | None:
    return "true" if is_so else None


def _parse_fields(fields: list[str] | None) -> JsonObject:
    """Parse the values of --set: each is JSON, else text."""
    values: JsonObject = {}
    for field in fields or ():
        name, equals, value = field.partition("=")
        if not equals:
            fail(f"--set: {field!r} is not FIELD=VALUE", 2)
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
