"""How long pages take where there is much: a million customers, and a ledger of many rows.

    .venv/bin/python -m loadtest.pages --customers 1000000 --rows 40000000

It fills a database of PostgreSQL, or with `--sqlite` a file of SQLite, starts a collector on it, and asks for each page
of console and portal again and again, one request at a time. It does so for twenty operators and twenty customers who
have signed in, and for three customers who have very much of something (`page_data.EXTREMES`). For each page it prints
the time to the first byte and the bytes sent; then how many requests for the public status a core answers, by wrk.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from edgeproxy.collector.database.database import Database
from loadtest import page_data
from loadtest.page_data import SESSIONS, name_of, secret_of
from loadtest.testbed.collector import Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until

GOAL_MS, GOAL_BYTES, GOAL_STATUS = 150.0, 90_000, 2000.0
PATIENCE = 600.0
"""Seconds until a collector is ready and has computed its figures."""
RESTING = ("plans", "list-costs")
"""The jobs that check all customers with a plan. They pause for longer than they work."""
METERS = {
    "requests": {"count": "requests"},
    "tokens": {"count": "events", "dimensions": {"model": 50}},
    "refused": {"count": "refusals"},
    page_data.BY_KEY: {"count": "events", "dimensions": {"key": page_data.USED_KEYS}},
}
BILLING = {"credits": {"cogs": {"tokens": "0.0001"}}}
TIERS = {
    "basic": {"limits": [{"rate": "600/min"}], "quotas": [{"meter": "requests", "per": "month", "included": 100_000}]},
    **{name: {} for name in ("free", "standard", "enterprise")},
}
FIGURES = ("plan", "spent", "overdue", "cap_percent", "last_call_on")
CONSOLE = (
    *("", "/edges", "/refusals", "/incidents", "/alerts", "/quarantine", "/tokens"),
    *("/customers", "/customers?cursor={late}", "/customers?sort=-name", "/customers?sort=tier"),
    *(f"/customers?sort={sign}{name}" for name in FIGURES for sign in ("", "-")),
    *("/customers?plan=standard", "/customers?plan=nothing", "/customers?plan=standard&sort=-spent"),
    *("/customers?min_spent=500000", "/customers?min_spent=600000", "/customers?min_overdue=1&sort=-spent"),
    *(
        "/customers?min_overdue=1",
        "/customers?min_cap_percent=100",
        "/customers?min_cap_percent=100&sort=-last_call_on",
    ),
    *("/customers?not_called_days=90", "/customers?not_called_days=3000&sort=-overdue"),
    *("/customers/{first}", "/customers/{middle}", "/customers/{last}"),
    *("/audit", "/audit?actor=unknown", "/audit?action=denied", "/audit?target={middle}", "/audit?actor=nobody"),
    *("/invoices", "/invoices?state=", "/invoices?state=open", "/invoices?state=paid", "/invoices?customer={first}"),
    *("/invoices/{invoice}", "/rollout", "/reconciliation", "/business-metrics", "/price-changes", "/disputes"),
    *("/jobs", "/new-customer", "/edges/edge-1000"),
    *(f"/customers/{{middle}}/{part}" for part in ("usage", "credits", "plan")),
)
CONSOLE_OF_EXTREMES = (
    *("/customers/{name}", "/customers/{name}/usage", "/customers/{name}/usage?meter={by_key}&by=key"),
    *("/customers/{name}/credits", "/customers/{name}/plan", "/invoices?customer={name}", "/invoices/{invoice}"),
    "/audit?target={name}",
)
"""Pages about each customer of EXTREMES."""
SEARCHES = ("{middle}", "cust", "edge_v1_{none}", "nobody@example.com")
"""Search texts: a name, the start of many names, a key, the address of a contact. The form posts them."""
PORTAL = (
    *("", "/month", "/usage", "/limits", "/keys", "/alerts", "/plan", "/invoices", "/invoices/details", "/credits"),
    *("/team", "/data"),
)
PORTAL_OF_EXTREMES = (
    *(*PORTAL, "/usage?meter={by_key}&by=key", "/keys?sort=name", "/keys?sort=-last_used_on", "/invoices/{invoice}"),
    "/keys/{key}",
)
"""Pages for each customer of EXTREMES."""


def main(arguments: list[str]) -> int:
    """Measure all pages. Returns 1 if a page is slower or larger than its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=400_000, help="of the ledger, in hours of the last 30 days")
    parser.add_argument("--requests", type=int, default=100, help="of each page")
    parser.add_argument("--sqlite", action="store_true", help="the database is a file")
    parser.add_argument("--database", default="", help="URL of an empty database, or of one that a run has filled")
    parser.add_argument("--only", default="", help="pages whose path has this")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pages-")))
        is_ours = not options.database and not options.sqlite
        server = stack.enter_context(closing(Postgresql())) if is_ours else None
        url = options.database or (f"sqlite:///{folder}/ledger.db" if server is None else server.database())
        collector = stack.enter_context(closing(collector_on(folder, url)))
        begin(collector)  # The first start creates the tables and records the plans.
        collector.end()
        if not asyncio.run(has_customers(url)):
            began = time.monotonic()
            rows = page_data.fill(url, options.customers, options.rows)
            took = time.monotonic() - began
            print(f"{options.customers:,} customers, {rows:,} rows, made in {took:.0f} s", flush=True)
        if server is not None:
            print(f"{server.size() / 1e9:.1f} GB", flush=True)
        began = time.monotonic()
        begin(collector)
        print(f"the collector was ready after {time.monotonic() - began:.1f} s", flush=True)
        until(lambda: has_looked(collector), "the figures of yesterday are read", seconds=PATIENCE)
        print(f"and had read yesterday's figures after {time.monotonic() - began:.1f} s", flush=True)
        until(lambda: has_run_jobs(collector), "each job has run once", seconds=PATIENCE)
        print(f"and had run each job after {time.monotonic() - began:.1f} s", flush=True)
        asyncio.run(note_sessions(url))
        is_good = measured(collector, server, options)
        return 0 if status_answers(collector) and is_good else 1


