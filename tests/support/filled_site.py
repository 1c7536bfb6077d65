"""A collector with data on each of its pages, and the addresses of the pages."""

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from math import sin

import sqlalchemy as sa

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import checks
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.availability import DAYS
from edgeproxy.collector.pages.price_form import write_plans
from edgeproxy.collector.pages.site import Audience
from edgeproxy.collector.pages_service import list_signed_in_pages
from edgeproxy.wire.edge_report import format_fields
from edgeproxy.wire.traffic_report import BUCKETS, ErrorGroup, TrafficCounts, build_report, dump_report
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, SERVICE, Collector
from loadtest.testbed.waiting import until
from tests.support.site import PLACES, PagesStage
from tests.support.used_database import use_database
from tests.support.visitor import Visitor

ELSEWHERE = ("/receipt", "/pdf", "/csv", "/residencies")
"""Ends of paths that lead to another site or a file, or are of another collector."""
GIVEN = ("/account/keys/{key}", "/console/edges/{edge}", "/console/price-changes/{change}")
"""Pages of objects that only some tests create."""
EDGE_SEEN = "edge-eu-2"
"""An edge with reported usage, in a filled site."""


def pages_of(
    who: Audience, invoice: str, customer: str = "acme", key: str = "", edge: str = "", change: str = ""
) -> dict[str, str]:
    """Return the path of each page for operators, or for a customer, by its path in the table of all pages.

    The pages of a key, an edge and a price change are included if their ids are given.
    """
    month = datetime.now(UTC).strftime("%Y-%m")
    given = {"key": key, "edge": edge, "change": change}
    places = PLACES | {"customer": customer, "invoice": invoice, "month": month} | given
    left_out = tuple(path for path in GIVEN if not given[path.rpartition("{")[2][:-1]])
    shown = [page.path for page in list_signed_in_pages(sells=True) if (page.method, page.who) == ("GET", who)]
    return {path: path.format(**places) for path in shown if not path.endswith((*ELSEWHERE, *left_out))}


