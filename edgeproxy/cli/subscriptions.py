"""Commands about the subscription of a customer: `subscriptions …`. The API decides, as it does for pages."""

from typing import Annotated

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Key, Url, show, table
from edgeproxy.cli.endpoint_commands import CUSTOMER, IDEMPOTENCY_KEY, Parameter, build_command, option

PATH = "/billing/subscription"
PLAN_HELP = "A plan, which is its newest version, or a version such as standard@3."
LINE_COLUMNS = ("text", "quantity", "amount")

Quantity = Annotated[int | None, typer.Option(metavar="N", help="How many of it, such as seats.")]
Interval = Annotated[str | None, typer.Option(metavar="month|year", help="The time that is paid in advance.")]
When = Annotated[str | None, typer.Option(metavar="now|period_end", help="At once, or at the end of the paid time.")]
Preview = Annotated[bool, typer.Option("--dry-run", help="Show the date and the cost of the change, and make none.")]


show_subscription = build_command(
    "Show the subscription of a customer, and the change that waits.", "GET", PATH, CUSTOMER
)
end = build_command(
    "End the subscription, by default with the paid time; nothing is paid back.",
    "POST",
    f"{PATH}/cancel?customer={{customer}}",
    CUSTOMER,
    Parameter("when", When, None, None),
    option("reason", "Such as too_expensive.", metavar="REASON"),
    IDEMPOTENCY_KEY,
    is_created_once=True,
)


def add(
    customer: CustomerRef,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help=PLAN_HELP)],
    quantity: Quantity = None,
    interval: Interval = None,
    coupon: Annotated[str | None, typer.Option(metavar="CODE", help="The code of a coupon.")] = None,
    dry: Preview = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Begin a subscription, or go on with one that ended in this period: its fee is due at once."""
    api = Api(collector, ca)
    body = _select(plan=plan, quantity=quantity, interval=interval, coupon=coupon)
    _send(api, "POST", api.resolve_customer(customer), body, dry, key, as_json)


def change(
    customer: CustomerRef,
    plan: Annotated[str | None, typer.Option(metavar="PLAN", help=f"{PLAN_HELP} By default it stays.")] = None,
    quantity: Quantity = None,
    interval: Interval = None,
    when: When = None,
    dry: Preview = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Change the plan, the quantity or the interval. More is charged at once, less begins after the paid time."""
    api = Api(collector, ca)
    name = api.resolve_customer(customer)
    body = _select(plan=plan or _fetch_plan(api, name), quantity=quantity, interval=interval, when=when)
    _send(api, "PUT", name, body, dry, key, as_json)


def keep(
    customer: CustomerRef, key: Key = None, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Withdraw the change, or the end, that waits."""
    api = Api(collector, ca)
    name = api.resolve_customer(customer)
    _send(api, "PUT", name, {"plan": _fetch_plan(api, name)}, False, key, as_json)


def _fetch_plan(api: Api, customer: str) -> str:
    """Return the version of the plan that a customer has."""
    return str(api.call("GET", PATH, query={"customer": customer})["plan"])


def _select(**fields: str | int | None) -> JsonObject:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _send(api: Api, method: str, customer: str, body: JsonObject, dry: bool, key: str | None, as_json: bool) -> None:
    """Make a change and print the subscription, or print its preview alone."""
    query = {"customer": customer}
    if not dry:
        show(api.call(method, PATH, body, create=True, key=key, query=query), as_json)
        return
    preview: JsonObject = api.call("POST", f"{PATH}/preview", body, query=query)
    show({name: value for name, value in preview.items() if as_json or name != "lines"}, as_json)
    if not as_json:
        table(preview["lines"], LINE_COLUMNS, as_json)  # type: ignore[arg-type]
        typer.echo("nothing was changed: it was a dry run")
