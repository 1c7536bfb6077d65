"""What there is to try: a command line for each thing the edge does, and what its output must show."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

BURST = 200
ADMITTED = range(60, 63)
"""Of a burst on the tier free: its 60 a minute, and with two workers at most two more
(docs/design/limits.md#decisions)."""

STAMPS = (
    "X-Request-Id", "Traceparent", "X-Edge-Region", "X-Customer-Id", "X-Customer-Tier",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via",
)  # fmt: skip


CHARGED = 30.0
"""Seconds within which the first fee of a plan is an invoice at the Stripe sandbox."""
USED = [
    {"source": "demo", "id": f"use-{meter}", "customer": "demo-pro", "meter": meter, "value": value}
    for meter, value in (("llm_tokens", 1_234_567), ("agent_executions", 5003))
]
"""What is used of Standard: 234,567 tokens more than it includes at 0.001 cents, and three executions more at $0.10."""
SHIPPED = 10.0
"""Seconds within which the collector has what was counted: an edge seals and ships every five."""


class Stop(NamedTuple):
    """One stop of the tour: what it shows, a line for a shell, and what is wrong with that line's output.

    `within`: seconds that what it shows may take to come true.
    """

    shows: str
    line: str
    fault: Callable[[str], str | None]
    within: float = 0.0


def field(name: str, head: str) -> str | None:
    """The value of a field in the head of an answer; None where it is not there."""
    found = re.search(rf"^{name}: *(.*)$", head, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None


def status(expected: int, *fields: str) -> Callable[[str], str | None]:
    """A look at `curl -i` output: an answer with this status that has these fields."""

    def look(output: str) -> str | None:
        head = output.replace("\r", "").partition("\n\n")[0]
        if not head.startswith(f"HTTP/1.1 {expected} "):
            return f"not a {expected}"
        missing = [name for name in fields if field(name, head) is None]
        return f"the answer has no {', '.join(missing)}" if missing else None

    return look


def stamped(output: str) -> str | None:
    """A 200 whose body, httpbin's account of the request it received, has every stamp and no key."""
    if fault := status(200, "RateLimit", "RateLimit-Policy", "X-Request-Id")(output):
        return fault
    received = json.loads(output[output.index("{") :])["headers"]
    if missing := [name for name in STAMPS if name not in received]:
        return f"the upstream received no {', '.join(missing)}"
    return "the upstream received the key" if "X-Api-Key" in received else None


def burst(output: str) -> str | None:
    """The counts of statuses of a burst: as many admitted as the tier allows, the rest refused."""
    counts = {status: int(count) for count, status in (line.split() for line in output.splitlines())}
    admitted = counts.pop("200", 0)
    if admitted not in ADMITTED:
        return f"{admitted} of {BURST} passed, not {ADMITTED[0]} to {ADMITTED[-1]}"
    return None if counts == {"429": BURST - admitted} else f"besides {admitted} × 200 there were {counts}"


def refused(output: str) -> str | None:
    """A 429 that says when to come back, within the window."""
    if fault := status(429, "Retry-After", "RateLimit", "RateLimit-Policy")(output):
        return fault
    seconds = int(field("Retry-After", output) or 0)
    return None if 1 <= seconds <= 70 else f"Retry-After is {seconds} s for a window of a minute"


def counted(output: str) -> str | None:
    """Totals of /usage that are just what the stops before had answered: one request, and the burst's."""
    total = sum(row[3] for row in json.loads(output)["rows"] if row[1] == "requests")
    return None if total - 1 in ADMITTED else f"{total} requests were counted"


def shipped(output: str) -> str | None:
    """The same total in the collector's ledger, and by whom."""
    answer = json.loads(output)
    if answer["total"] - 1 not in ADMITTED:
        return f"the collector has {answer['total']} requests"
    customers = [row["customer"] for row in answer["rows"]]
    return None if customers == ["demo-basic", "demo-pro"] else f"of {customers}"


def scraped(output: str) -> str | None:
    """Lines of /metrics that tell the refusals apart by tier and code."""
    lines = [line for line in output.splitlines() if 'code="429"' in line and 'tier="free"' in line]
    return None if lines else "no 429 of the tier free is counted"


def sold(output: str) -> str | None:
    """The plan that has begun."""
    plan = json.loads(output).get("plan")
    return None if plan == "standard@1" else f"the plan is {plan}"


def taken(output: str) -> str | None:
    """Events that were counted, or had been."""
    said = json.loads(output)
    return None if said["accepted"] + said["duplicates"] == len(USED) else f"of {len(USED)} there were {said}"


def upcoming(output: str) -> str | None:
    """The next invoice: the fee, and what is used beyond what it covers, to the cent."""
    amounts = [line["amount"] for line in json.loads(output)["lines"] if line["amount"]]
    return None if amounts == [9900, 235, 30] else f"its lines come to {amounts} cents"


def paid(output: str) -> str | None:
    """An invoice that Stripe has the money of."""
    said = json.loads(output)
    return None if said.get("status") == "paid" else f"it is {said.get('status') or said['error']['message']}"


def stops(edge: str, admin: str, collector: str, stripe: str) -> list[Stop]:
    """The tour of an edge, its admin listener, its collector and a Stripe sandbox, given as URLs without a path."""
    own = "-H 'Authorization: Bearer demo-pro-token'"
    return [
        Stop(
            "A request with a key passes, and httpbin shows what reached it: the stamps, and no key",
            f"curl -si -H 'X-API-Key: ek_demo_pro' '{edge}/anything/hello?show_env=1'",
            stamped,
        ),
        Stop(
            "Without a key: 401",
            f"curl -si {edge}/anything/hello",
            status(401, "WWW-Authenticate", "X-Request-Id"),
        ),
        Stop(
            "Where there is no route: 404, before anybody is asked for a key",
            f"curl -si {edge}/nowhere",
            status(404, "X-Request-Id"),
        ),
        Stop(
            f"A burst of {BURST} on a key with 60 a minute: {ADMITTED[0]} to {ADMITTED[-1]} pass, then 429",
            f"curl --no-progress-meter -Z --parallel-max 2 -o /dev/null -w '%{{http_code}}\\n' "
            f"-H 'X-API-Key: ek_demo_basic' '{edge}/anything/[1-{BURST}]' | sort | uniq -c",
            burst,
        ),
        Stop(
            "And when it may come back",
            f"curl -si -H 'X-API-Key: ek_demo_basic' {edge}/anything/hello",
            refused,
        ),
        Stop("What was counted for billing", f"curl -s {admin}/usage", counted),
        Stop(
            f"And what the collector's ledger has of it, after {SHIPPED:.0f} seconds at most",
            f"curl -s -H 'Authorization: Bearer demo-read-token' '{collector}/v1/usage?meter=requests&by=customer'",
            shipped,
            SHIPPED,
        ),
        Stop("And for Prometheus", f"curl -s {admin}/metrics | grep ^edge_requests_total", scraped),
        Stop(
            "A customer takes a plan: Standard, whose first fee is due",
            f"curl -s {own} --json '{json.dumps({'plan': 'standard'})}' '{collector}/billing/subscription'",
            sold,
        ),
        Stop(
            "A service reports what the customer uses beside requests",
            f"curl -s -H 'Authorization: Bearer demo-service-token' --json '{json.dumps(USED)}' {collector}/v1/events",
            taken,
        ),
        Stop(
            "The upcoming invoice: $99, $2.35 for tokens and $0.30 for executions above what the fee covers",
            f"curl -s {own} {collector}/billing/invoices/upcoming",
            upcoming,
        ),
        Stop(
            "The first fee is paid in the Stripe sandbox",
            f"curl -s -u sk_test_demo: -d payment_method=pm_card_visa {stripe}/v1/invoices/"
            f"$(curl -s {own} {collector}/billing/invoices | grep -o 'in_[A-Za-z0-9]*' | head -1)/pay",
            paid,
            CHARGED,
        ),
    ]
