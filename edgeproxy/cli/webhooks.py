"""Commands about customers' own webhooks: `webhooks …`."""

from edgeproxy.cli.endpoint_commands import CUSTOMER, Rows, argument, build_command, option

ENDPOINTS = "/v1/customers/{customer}/webhook-endpoints"
ENDPOINT_PATH = f"{ENDPOINTS}/{{endpoint}}"
ENDPOINT = argument("endpoint", "The endpoint's id, as `webhooks ls` lists it.")

webhooks_ls = build_command(
    "List the endpoints of a customer.",
    "GET",
    ENDPOINTS,
    CUSTOMER,
    output=Rows("endpoints", ("id", "state", "url", "types", "failing_since", "disabled_why")),
)
webhooks_add = build_command(
    "Create an endpoint; its secret is shown once.",
    "POST",
    ENDPOINTS,
    CUSTOMER,
    argument("url", "Where messages are posted to: https://HOST/PATH."),
    option(
        "types",
        "A type of events, such as invoice.paid; repeatable. Else all.",
        "--type",
        kind=list[str] | None,
        compute=lambda _, arguments: arguments["types"] or None,
    ),
    option("description", "A text for people."),
    is_created_once=True,
)
webhooks_show = build_command("Show an endpoint, without its secret.", "GET", ENDPOINT_PATH, CUSTOMER, ENDPOINT)
webhooks_delete = build_command(
    "Delete an endpoint, and what is on its way to it.", "DELETE", ENDPOINT_PATH, CUSTOMER, ENDPOINT
)
webhooks_disable = build_command(
    "Send nothing to an endpoint.", "PATCH", ENDPOINT_PATH, CUSTOMER, ENDPOINT, body={"state": "disabled"}
)
webhooks_enable = build_command(
    "Send to an endpoint again what happens from now on.",
    "PATCH",
    ENDPOINT_PATH,
    CUSTOMER,
    ENDPOINT,
    body={"state": "enabled"},
)
webhooks_rotate = build_command(
    "Give an endpoint a new secret, which is shown once; the old one signs too for 24 hours.",
    "POST",
    f"{ENDPOINT_PATH}/secret",
    CUSTOMER,
    ENDPOINT,
    is_created_once=True,
)
webhooks_test = build_command("Send a test message.", "POST", f"{ENDPOINT_PATH}/test", CUSTOMER, ENDPOINT)
webhooks_messages = build_command(
    "List the messages to an endpoint, the latest first.",
    "GET",
    f"{ENDPOINT_PATH}/messages",
    CUSTOMER,
    ENDPOINT,
    option("limit", "How many at most.", kind=int, default=20, min=1, max=100),
    output=Rows("messages", ("id", "at", "type", "state", "attempts", "error", "next_at")),
)
webhooks_redeliver = build_command(
    "Send a message again, also one that was taken.",
    "POST",
    f"{ENDPOINT_PATH}/messages/{{message}}/redeliver",
    CUSTOMER,
    ENDPOINT,
    argument("message", "The message's id, of `webhooks messages`."),
)