def collector_on(folder: Path, url: str) -> Collector:
    """Return a collector that sells plans, and has pages and regions to watch."""
    collector = Collector(folder / "collector", url, meters=METERS)
    regions = {f"region-{n}": {"url": f"http://{HOST}:{collector.port}/healthz"} for n in range(page_data.REGIONS)}
    collector.settings |= {"tiers": TIERS, "customers": {}, "pages": {"status": {"regions": regions}}}
    collector.settings["billing"] |= BILLING
    return collector


def begin(collector: Collector) -> None:
    """Start a collector and return once it is ready."""
    collector.begin()
    until(collector.ready, "the collector is ready", seconds=PATIENCE)


def has_looked(collector: Collector) -> bool:
    """Return whether the collector has computed the business metrics once."""
    return b"\nbilling_liability_usd " in collector.get("/metrics", token=None).body


def has_run_jobs(collector: Collector) -> bool:
    """Return whether each job has run once. First runs also do the work of earlier days.

    A job that has the name of its lock holds that lock for other jobs and never ends. Jobs of RESTING pause
    most of the time.
    """
    jobs = collector.get("/v1/jobs").json()["jobs"]
    return all(job["ended_at"] or job["name"] in (job["lock"], *RESTING) for job in jobs)


async def has_customers(url: str) -> bool:
    """Return whether an earlier run has filled this database."""
    database = await Database.connect(url)
    try:
        async with database.reading() as connection:
            rows = await connection.exec_driver_sql("SELECT 1 FROM customers LIMIT 1")
            return rows.first() is not None
    finally:
        await database.close()


async def note_sessions(url: str) -> None:
    """Refresh all sessions, so that none has expired."""
    database = await Database.connect(url)
    try:
        async with database.writing() as connection:
            now = int(time.time())
            await connection.exec_driver_sql(f"UPDATE sessions SET created_at = {now}, seen_at = {now}")
    finally:
        await database.close()


# ---- pages


