"""Lists of the console over real sockets: sorted and filtered by the server, page by page, and as files."""

import csv
import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.reader import parse_time
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN
from tests.support.site import PagesStage

NAMES = ("cedar", "aspen", "birch")
FORMULA = "=HYPERLINK(0)"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    with closing(PagesStage(tmp_path_factory.mktemp("lists"))) as made:
        for name in NAMES:
            body = {"name": name, "tier": "standard", "external_id": f"{FORMULA}{name}"}
            assert made.collector.send("POST", "/v1/customers", body).status == 201
        yield made


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
    for order in ("created_at", "name", "tier"):
        for sort in (order, f"-{order}"):
            whole = stage.collector.get("/v1/customers", sort=sort).json()["customers"]
            seen, cursor = [], None
            while True:
                query = {"cursor": cursor} if cursor else {}
                page = stage.collector.get("/v1/customers", sort=sort, limit="2", **query).json()
                seen += page["customers"]
                cursor = page.get("next")
                if cursor is None:
                    break
            assert seen == whole, sort
            if order != "created_at":
                assert [one[order] for one in whole] == sorted((one[order] for one in whole), reverse=sort[0] == "-")


def test_keys_are_sorted_and_sent_without_secrets_by_their_customer_alone(stage: PagesStage) -> None:
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
    assert [row["target"] for row in rows][-3:] == list(NAMES)
    assert '"tier":"standard"' in rows[-1]["after"]
    links = stage.operator.get("/console/audit?action=customer.create&target=cedar").links
    assert [link for link in links if link.startswith("/console/customers/")] == ["/console/customers/cedar"]
    assert rows_of(stage, "/console/audit?format=csv&to=2026-01-01T00:00") == []
    assert rows_of(stage, "/console/audit?format=csv&hours=1&action=customer.create&sort=at") == rows
    for end in ("9999999", "abc", "2026-11-26", "2026-11-26T10:00:00Z"):
        stage.operator.get(f"/console/audit?from={end}&to={end}")
        assert stage.operator.status == 200, "what is no time is not asked for"


def test_invoices_are_sorted_by_what_is_due_where_they_are_few(stage: PagesStage) -> None:
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
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        of = "(SELECT customer FROM invoices WHERE id = ?)"
        columns = "id, customer, invoice, state, amount, currency, reason, answer_by, taken_off, created_at"
        for number, state, answer_by, lost in ((1, "lost", None, 9900), (2, "needs_response", 1_900_000_000, 0)):
            row = (
                dispute_id.format(number),
                invoice["id"],
                invoice["id"],
                state,
                9900,
                "usd",
                "fraudulent",
                answer_by,
                lost,
                0,
            )
            database.execute(f"INSERT INTO disputes ({columns}) VALUES (?, {of}, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    listed = " ".join(stage.operator.get("/console/disputes").text.split())
    assert "elm" in listed
    assert "2030" in listed, "the last time for an answer"
    assert f"/console/invoices/{invoice['id']}" in stage.operator.get("/console/disputes").links
    rows = rows_of(stage, "/console/disputes?format=csv&state=&customer=elm")
    assert [(row["state"], row["amount"], row["amount_lost"]) for row in rows] == [
        ("needs_response", "99.00", "0.00"),
        ("lost", "99.00", "99.00"),
    ]
    first = stage.collector.get("/billing/disputes", token=ADMIN, limit=1).json()
    rest = stage.collector.get("/billing/disputes", token=ADMIN, limit=1, cursor=first["next"]).json()
    assert [one["disputes"][0]["id"] for one in (first, rest)] == [dispute_id.format(2), dispute_id.format(1)]


def test_a_held_invoice_has_a_table_of_what_differs_which_its_customer_does_not_see(stage: PagesStage) -> None:
    stage.join("dune")
    assert stage.collector.send("POST", "/billing/subscription?customer=dune", {"plan": "standard"}).status == 201
    (listed,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="dune").json()["invoices"]
    since, until = (int(parse_time(listed[f"period_{edge}"]).timestamp()) for edge in ("start", "end"))
    rows = '[["dune", "proration", 900, 990], ["dune", "tokens in units", 500, 497], ["dunes", "fee", 1, 2]]'
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        database.execute("UPDATE invoices SET state = 'held', held_why = 'they differ' WHERE id = ?", [listed["id"]])
        columns = "id, kind, since, until, at, compared, units, different, level, rows"
        for name, kept in (("c-1", '[["dune", "fee", 7, 8]]'), ("c-2", rows), ("c-3", '[["cedar", "fee", 7, 8]]')):
            row = (name, "C", since, until, int(name[2:]), 3, 1400, 93, "page", kept)
            database.execute(f"INSERT INTO reconciliations ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    path = f"/billing/invoices/{listed['id']}"
    differences = stage.collector.get(path, token=ADMIN).json()["differences"]
    numbers = [(one["meter"], one["of"], one["ours"], one["theirs"], one["difference"]) for one in differences]
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
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        database.execute("UPDATE invoices SET state = 'open' WHERE id = ?", [listed["id"]])
    assert "Too high at Stripe" not in stage.operator.get(f"/console/invoices/{listed['id']}").text
    assert stage.operator.status == 200
