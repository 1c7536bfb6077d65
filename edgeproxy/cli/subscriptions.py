"""Commands about the subscription of a customer: `subscriptions …`. The API decides, as it does for pages."""

from collections.abc import Callable

from edgeproxy.base.json_values import JsonDocument, JsonObject
from edgeproxy.cli.api import Api, format_money, show, table
from edgeproxy.cli.endpoint_commands import (
    CUSTOMER,
    IDEMPOTENCY_KEY,
    PREVIEW,
    Arguments,
    BuildBody,
    Parameter,
    argument,
    build_command,
    note_dry_run,
    option,
)

PATH = "/billing/subscription"
OF_CUSTOMER = "?customer={customer}"
PLAN_HELP = "A plan, which is its newest version, or a version such as standard@3."
QUANTITY = option("quantity", "How many of it, such as seats.", kind=int | None, metavar="N")
INTERVAL = option("interval", "The time that is paid in advance.", metavar="month|year")
WHEN = option("when", "At once, or at the end of the paid time.", metavar="now|period_end")


def _fetch_plan(api: Api, customer: str) -> str:
    """Return the version of the plan that a customer has."""
    return str(api.call("GET", PATH, query={"customer": customer})["plan"])


def _keep_plan(api: Api, arguments: Arguments) -> JsonObject:
    return {"plan": _fetch_plan(api, arguments["customer"])}


def _print_subscription(document: JsonDocument, arguments: Arguments) -> None:
    """Print a subscription, or the preview of a change with its lines."""
    as_json = arguments["as_json"]
    if as_json or not arguments.get(PREVIEW.name):
        show(document, as_json)
        return
    lines = [format_money({**line, "currency": document["currency"]}, "amount") for line in document["lines"]]
    show(format_money({name: value for name, value in document.items() if name != "lines"}, "due_now"), as_json)
    table(lines, ("text", "quantity", "amount"), as_json)
    note_dry_run(arguments, PREVIEW)


def _build_change(
    about: str, method: str, *parameters: Parameter, body: BuildBody | None = None, preview: str | None = None
) -> Callable[..., None]:
    """Build the command of a change. A POST is carried out once for each key; a PUT may be repeated anyway."""
    is_created_once = method == "POST"
    return build_command(
        about,
        method,
        f"{PATH}{OF_CUSTOMER}",
        CUSTOMER,
        *parameters,
        *(() if preview is None else (PREVIEW,)),
        *((IDEMPOTENCY_KEY,) if is_created_once else ()),
        body=body,
        output=_print_subscription,
        is_created_once=is_created_once,
        preview=preview,
    )


PREVIEW_PATH = f"{PATH}/preview{OF_CUSTOMER}"

show_subscription = build_command(
    "Show the subscription of a customer, and the change that waits.", "GET", PATH, CUSTOMER
)
add = _build_change(
    "Begin a subscription, or go on with one that ended in this period: its fee is due at once.",
    "POST",
    argument("plan", PLAN_HELP),
    QUANTITY,
    INTERVAL,
    option("coupon", "The code of a coupon.", metavar="CODE"),
    preview=PREVIEW_PATH,
)
change = _build_change(
    "Change the plan, the quantity or the interval. More is charged at once, less begins after the paid time.",
    "PUT",
    option(
        "plan",
        f"{PLAN_HELP} By default it stays.",
        metavar="PLAN",
        compute=lambda api, arguments: arguments["plan"] or _fetch_plan(api, arguments["customer"]),
    ),
    QUANTITY,
    INTERVAL,
    WHEN,
    preview=PREVIEW_PATH,
)
keep = _build_change("Withdraw the change, or the end, that waits.", "PUT", body=_keep_plan)
end = build_command(
    "End the subscription, by default with the paid time; nothing is paid back.",
    "POST",
    f"{PATH}/cancel{OF_CUSTOMER}",
    CUSTOMER,
    WHEN,
    option("reason", "Such as too_expensive.", metavar="REASON"),
)
