"""Lists of the console over real sockets: sorted and filtered by the server, page by page, and as files."""

import csv
import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import list_figures
from edgeproxy.collector.billing.invoices import receivables
from edgeproxy.collector.billing.reports import list_costs
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, customers
from edgeproxy.collector.languages.reader import create_reader, parse_time
from edgeproxy.config.collector.load import load_collector
from edgeproxy.wire.key_uses import KeysUsed
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage
from tests.support.used_database import use_database

NAMES = ("cedar", "aspen", "birch")
FORMULA = "=HYPERLINK(0)"
OVERDUE: dict[str, Any] = dict.fromkeys(
    ("period_start", "period_end", "closes_at", "tries", "failures", "try_at", "created_at"), 0
)
OVERDUE |= dict.fromkeys(("subtotal", "total", "amount_due"), 4321)
OVERDUE |= {"id": "overdue", "period": "2026-01-01", "kind": "period", "state": "open", "booked": "open"}
OVERDUE |= {"currency": "usd"}
"""An invoice that no job changes."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    with closing(PagesStage(tmp_path_factory.mktemp("lists"))) as stage:
        stage.collector.end()
        stage.collector.settings["meters"]["cost"] = {"count": "cost"}
        stage.collector.settings["tiers"]["capped"] = {"caps": {"day": 1000}}
        stage.collector.start()
        for name in NAMES:
            body = {"name": name, "tier": "standard", "external_id": f"{FORMULA}{name}"}
            assert stage.collector.send("POST", "/v1/customers", body).status == 201
        yield stage


def rows_of(stage: PagesStage, path: str) -> list[dict[str, str]]:
    """The rows of a file that a list is sent as."""
    answer = stage.operator.client.get(f"{stage.site}{path}")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8", answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_customers_are_sorted_and_filtered_and_their_file_has_no_formula(stage: PagesStage) -> None:
    operator = stage.operator
    page = operator.get("/console/customers?tier=standard&sort=name")
    links = [link.rpartition("/")[2] for link in page.links if link.startswith("/console/customers/")]
    assert links == sorted(NAMES)
    assert 'aria-sort="ascending"' in operator.answer.text
    (turned,) = [link for link in page.links if "sort=-name" in link]
    assert "tier=standard" in turned, "an order keeps the filter"
    (file,) = [link for link in operator.get(f"/console/customers{turned}").links if "format=csv" in link]
    rows = rows_of(stage, f"/console/customers{file}")
    assert [row["name"] for row in rows] == sorted(NAMES, reverse=True)
    assert {row["external_id"] for row in rows} == {f"'{FORMULA}{name}" for name in NAMES}
    for odd in ("sort=settings", "tier=nobody", "cursor=x", "format=xml"):
        operator.get(f"/console/customers?{odd}")
        assert operator.status == (400 if odd == "cursor=x" else 200)


def test_a_list_is_read_page_by_page_in_each_order(stage: PagesStage) -> None:
    give_figures(stage)
    missing: dict[str, Any] = {"plan": "", "spent": -1, "cap_percent": -1, "last_call_on": ""}
    for order in ("created_at", "name", "tier", "plan", "spent", "overdue", "cap_percent", "last_call_on"):
        for sort in (order, f"-{order}"):
            whole: list[Any] = stage.collector.get("/v1/customers", token=ADMIN, sort=sort).json()["customers"]
            seen: list[Any] = []
            cursor = None
            while True:
                query: dict[str, str] = {"cursor": cursor} if cursor else {}
                page = stage.collector.get("/v1/customers", token=ADMIN, sort=sort, limit="2", **query).json()
                seen += page["customers"]
                cursor = page.get("next")
                if cursor is None:
                    break
            assert seen == whole, sort
            if order != "created_at":
                values = [missing[order] if one[order] is None else one[order] for one in whole]
                assert values == sorted(values, reverse=sort[0] == "-")
                assert len(set(values)) > 1, order


def give_figures(stage: PagesStage) -> None:
    """Make a customer with a plan, usage, an overdue invoice, a used cap and a called key, and record its figures."""
    if stage.collector.get("/v1/customers/owing").status == 200:
        return
    post, now = partial(stage.collector.send, "POST"), time.time()
    assert post("/v1/customers", {"name": "owing", "tier": "capped"}).status == 201
    assert post("/v1/customers", {"name": "silent", "tier": "capped"}).status == 201
    secret = post("/v1/customers/owing/keys", {}).json()["secret"]
    assert post("/billing/subscription?customer=owing", {"plan": "standard"}).status == 201
    assert stage.collector.send("PATCH", "/v1/customers/owing", {"tier": "capped"}).status == 200
    used = KeysUsed()
    used.record([hashlib.sha256(secret.encode()).digest()], now)
    rows = (("owing", "api_calls", "v1", 3_000_000), ("owing", "cost", "v1", 1239), ("silent", "cost", "v1", 4))
    assert stage.collector.post(Chain(since=int(now) - 5).next(*rows), fields=used.format_fields()).status == 200

    async def record(database: Database) -> None:
        settings = load_collector(stage.collector.file, os.environ)
        async with database.writing() as connection:
            owing = sa.select(customers.c.id).where(customers.c.name == "owing")
            id_ = (await connection.execute(owing)).scalar_one()
            await connection.execute(sa.insert(invoices), [{**OVERDUE, "customer": id_, "due_at": int(now) - 3 * DAY}])
            await list_figures.record_overdue(connection, await receivables.sum_overdue(connection, now))
        assert await list_costs.record_costs(database, "", 100, settings.meters, now)

    use_database(stage.collector.settings["database"], record)

    def is_recorded() -> bool:
        listed = {
            customer["name"]: customer
            for customer in stage.collector.get("/v1/customers", token=ADMIN).json()["customers"]
        }
        caps = [listed[name]["cap_percent"] for name in ("owing", "silent")]
        return listed["owing"]["last_call_on"] is not None and None not in caps

    until(is_recorded, "the last call and the caps are recorded")


def test_the_list_of_customers_agrees_with_a_customers_page_and_the_api(stage: PagesStage) -> None:
    give_figures(stage)
    get = partial(stage.collector.get, token=ADMIN)
    (listed,) = get("/v1/customers", name="owing").json()["customers"]
    spend = get("/billing/spend-alerts", customer="owing").json()
    assert (listed["spent"], listed["currency"]) == (spend["spent"], spend["currency"])
    assert listed["spent"] > 0
    assert listed["plan"] == get("/billing/subscription", customer="owing").json()["plan"].partition("@")[0]
    (cap,) = [quota for quota in get("/v1/customers/owing/quotas").json()["quotas"] if quota["quota"] == "cost-day"]
    assert listed["cap_percent"] == cap["percent"] == 123.9
    (key,) = get("/v1/customers/owing/keys").json()["keys"]
    assert listed["last_call_on"] == key["last_used_on"]

    reader = create_reader("en")
    spent, day = reader.money(listed["spent"], listed["currency"]), reader.day(listed["last_call_on"])
    page = re.sub(r"\s+", " ", stage.operator.get("/console/customers/owing").text)
    for fact in (f"Cost of this period{spent}", "Overdue$43.21", f"Last call{day}", "at the limit"):
        assert fact in page, fact
    stage.operator.get("/console/customers?sort=-spent")
    (row,) = [row for row in stage.operator.answer.text.split("<tr ") if "/console/customers/owing" in row]
    for cell in (f">{spent}<", ">$43.21<", ">Standard<", ">124%<", f">{day}<", reader.moment(listed["spent_at"])):
        assert cell in row, cell
    (cells,) = [one for one in rows_of(stage, "/console/customers?format=csv&sort=-spent") if one["name"] == "owing"]
    assert Decimal(cells["spent"]) * 100 == listed["spent"]
    assert [cells[name] for name in ("overdue", "plan", "last_call_on", "cap_percent", "spent_at")] == [
        *("43.21", "standard", key["last_used_on"], "123.9", listed["spent_at"])
    ]


@pytest.mark.parametrize("filters", [{"min_spent": "100"}, {"min_overdue": "1"}, {"min_cap_percent": "100"}])
def test_customers_are_filtered_by_their_figures(stage: PagesStage, filters: dict[str, str]) -> None:
    give_figures(stage)

    def list_names(**query: str) -> set[str]:
        names = {
            customer["name"]
            for customer in stage.collector.get("/v1/customers", token=ADMIN, **query).json()["customers"]
        }
        links = stage.operator.get(f"/console/customers?{urlencode(query)}").links
        assert {link.rpartition("/")[2] for link in links if link.startswith("/console/customers/")} == names
        return names & {"owing", "silent"}

    assert list_names(**filters) == {"owing"}
    assert list_names(**filters, sort="-last_call_on", plan="standard") == {"owing"}
    assert list_names(plan="standard") == {"owing"}
    assert list_names(not_called_days="1") == {"silent"}
    for above in ({"min_spent": str(10**9)}, {"min_overdue": "4322"}, {"min_cap_percent": "124"}):
        assert stage.collector.get("/v1/customers", token=ADMIN, **above).json()["customers"] == []
    without = stage.collector.get("/v1/customers", token=ADMIN, plan="").json()["customers"]
    assert [customer["plan"] for customer in without] == [None] * len(without) != []


def test_roles_without_invoices_cannot_see_sort_or_filter_amounts(stage: PagesStage) -> None:
    give_figures(stage)
    for query in ({"sort": "spent"}, {"sort": "-overdue"}, {"min_overdue": "1"}, {"plan": "standard"}):
        assert stage.collector.get("/v1/customers", **query).status == 403, query
    (listed,) = stage.collector.get("/v1/customers", name="owing").json()["customers"]
    assert not {"plan", "spent", "spent_at", "overdue", "cap_percent"} & listed.keys()
    assert listed["last_call_on"] is not None
    assert stage.collector.get("/v1/customers", sort="-last_call_on").status == 200


def test_customer_list_drops_ended_plans_paid_invoices_and_past_days(stage: PagesStage) -> None:
    give_figures(stage)
    response = stage.collector.send("DELETE", "/billing/subscription?customer=owing&when=now", {})
    assert response.status == 200, response

    async def look_tomorrow(database: Database) -> None:
        async with database.writing() as connection:
            await connection.execute(sa.delete(invoices).where(invoices.c.id == OVERDUE["id"]))
            await list_figures.record_overdue(connection, await receivables.sum_overdue(connection, time.time()))
            await list_figures.end_caps(connection, time.time() + DAY)

    use_database(stage.collector.settings["database"], look_tomorrow)
    (ended,) = stage.collector.get("/v1/customers", token=ADMIN, name="owing").json()["customers"]
    figures = {name: ended[name] for name in ("plan", "spent", "spent_at", "overdue", "cap_percent")}
    assert figures == {"plan": None, "spent": None, "spent_at": None, "overdue": 0, "cap_percent": None}


def test_the_list_has_amounts_of_each_currency_and_a_long_name_from_right_to_left(stage: PagesStage) -> None:
    name = ("شركة الاختبار " * 40)[:400]
    amounts = {
        "nought": ("usd", 0, ">$0.00<", "0.00"),
        "much": ("usd", 10**11, ">$1,000,000,000.00<", "1000000000.00"),
        "yen": ("jpy", 10**9, ">¥1,000,000,000<", "1000000000"),
        "dinars": ("kwd", 1_234_567, ">KWD\xa01,234.567<", "1234.567"),
    }
    for customer in amounts:
        body = {"name": customer, "tier": "standard", "metadata": {"name": name}}
        assert stage.collector.send("POST", "/v1/customers", body).status == 201

    async def write(database: Database) -> None:
        async with database.writing() as connection:
            for customer, (currency, amount, *_) in amounts.items():
                values = {"currency": currency, "plan": "standard", "spent": amount, "spent_at": int(time.time())}
                await connection.execute(sa.update(customers).where(customers.c.name == customer).values(values))

    use_database(stage.collector.settings["database"], write)
    stage.operator.get("/console/customers?sort=-spent")
    rows = stage.operator.answer.text.split("<tr ")
    cells = {row["name"]: row["spent"] for row in rows_of(stage, "/console/customers?format=csv")}
    for customer, (_, _, shown, written) in amounts.items():
        (row,) = [row for row in rows if f"/console/customers/{customer}" in row]
        assert f"<bdi>{name[:70]}" in row
        assert (shown in row, cells[customer]) == (True, written), row


def test_key_list_sorts_and_exports_keys_of_one_customer_without_secrets(stage: PagesStage) -> None:
    made = [stage.collector.send("POST", "/v1/customers/acme/keys", {"name": name}).json() for name in NAMES]
    page = stage.operator.get("/console/customers/acme?sort=-name").text
    assert page.index("cedar") < page.index("birch") < page.index("aspen")
    rows = rows_of(stage, "/console/customers/acme/keys/csv?sort=name")
    assert [row["name"] for row in rows] == sorted(NAMES)
    text = stage.operator.client.get(f"{stage.site}/console/customers/acme/keys/csv").text
    assert not [one for one in made if one["secret"] in text]
    with stage.customer("bolt") as bolt:
        assert bolt.client.get(f"{stage.site}/account/keys/csv").text.splitlines()[1:] == []
        assert bolt.client.get(f"{stage.site}/console/customers/acme/keys/csv").status_code == 403


def test_edges_are_found_by_region_and_state_the_furthest_behind_first(stage: PagesStage) -> None:
    now = int(time.time())
    for edge, region, since in (("e-1", "eu", now - 30), ("e-2", "eu", now - DAY), ("e-3", "us", now - 2 * DAY)):
        assert stage.collector.post(Chain(edge, region, since).next()).status == 200
    rows = rows_of(stage, "/console/edges?format=csv&state=late&sort=-lag_s")
    assert [(row["edge"], row["state"]) for row in rows] == [("e-3", "late"), ("e-2", "late")]
    text = stage.operator.get("/console/edges?region=us").text
    assert ("e-3" in text, "e-1" in text) == (True, False)


def test_the_audit_log_is_filtered_and_turned_round(stage: PagesStage) -> None:
    rows = rows_of(stage, "/console/audit?format=csv&action=customer.create&sort=at")
    created = [row for row in rows if row["target"] in NAMES]
    assert [row["target"] for row in created] == list(NAMES)
    assert '"tier":"standard"' in created[-1]["after"]
    links = stage.operator.get("/console/audit?action=customer.create&target=cedar").links
    assert [link for link in links if link.startswith("/console/customers/")] == ["/console/customers/cedar"]
    assert rows_of(stage, "/console/audit?format=csv&to=2026-01-01T00:00") == []
    assert rows_of(stage, "/console/audit?format=csv&hours=1&action=customer.create&sort=at") == rows
    for end in ("9999999", "abc", "2026-11-26", "2026-11-26T10:00:00Z"):
        stage.operator.get(f"/console/audit?from={end}&to={end}")
        assert stage.operator.status == 200, "an invalid time is ignored"


def test_short_invoice_lists_sort_by_amount_due(stage: PagesStage) -> None:
    for name, plan in (("cedar", "standard"), ("aspen", "enterprise")):
        answer = stage.collector.send("POST", f"/billing/subscription?customer={name}", {"plan": plan})
        assert answer.status == 201
    query = {"sort": "-total", "token": ADMIN}
    assert stage.collector.get("/billing/invoices", **query).status == 400, "not of all invoices that there ever were"
    assert stage.collector.get("/billing/invoices", **query, state="paid").status == 400
    state = stage.collector.get("/billing/invoices", token=ADMIN).json()["invoices"][0]["state"]
    assert stage.collector.get("/billing/invoices", **query, customer="cedar", state=state).status == 200
    rows = rows_of(stage, "/console/invoices?format=csv&state=&customer=&sort=-total")
    assert {row["customer"] for row in rows} >= {"cedar", "aspen"}
    (own,) = rows_of(stage, "/console/invoices?format=csv&customer=cedar&state=&sort=-total")
    (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="cedar").json()["invoices"]
    assert (own["id"], round(float(own["total"]) * 100)) == (invoice["id"], invoice["total"])


def test_open_disputes_are_listed_with_the_last_time_for_an_answer(stage: PagesStage) -> None:
    stage.join("elm")
    assert stage.collector.send("POST", "/billing/subscription?customer=elm", {"plan": "standard"}).status == 201
    (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="elm").json()["invoices"]
    dispute_id = "00000000-0000-7000-8000-00000000000{}"
    stage.collector.execute(
        "INSERT INTO disputes"
        " (id, state, answer_by, taken_off, invoice, customer, amount, currency, reason, created_at)"
        " SELECT ?, ?, ?, ?, id, customer, 9900, 'usd', 'fraudulent', 0 FROM invoices WHERE id = ?",
        (dispute_id.format(1), "lost", None, 9900, invoice["id"]),
        (dispute_id.format(2), "needs_response", 1_900_000_000, 0, invoice["id"]),
    )
    listed = " ".join(stage.operator.get("/console/disputes").text.split())
    assert "elm" in listed
    assert "2030" in listed, "the last time for an answer"
    assert f"/console/invoices/{invoice['id']}" in stage.operator.get("/console/disputes").links
    rows = rows_of(stage, "/console/disputes?format=csv&state=&customer=elm")
    assert [(row["state"], row["amount"], row["amount_lost"]) for row in rows] == [
        ("needs_response", "99.00", "0.00"),
        ("lost", "99.00", "99.00"),
    ]
    first = stage.collector.get("/billing/disputes", token=ADMIN, limit="1").json()
    rest = stage.collector.get("/billing/disputes", token=ADMIN, limit="1", cursor=first["next"]).json()
    assert [one["disputes"][0]["id"] for one in (first, rest)] == [dispute_id.format(2), dispute_id.format(1)]


def test_held_invoice_shows_its_differences_to_operators_only(stage: PagesStage) -> None:
    stage.join("dune")
    assert stage.collector.send("POST", "/billing/subscription?customer=dune", {"plan": "standard"}).status == 201
    (listed,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="dune").json()["invoices"]
    since, until = (int(parse_time(listed[f"period_{edge}"]).timestamp()) for edge in ("start", "end"))
    rows = '[["dune", "proration", 900, 990], ["dune", "tokens in units", 500, 497], ["dunes", "fee", 1, 2]]'
    stage.collector.execute("UPDATE invoices SET state = 'held', held_why = 'they differ' WHERE id = ?", [listed["id"]])
    stage.collector.execute(
        "INSERT INTO reconciliations (id, kind, since, until, at, compared, units, different, level, rows)"
        " VALUES (?, 'C', ?, ?, ?, 3, 1400, 93, 'page', ?)",
        ("c-1", since, until, 1, '[["dune", "fee", 7, 8]]'),
        ("c-2", since, until, 2, rows),
        ("c-3", since, until, 3, '[["cedar", "fee", 7, 8]]'),
    )
    path = f"/billing/invoices/{listed['id']}"
    differences = stage.collector.get(path, token=ADMIN).json()["differences"]
    numbers = [
        (difference["meter"], difference["of"], difference["ours"], difference["theirs"], difference["difference"])
        for difference in differences
    ]
    assert numbers == [("proration", "amount", 900, 990, 90), ("tokens", "quantity", 500, 497, -3)]
    assert "void it, or credit" in differences[0]["action"]
    text = " ".join(stage.operator.get(f"/console/invoices/{listed['id']}").text.split())
    assert "Share of a fee $9.00 $9.90 +$0.90 Too high at Stripe" in text
    assert "Tokens 500 497 -3 Stripe has counted other usage" in text
    assert "Together the differences are $0.90." in text
    # The units that differ have an amount that Stripe alone knows.
    acceptance = stage.collector.get(path, token=ADMIN).json()["acceptance"]
    assert (acceptance, "Accept it as it is" in text) == ({"amount": None, "of": "stripe"}, True)
    with stage.customer("dune") as own:
        assert "Too high at Stripe" not in own.get(f"/account/invoices/{listed['id']}").text
    token = stage.collector.send("POST", "/v1/tokens", {"name": "dune", "customer": "dune"})
    assert token.status == 201
    assert not {"differences", "acceptance"} & set(stage.collector.get(path, token=token.json()["secret"]).json())
    stage.collector.execute("UPDATE invoices SET state = 'open' WHERE id = ?", [listed["id"]])
    assert "Too high at Stripe" not in stage.operator.get(f"/console/invoices/{listed['id']}").text
    assert stage.operator.status == 200
