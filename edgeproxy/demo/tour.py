"""The tour of the demonstration: a shell line for each feature, and the expected output."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.demo import judgements
from edgeproxy.demo.company import TOKENS, TOKENS_CENTS
from edgeproxy.demo.judgements import Judgement

LIMIT, PAID_LIMIT = 60, 600
"""Requests a minute of the plans Free and Standard, all regions together (config/tiers.yaml)."""
PASSED = range(48, 73)
"""How many of the limit's requests may pass within seconds, sent to all regions in turn.

Requests reserved by one region are not free for another at once, and docs/design/limits.md#what-is-accepted bounds
the excess above the limit.
"""
BURST = 100
"""Requests to all regions together."""
P95_MS = 250
"""The highest accepted 95th percentile of the load; the goal is 80 ms on an otherwise idle machine."""
LOAD_PER_SECOND, LOAD_SECONDS = 40, 10
LOADED = 90.0
"""Seconds for the load test to find the machine fit for a verdict. A load disturbed by other work is repeated."""
MINUTE = 60.0
DIRECTORY, SHIPPED, STRIPE, MAIL, SCRAPED = 5.0, 15.0, 30.0, 15.0, 20.0
"""Seconds until edges follow the directory, the ledger has all counts, Stripe has charged, a mail arrives, and
Prometheus has scraped.
"""

EVENTS = [
    {"id": f"tokens-{model}", "source": "demo", "customer": "nova", "meter": "llm_tokens", "value": tokens}
    | {"dimensions": {"model": model}}
    for model, tokens in TOKENS.items()
]


class Stop(NamedTuple):
    """A stop of the tour: its subject, a line for a shell, and the judgement of that line's output.

    `within` is the seconds until the judgement must hold. The line is repeated until then.
    """

    shows: str
    line: str
    judge: Judgement
    within: float = 0.0
    figures: str = ""
    """A regular expression of the lines that the check prints."""


def build_workload(regions: Sequence[str]) -> dict[str, object]:
    """Return the load for scripts/loadtest: a customer without a limit, in all regions alike."""
    return {
        "seed": 7,
        "regions": {region: f"{100 // len(regions)}%" for region in regions},
        "shape": [{"warm_up": "2s"}, {"steady": f"{LOAD_PER_SECOND}/s", "for": f"{LOAD_SECONDS}s"}],
        "tiers": {"enterprise": {"share": "100%", "customers": 1}},
        "requests": [{"share": "100%", "path": "/get", "name": "get"}],
        "thresholds": {"p95": f"{P95_MS}ms", "error_rate": "0.1%", "lost": 0, "started": "99%", "achieved": "99%"},
    }


def in_each(command: str) -> str:
    """Return a line that runs a command for each region."""
    return f"for edge in $EU $US; do {command}; done"


def get_status(key: str, path: str = "$edge/get") -> str:
    """Return a command that prints the status of a request."""
    return f"curl -s -o /dev/null -w '%{{http_code}}\\n' -H \"X-API-Key: {key}\" {path}"


def post(token: str, body: object, url: str) -> str:
    """Return a command that posts JSON."""
    return f"curl -s -H \"Authorization: Bearer {token}\" --json '{json.dumps(body)}' {url}"


def build_tour(regions: Sequence[str], *, with_prometheus: bool, with_load: bool) -> list[Stop]:
    """Return the stops in order, for edges in these regions. The load test is included if it is available."""
    tour = [
        *list_identity_stops(),
        *list_limit_stops(len(regions)),
        *list_money_stops(),
        *list_key_stops(len(regions)),
        *list_credit_stops(),
        *list_figure_stops(regions),
        *([build_load_stop()] if with_load else ()),
        build_last_invoice_stop(),
    ]
    if with_prometheus:
        query = "$PROMETHEUS/api/v1/query?query=edge_requests_total"
        tour.append(Stop("Prometheus scrapes each edge", f'curl -s "{query}"', judgements.scraped(regions), SCRAPED))
    return tour


def list_identity_stops() -> list[Stop]:
    """Return the stops about identities."""
    return [
        Stop(
            "A request with a key passes. The answer has its region and limit, and what reached the API: no key",
            'curl -si -H "X-API-Key: $NOVA" "$EU/anything/hello?show_env=1"',
            judgements.stamped,
        ),
        Stop(
            "Without a key: 401",
            "curl -si $EU/anything/hello",
            judgements.status(401, "WWW-Authenticate", "X-Request-Id"),
        ),
    ]


def list_limit_stops(regions: int) -> list[Stop]:
    """Return the stops about limits, and the upgrade that lifts them."""
    turns = f"for n in $(seq {BURST // regions}); do {in_each(get_status('$NOVA'))}; done"
    return [
        Stop(
            f"One limit over all regions: Free has {LIMIT} a minute, and {BURST} requests are sent, by turns to each",
            f"{turns} | sort | uniq -c",
            judgements.counts(PASSED, BURST),
            figures=r"^ *\d+ \d+$",
        ),
        Stop(
            "Nova takes the plan Standard, and its card is charged for the first month",
            post("$NOVA_TOKEN", {"plan": "standard"}, "$COLLECTOR/billing/subscription"),
            judgements.json_has(plan="standard@1"),
        ),
        Stop(
            f"The upgrade lifts the limit in all regions, to {PAID_LIMIT} a minute",
            in_each('curl -si -H "X-API-Key: $NOVA" $edge/get | grep -i ^ratelimit-policy'),
            judgements.policies(PAID_LIMIT, regions),
            DIRECTORY,
        ),
        Stop(
            "The first fee is an invoice, which Stripe's sandbox has charged to the card",
            'curl -s -H "Authorization: Bearer $NOVA_TOKEN" $COLLECTOR/billing/invoices',
            judgements.invoices("paid"),
            STRIPE,
        ),
    ]


def list_money_stops() -> list[Stop]:
    """Return the stops about paid usage, and a payment that fails."""
    return [
        Stop(
            "A service reports tokens that Nova used, by model; again they count once",
            post("$SERVICE_TOKEN", EVENTS, "$COLLECTOR/v1/events"),
            judgements.json_has(rejected=[]),
        ),
        Stop(
            "They are on Nova's next invoice, each model at its price: $15.00 and $8.00",
            'curl -s -H "Authorization: Bearer $NOVA_TOKEN" $COLLECTOR/billing/invoices/upcoming',
            judgements.priced(*TOKENS_CENTS),
        ),
        Stop(
            "Vega, which has used as much, leaves: its plan ends with this minute, and so does its bill",
            'curl -s -X DELETE -H "Authorization: Bearer $VEGA_TOKEN" "$COLLECTOR/billing/subscription?when=now"',
            judgements.json_has(customer="vega", state="canceled"),
        ),
        # The rest of a month's last hours costs less than Stripe's least charge, so a monthly fee might not be charged.
        Stop(
            "Orbit takes Standard for a year, with a card that will be declined",
            post("$ORBIT_TOKEN", {"plan": "standard", "interval": "year"}, "$COLLECTOR/billing/subscription"),
            judgements.json_has(plan="standard@1"),
        ),
        Stop(
            "The decline alerts Orbit and the operators: both have a mail",
            "curl -s $MAILBOX/mails",
            judgements.mailed("orbit@orbit.example", "payment"),
            STRIPE + MAIL,
        ),
    ]


def list_key_stops(regions: int) -> list[Stop]:
    """Return the stops about keys."""
    return [
        Stop(
            "Nova gets one more key",
            "KEY=$(edgeproxy keys add nova --name phone) && echo $KEY",
            lambda output: None if output.startswith("edge_v1_") else "no key",
        ),
        Stop(
            "It works in all regions a moment later",
            in_each(get_status("$KEY")),
            judgements.statuses(*[200] * regions),
            DIRECTORY,
        ),
        Stop(
            "The key leaks, and whoever sees it may report it",
            'echo "$KEY" | edgeproxy keys leaked',
            lambda output: None if "revoked" in output else "not revoked",
        ),
        Stop(
            "It is refused in all regions a moment later",
            in_each(get_status("$KEY")),
            judgements.statuses(*[401] * regions),
            DIRECTORY,
        ),
    ]


def list_credit_stops() -> list[Stop]:
    """Return the stops about prepaid credits."""
    gift = {"customer": "pulse", "millicredits": 20_000, "why": "a trial"}
    ask = get_status("$PULSE", '"$EU/response-headers?X-Cost=5000"')
    return [
        Stop(
            "Pulse pays in advance: it gets credits worth two cents",
            post("$EDGEPROXY_TOKEN", gift, "$COLLECTOR/billing/credits/adjust"),
            judgements.json_has(millicredits=20_000),
        ),
        Stop(
            "Each answer costs it half a cent; once the credits are spent: 402",
            f"for n in 1 2 3 4 5 6 7 8 9 10; do {ask}; sleep 0.5; done",
            judgements.spent,
        ),
    ]


def build_last_invoice_stop() -> Stop:
    """Return the stop about the invoice of a plan that has ended."""
    ask = 'curl -s -H "Authorization: Bearer $VEGA_TOKEN" $COLLECTOR/billing/invoices'
    newest = f"""ID=$({ask} | grep -o '"id":"[^"]*' | head -1 | cut -d '"' -f 4)"""
    return Stop(
        "Vega's last invoice has the tokens by model, and is paid by card",
        f"{newest}; {ask}/$ID",
        judgements.billed("paid", *TOKENS_CENTS),
        MINUTE + STRIPE,
    )


def list_figure_stops(regions: Sequence[str]) -> list[Stop]:
    """Return the stops about metrics, reports and other figures."""
    usage = "$COLLECTOR/v1/usage?customer=nova&meter=requests&by=region"
    return [
        Stop(
            "The collector's ledger has Nova's requests, by region",
            f'curl -s -H "Authorization: Bearer $EDGEPROXY_TOKEN" "{usage}"',
            judgements.shipped("nova", regions),
            SHIPPED,
        )
    ]


def build_load_stop() -> Stop:
    """Return the stop about latency under load. Only a checkout has it: the load test is no part of the package."""
    return Stop(
        f"Ten seconds of load by Locust: the P95 of each region is at most {P95_MS} ms",
        'loadtest --workload "$DATA/load.yaml" --edges "$EDGES" --keys "$DATA/keys.json" --out "$DATA/load"',
        judgements.passed,
        LOADED,
        figures=r"^.* response .*$|^p95: .*$|^verdict: .*$",
    )