def paths(customers: int) -> Iterator[tuple[str, str, str]]:
    """Yield the pages to request: their reader (`page_data.secret_of`), the path, and a name."""
    places = {"first": 0, "middle": customers // 2, "last": customers - 1}
    names = {place: name_of(number) for place, number in places.items()}
    names["late"] = f"018f0000-0000-7000-8000-{100_000_000_000 + customers - 100}"
    names["invoice"] = page_data.invoice_of(0)
    for page in CONSOLE:
        yield "operator", "/console" + page.format(**names), "/console" + page
    for page in PORTAL:
        yield "customer", "/account" + page, "/account" + page
    for which in page_data.EXTREMES:
        number = page_data.extreme_of(which, customers)
        names = {"name": name_of(number), "invoice": page_data.invoice_of(number), "by_key": page_data.BY_KEY}
        for page in CONSOLE_OF_EXTREMES:
            yield "operator", "/console" + page.format(**names), f"{which}: /console{page}"
        for page in PORTAL_OF_EXTREMES:
            if "{key}" not in page or which == "keys":
                path = page.format(**names, key=page_data.key_of_many())
                yield which, "/account" + path, f"{which}: /account{page}"


def searches(customers: int) -> Iterator[tuple[str, str, str]]:
    """Yield the searches of an operator in the form of `paths`, with the text in place of the path."""
    for text in SEARCHES:
        written = text.format(middle=name_of(customers // 2), none="0" * 24)
        yield "operator", written, f"search {text}"


def read_form_tokens(connection: HTTPConnection) -> list[str]:
    """Return the token of the forms of each operator's session."""
    tokens = []
    for number in range(SESSIONS):
        connection.request(
            "GET", "/console/jobs", headers={"Cookie": f"edgeproxy-session={secret_of('operator', number)}"}
        )
        (token, *_) = re.findall(r'name="form" value="([^"]+)"', connection.getresponse().read().decode())
        tokens.append(token)
    return tokens


def measured(collector: Collector, server: Postgresql | None, options: argparse.Namespace) -> bool:
    """Print the time of each page. Returns whether all are within the goals.

    CPU is the time of the collector and the server meanwhile, in milliseconds per request.
    """
    is_good = True
    print(f"{'page':44} {'p50 ms':>8} {'p95 ms':>8} {'first':>8} {'CPU':>6} {'server':>6} {'bytes':>7}")
    with closing(HTTPConnection(HOST, collector.port, timeout=PATIENCE)) as connection:
        tokens = read_form_tokens(connection)
        for who, path, called in [*paths(options.customers), *searches(options.customers)]:
            if options.only not in called:
                continue
            forms = tokens if called.startswith("search ") else None
            times, size = [], 0
            waited = (0.0, 0.0) if forms else until_worked_out(connection, who, path)
            before = used(collector, server)
            for number in range(options.requests):
                took, size, _ = asked(connection, who, path, number, forms)
                times.append(took)
            cpu = [
                (now - then) * 1000 / options.requests
                for now, then in zip(used(collector, server), before, strict=True)
            ]
            p95 = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
            within = p95 <= GOAL_MS and size <= GOAL_BYTES
            is_good &= within
            figures = (
                f"{statistics.median(times):8.1f} {p95:8.1f} {waited[0]:8.1f} {cpu[0]:6.1f} {cpu[1]:6.1f} {size:7}"
            )
            worked = f"  worked out within {waited[1]:.0f} s" if waited[1] else ""
            print(f"{called:44} {figures}{'' if within else '  above the goal'}{worked}", flush=True)
    return is_good


def used(collector: Collector, server: Postgresql | None) -> tuple[float, float]:
    """Return the seconds of CPU that the collector and the database server have used."""
    return collector.cpu(), 0.0 if server is None else server.cpu()


def until_worked_out(connection: HTTPConnection, who: str, path: str) -> tuple[float, float]:
    """Request a page until it shows its figures. Returns the milliseconds of the first answer, and the seconds until
    the figures.
    """
    began = time.monotonic()
    first, _, waits = asked(connection, who, path, 0)
    while waits:
        assert time.monotonic() - began < PATIENCE, path
        time.sleep(1.0)
        _, _, waits = asked(connection, who, path, 0)
        if not waits:
            return first, time.monotonic() - began
    return first, 0.0


def asked(
    connection: HTTPConnection, who: str, path: str, number: int, forms: list[str] | None = None
) -> tuple[float, int, bool]:
    """Send one request in one of the sessions. Returns milliseconds to the first byte, bytes, and whether figures are
    missing.

    With form tokens, `path` is a search text; a single match is a redirect. Each session may request billing pages
    100 times a minute.
    """
    cookie = f"edgeproxy-session={secret_of(who, number % SESSIONS)}"
    while True:
        began = time.perf_counter()
        fields = {"Cookie": cookie, "Accept-Language": "en"}
        if forms is None:
            connection.request("GET", path, headers=fields)
        else:
            fields |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"http://{HOST}:{connection.port}",
            }
            connection.request(
                "POST", "/console/search", urlencode({"form": forms[number % SESSIONS], "q": path}), fields
            )
        answer = connection.getresponse()  # Returns with the head, which comes with the first byte.
        took = (time.perf_counter() - began) * 1000
        body = answer.read()
        if answer.status != 429:
            break
        time.sleep(1.0)
    assert answer.status in ((200,) if forms is None else (200, 303)), (path, answer.status, body[:2000])
    return took, len(body), "Refresh" in answer.headers


# ---- the public status


def status_answers(collector: Collector) -> bool:
    """Print how many status requests a core answers. Returns whether they reach the goal."""
    if shutil.which("wrk") is None:
        print("the public status was not measured: there is no wrk here")
        return True
    assert collector.process is not None
    os.sched_setaffinity(collector.process.pid, {0})
    is_good = True
    for path in ("/status", "/status.json"):
        for coding in ("gzip", "identity"):
            before, began = collector.cpu(), time.monotonic()
            url = f"http://{HOST}:{collector.port}{path}"
            command = ["wrk", "-t1", "-c32", "-d10s", "-H", f"Accept-Encoding: {coding}", url]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            busy, took = collector.cpu() - before, time.monotonic() - began
            answered = re.search(r"(\d+) requests in", output)
            assert answered is not None, output
            assert "Non-2xx" not in output, output
            rate, of_core = int(answered[1]) / took, int(answered[1]) / busy
            is_good &= of_core >= GOAL_STATUS
            print(f"{path} ({coding}): {rate:.0f}/s in {busy / took:.0%} of a core, {of_core:.0f}/s a core", flush=True)
    return is_good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