def fill(stage: PagesStage) -> None:
    """Put data on each page."""
    now = int(time.time())
    today = now // DAY * DAY
    about = format_fields(1.0)
    for edge, region, since in ((EDGE_SEEN, "eu-west", now - 30), ("edge-us-1", "us-east", now - 900)):
        batch = Chain(edge, region, since).next(("bolt", "requests", "v1", 7))
        assert stage.collector.post(batch, fields=about).status == 200
        for minute in range(now // 60 * 60 - 1800, now // 60 * 60, 60):
            report_traffic(stage.collector, edge, region, minute, 2000 + round(300 * sin(minute / 1500)), varies=True)
    chain = Chain("edge-eu-1", "eu-west", today - 6 * DAY)
    for day in range(7):
        chain.since = min(today - (6 - day) * DAY + 3600, now - 60)
        rows = (("acme", "requests", "v1", 600 + 100 * day), ("acme", "egress", "v1", 40_000_000 + 3_000_000 * day))
        assert stage.collector.post(chain.next(*rows), fields=about).status == 200
    meters = [name for name in ("tokens",) if name in stage.collector.settings["meters"]]
    events = [
        {"id": str(n), "source": "app", "customer": "acme", "meter": meter, "value": 5000 + n}
        for n in range(3)
        for meter in meters
    ]
    bad = {"id": "9", "source": "app", "customer": "acme", "meter": "tokenz", "value": 7}
    assert stage.collector.send("POST", "/v1/events", [*events, bad], token=SERVICE).status == 202
    refused = (("acme", "yes", 220), ("acme", "no", 17), ("bolt", "yes", 40))
    chain.since = now - 60
    refusals = [(who, "refused", "v1", n, f'{{"certain":"{sure}","limit":"pro"}}') for who, sure, n in refused]
    assert stage.collector.post(chain.next(*refusals), fields=about).status == 200
    assert stage.collector.send("POST", "/v1/customers/acme/keys", {"name": "server"}).status == 201
    hook = {"url": "http://127.0.0.1:1/edge", "description": "Books", "types": ["invoice.paid", "payment.failed"]}
    hooks = "/v1/customers/acme/webhook-endpoints"
    endpoint = stage.collector.send("POST", hooks, hook).json()["id"]
    assert stage.collector.send("POST", f"{hooks}/{endpoint}/test").status == 202
    usage = {"source": "models", "customer": "acme", "meter": "llm_tokens"}
    models = ((820_000, "m-large"), (411_000, "m-small"), (95_000, "m-tiny"))
    split = [usage | {"id": model, "value": n, "dimensions": {"model": model}} for n, model in models]
    assert stage.collector.send("POST", "/v1/events", split, token=SERVICE).status == 202
    stage.join("zebra")
    name_payer(stage)
    for name, plan in (("acme", "standard"), ("zebra", "enterprise")):
        assert stage.collector.send("POST", f"/billing/subscription?customer={name}", {"plan": plan}).status == 201
    with stage.customer("acme") as acme:
        stage.buy(acme, "25")
    give_card(stage)
    new = {"severity": "P2", "title": "Slow answers in us-east", "regions": ["us-east"], "message": "We look into it."}
    created = stage.collector.send("POST", "/v1/incidents", new)
    assert created.status == 201
    over = {"state": "resolved", "message": "A disk was full. It has been replaced."}
    assert stage.collector.send("POST", f"/v1/incidents/{created.json()['id']}/updates", over).status == 201
    rows: list[tuple[str, int, str, int]] = []
    for region, failed in (("eu-west", 1), ("us-east", 4)):
        for age in range(1, DAYS):
            results = {"50": 2600, "100": 270, "fast": 2850, "failed": failed if age % 9 == 3 else 0}
            rows += [(region, today - age * DAY, result, count) for result, count in results.items()]

    async def insert(database: Database) -> None:
        async with database.writing() as connection:
            columns = [column.name for column in checks.columns]
            await connection.execute(sa.insert(checks), [dict(zip(columns, row, strict=True)) for row in rows])

    use_database(stage.collector.settings["database"], insert)
    until(lambda: b"eu-west" in Visitor(stage.site).client.get("/status").content, "the status is there", seconds=60)


def name_payer(stage: PagesStage) -> None:
    """Put acme's name and address on its invoices."""
    address = {"line1": "Keizersgracht 1", "postal_code": "1015 CN", "city": "Amsterdam", "country": "NL"}
    body = {"name": "Acme B.V.", "address": address, "tax_number": "NL123456789B01"}
    path = "/billing/details?customer=acme"
    assert stage.collector.send("PATCH", path, body, token=ADMIN).status == 200


def give_card(stage: PagesStage) -> None:
    """Add a card that pays later invoices of acme: the first one is open."""
    query = {"token": ADMIN, "customer": "acme", "state": "open"}
    until(lambda: stage.collector.get("/billing/invoices", **query).json()["invoices"], "the first fee is due")
    (customer,) = [
        one["id"]
        for one in stage.sandbox.call("GET", "/v1/customers?limit=100").json()["data"]
        if one["name"] == "Acme B.V."
    ]
    card = "invoice_settings[default_payment_method]=pm_card_visa"
    assert stage.sandbox.call("POST", f"/v1/customers/{customer}", card).status == 200
    shown = {"token": ADMIN, "customer": "acme"}
    until(lambda: stage.collector.get("/billing/details", **shown).json()["payment_method"], "the card is known")


def report_traffic(
    collector: Collector, edge: str, region: str, minute: int, requests: int, *, varies: bool = False
) -> None:
    """Report an edge's requests of a minute: 2 of 100 were answered with 429, 1 with 503, in 2 to 5 ms.

    Some of them are acme's. With `varies` the shares and times vary as in real traffic.
    """
    slow, wave = (requests // 12, minute // 60 % 7) if varies else (0, 2)
    spread = {5: requests - slow, 7: slow - slow // 4, 8: slow // 4}
    buckets = tuple(spread.get(place, 0) for place in range(BUCKETS))
    counts = TrafficCounts(requests, requests * (18 + wave) // 1000, 0, requests * (8 + wave % 5) // 1000, buckets)
    errors = {ErrorGroup("acme", "v1", 503, "upstream"): requests // 500, ErrorGroup("acme", "v1", 403, "edge"): 1}
    body = dump_report(build_report(minute, region, {"v1": counts}, errors, unnamed=4))
    answer = collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=edge)
    assert answer.status == 200, answer


def invoice_of(stage: PagesStage, customer: str) -> str:
    """Return the id of a customer's last invoice."""
    (found, *_) = stage.collector.get("/billing/invoices", token=ADMIN, customer=customer).json()["invoices"]
    return str(found["id"])


def key_of(stage: PagesStage, customer: str) -> str:
    """Return the id of the key that a customer used last."""
    query = {"token": ADMIN, "sort": "-last_used_on", "limit": "1"}
    (found,) = stage.collector.get(f"/v1/customers/{customer}/keys", **query).json()["keys"]
    return str(found["id"])


def schedule_price_change(stage: PagesStage) -> str:
    """Schedule dearer prices of a plan for next year. Returns the id of the change."""
    versions = stage.collector.get("/billing/plan-versions", token=ADMIN).json()["versions"]
    dearer = write_plans(versions, {"standard@1/fee": "109", "standard@1/meters/llm_tokens/price": "0.012/1000"})
    change = {"plans": dearer, "at": f"{datetime.now(UTC).year + 1}-02-01", "why": "The tokens of models cost us more"}
    created = stage.collector.send("POST", "/billing/price-changes", change)
    assert created.status == 201, created
    return str(created.json()["id"])


def held(stage: PagesStage) -> str:
    """Create a held invoice, which needs a decision, and the results of two comparisons. Returns its id."""
    invoice = invoice_of(stage, "zebra")
    now = int(time.time())
    body = stage.collector.get(f"/billing/invoices/{invoice}", token=ADMIN).json()
    start, end = (int(parse_time(body[f"period_{edge}"]).timestamp()) for edge in ("start", "end"))
    ours = body["lines"][0]["amount"]
    differing = '[["acme", "llm_tokens", 1326000, 1326070]]'
    compared = [
        ("b-1", "B", now - DAY, now, 4, 1_403_000, 70, "none", differing),
        ("c-1", "C", start, end, 3, ours, 90, "page", f'[["zebra", "proration", {ours}, {ours + 90}]]'),
        ("e-1", "E", now, now, 12, 810_000, 0, "none", "[]"),
    ]
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        theirs = f"it has ${(ours + 90) / 100:.2f}, and ours ${ours / 100:.2f}"
        why = f"Stripe's draft differs from ours: beside the same lines {theirs}"
        database.execute("UPDATE invoices SET state = 'held', held_why = ? WHERE id = ?", [why, invoice])
        columns = "id, kind, since, until, at, compared, units, different, level, rows"
        filled = [(*one[:4], now * 1000, *one[4:]) for one in compared]
        database.executemany(f"INSERT INTO reconciliations ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", filled)
    for path in ("/console/business-metrics", "/console/refusals"):
        until(partial(is_worked_out, stage, path), "the figures are worked out")
    return invoice


def is_worked_out(stage: PagesStage, path: str) -> bool:
    """Return whether a page has its figures."""
    return "One moment" not in stage.operator.get(path).text
