"""`GET /v1/usage`, as JSON and as CSV, and `GET /v1/edges`."""

import calendar
import csv
import io
import re
import socket
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import pytest

from edgeproxy.collector.ledger.queries import InvalidQueryError, parse_query
from edgeproxy.wire.batch import Row
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import only_sqlite

pytestmark = pytest.mark.both_databases

DAY = "2026-03-10"
"""Only the tests of this file ship usage of this day and of the day after it."""
NOON = calendar.timegm((2026, 3, 10, 12, 0, 0))


def ship(collector: Collector, edge: str, region: str, since: int, *rows: Row) -> None:
    """Ship one batch of a new edge."""
    answer = collector.post(Chain(edge, region, since).next(*rows))
    assert answer.status == 200, answer


RANGE = {"from": DAY, "to": "2026-03-12"}


@pytest.fixture(scope="module")
def filled(collector: Collector) -> Collector:
    """A collector with a few rows of every kind."""
    ship(collector, "a", "eu", NOON, ("acme", "requests", "v1", 1), ("acme", "egress", "v1", 1000))
    ship(collector, "b", "us", NOON + 59, ("acme", "requests", "v1", 2), ("bolt", "requests", "v1", 4))
    ship(collector, "c", "eu", NOON + 60, ("acme", "requests", "v2", 8))
    ship(collector, "d", "eu", NOON + 3600, ("acme", "requests", "v1", 16))
    ship(collector, "e", "eu", NOON + 86400, ("acme", "requests", "v1", 32), ("-", "requests", "h/p/*", 64))
    return collector


def rows(collector: Collector, by: str, **query: str) -> list[list[Any]]:
    """Return the rows of an answer as values in the order of `by`. Their sum must equal the answer's total."""
    usage = collector.usage(by=by, **RANGE, **query)
    value = sum(row["value"] for row in usage["rows"])
    if "totals" in usage:
        # Units of different meters cannot be added, so there is no total.
        assert (usage["total"], len(usage["totals"]) > 1) == (None, True)
        assert sum(usage["totals"].values()) == value
    else:
        assert usage["total"] == value
    assert all([*row] == [*by.split(","), "value"] for row in usage["rows"])
    return [[*row.values()] for row in usage["rows"]]


def test_there_is_no_total_over_different_units(filled: Collector) -> None:
    usage = filled.usage(**RANGE)
    assert usage["total"] is None
    assert usage["rows"] == [{"meter": meter, "value": value} for meter, value in usage["totals"].items()]
    assert len(usage["totals"]) > 1
    for meter, total in usage["totals"].items():
        assert filled.usage(**RANGE, meter=meter)["total"] == total
        assert "totals" not in filled.usage(**RANGE, meter=meter)


def test_usage_is_grouped_by_customer_meter_or_route(filled: Collector) -> None:
    assert rows(filled, "customer", meter="requests") == [["-", 64], ["acme", 59], ["bolt", 4]]
    assert rows(filled, "meter", customer="acme") == [["egress", 1000], ["requests", 59]]
    assert rows(filled, "region,route", meter="requests") == [
        ["eu", "h/p/*", 64], ["eu", "v1", 49], ["eu", "v2", 8], ["us", "v1", 6],
    ]  # fmt: skip
    assert rows(filled, "route,day", customer="bolt") == [["v1", f"{DAY}T00:00:00Z", 4]]
    assert filled.usage(customer="nobody") == {"total": 0, "rows": [], "unknown": {"customer": ["nobody"]}}
    assert rows(filled, "route", meter="requests", customer="acme", where="region:eu") == [["v1", 49], ["v2", 8]]
    assert rows(filled, "day,region", where="route:v2") == [[f"{DAY}T00:00:00Z", "eu", 8]]
    page = filled.usage(by="route", where="region:eu", limit="1", **RANGE)
    other = filled.get("/v1/usage", by="route", where="region:us", limit="1", cursor=page["next"], **RANGE)
    assert (other.status, "of another question" in other.json()["detail"]) == (400, True)


def test_from_is_inclusive_and_to_is_not(filled: Collector) -> None:
    def total(**query: str) -> int:
        usage: int = filled.usage(meter="requests", customer="acme", **query)["total"]
        return usage

    assert total(**{"from": f"{DAY}T12:00:00Z", "to": f"{DAY}T12:01:00Z"}) == 3
    assert total(**{"from": f"{DAY}T14:01:00+02:00", "to": f"{DAY}T13:00:01Z"}) == 24
    assert total(**{"from": f"{DAY}T12:00:00.5Z", "to": "2026-03-11"}) == 24
    assert total(**{"from": DAY, "to": DAY}) == 0
    assert total(to="2026-03-11") - total(to=DAY) == 27  # From 1970.


def test_the_month_so_far_is_the_default(collector: Collector) -> None:
    now = int(time.time())
    today = time.gmtime(now)
    begin = calendar.timegm((today.tm_year, today.tm_mon, 1, 0, 0, 0))
    ship(collector, "month-a", "eu", now, ("monthly", "requests", "v1", 1))
    ship(collector, "month-b", "eu", begin, ("monthly", "requests", "v1", 2))
    ship(collector, "month-c", "eu", begin - 1, ("monthly", "requests", "v1", 4))
    assert collector.get("/v1/usage", customer="monthly").json()["total"] == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"by": "week"}, "by: 'week' is not known, there are minute, hour, day, customer, meter, route, region"),
        ({"by": "day,day"}, "by: names something twice"),
        ({"from": "yesterday"}, "from: 'yesterday' is no time such as 2027-01-01T12:00:00Z, and no date"),
        ({"to": "2026-13-01"}, "to: '2026-13-01' is no time such as 2027-01-01T12:00:00Z, and no date"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "to: is before from"),
        ({"where": "v1"}, "where: 'v1' is no field and value such as route:v1, there are route, region"),
        ({"where": "route:"}, "where: '' is no value of route"),
        (
            {"tier": "x"},
            "'tier' is not known here, there are customer, meter, from, to, by, where, limit, cursor, format",
        ),
    ],
)
def test_invalid_query_names_the_field_and_the_fault(query: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        parse_query(query, time.time())
    assert str(caught.value) == said


def test_invalid_query_answers_400(sqlite_collector: Collector) -> None:
    answer = sqlite_collector.get("/v1/usage", by="day,day")
    assert (answer.status, answer.json()["detail"]) == (400, "by: names something twice")


@only_sqlite("collector")
def test_roles_that_may_read_usage_and_edges(collector: Collector) -> None:
    ship(collector, "read-a", "eu", int(time.time()), ("bound", "requests", "v1", 1), ("bolt", "requests", "v1", 2))
    for token, status in ((None, 401), ("x", 401), (EDGE, 403), (SERVICE, 403), (READ, 200), (ADMIN, 200)):
        assert collector.get("/v1/usage", token=token).status == status
        assert collector.get("/v1/edges", token=token).status == status
    assert collector.usage(token=OWN, by="customer")["rows"] == [{"customer": "bound", "value": 1}]
    assert collector.usage(token=OWN, customer="bound")["total"] == 1
    assert collector.get("/v1/usage", token=OWN, customer="bolt").status == 403
    assert collector.get("/v1/edges", token=OWN).status == 403
    for path in ("/healthz", "/readyz", "/metrics"):
        assert collector.get(path, token=None).status == 200


def test_edges_list_shows_watermark_lag_and_version(collector: Collector) -> None:
    now = int(time.time())
    one, two = Chain(since=now - 100), Chain(since=now)
    collector.post(one.next())
    collector.post(two.next(), fields={"User-Agent": "edgeproxy/1.2.3", "Edge-Sync-Age": "7"})
    told = collector.edges()
    assert [*told] == sorted(told)
    first = told[one.edge]
    assert (first["region"], first["watermark"]) == (one.region, 1)
    assert 95 <= first["lag_s"] <= 125
    assert first["last"]["to"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 95))
    assert told[two.edge]["lag_s"] < 30
    assert [(told[of.edge]["version"], told[of.edge]["sync_age_s"]) for of in (one, two)] == [
        (None, None),
        ("1.2.3", 7),
    ]
    assert collector.metric("collector_edges") == sum(not edge["retired"] for edge in told.values())
    most = max(edge["lag_s"] or 0 for edge in told.values())
    assert most - 1 <= collector.metric("collector_lag_seconds") <= most + 30


# ---- pages, and CSV


@pytest.mark.parametrize("limit", ["0", "-1", "x", "100001", "1e3", ""])
def test_a_limit_is_a_number_of_rows(limit: str) -> None:
    with pytest.raises(InvalidQueryError, match="is no whole number from 1 to 100000"):
        parse_query({"limit": limit}, time.time())


@pytest.mark.parametrize("name", ["a\0b", "", "ä", "x" * 256])
def test_invalid_customer_name_answers_400(sqlite_collector: Collector, name: str) -> None:
    answer = sqlite_collector.get("/v1/usage", customer=name)
    assert (answer.status, answer.json()["detail"]) == (400, f"customer: {name[:40]!r} is no name")


def records(answer: Answer) -> list[list[str]]:
    """Return the records of a CSV answer with its header. Each line must end as RFC 4180 requires."""
    assert answer.status == 200, answer
    assert answer["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer["vary"] == "Accept"
    assert answer.body.endswith(b"\r\n")
    return [*csv.reader(io.StringIO(answer.body.decode(), newline=""), strict=True)]


def test_csv_usage_has_the_rows_of_json_usage(filled: Collector) -> None:
    for by in ("", "route", "minute,customer,meter,region"):
        expected = filled.usage(**RANGE, by=by)["rows"]
        answer = records(filled.get("/v1/usage", **RANGE, by=by, format="csv"))
        assert answer == [[*(by or "meter").split(","), "value"], *([*map(str, row.values())] for row in expected)]
    assert records(filled.get("/v1/usage", **RANGE, customer="nobody", format="csv")) == [["meter", "value"]]
    assert filled.get("/v1/usage", **RANGE, by="day,day", format="csv").status == 400
    assert filled.get("/v1/usage", **RANGE, format="csv", token=EDGE).status == 403


def test_a_page_of_csv_links_to_the_next(filled: Collector) -> None:
    expected = filled.usage(**RANGE, by="customer")["rows"]
    path: str | None = f"/v1/usage?{urlencode({**RANGE, 'by': 'customer', 'limit': 2, 'format': 'csv'})}"
    seen = []
    while path is not None:
        answer = filled.get(path)
        seen += records(answer)[1:]
        linked = re.fullmatch(r'<(.+)>; rel="next"', answer["link"]) if "link" in answer else None
        path = linked[1] if linked else None
    assert seen == [[row["customer"], str(row["value"])] for row in expected]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, application/json;q=0.5", True),
        ("Text/CSV;header=present, */*", True),
        ("application/json, text/csv;q=0.9", False),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("*/*", False),
        ("text/html", False),
    ],
)
def test_accept_chooses_csv(sqlite_collector: Collector, accept: str, is_csv: bool) -> None:
    fields = {"Authorization": f"Bearer {READ}", "Accept": accept}
    answer = ask(sqlite_collector.port, "/v1/usage", fields=fields)
    assert answer["content-type"].startswith("text/csv" if is_csv else "application/json")
    plain = ask(sqlite_collector.port, "/v1/usage?format=json", fields=fields)
    assert plain["content-type"] == "application/json"


@only_sqlite("collector")
def test_no_field_of_csv_is_taken_for_a_formula(collector: Collector) -> None:
    """Only a route can look like a formula: names begin with a letter or a digit, except the customer `-`."""
    chain = Chain()
    routes = ("=1+1", "@x", "+x", "-x", "-", 'a"b', "a,b", "x;=1+1", "h/p/*")
    assert collector.post(chain.next(*(("-", "requests", route, 1) for route in routes))).status == 200
    day = time.strftime("%Y-%m-%d", time.gmtime(chain.made[0].since))
    answer = collector.get("/v1/usage", by="region,customer,route", format="csv", **{"from": day})
    found = records(answer)
    assert b'"x;=1+1"' in answer.body, "nor where a semicolon separates"
    shown = {route for region, customer, route, _ in found[1:] if region == chain.region and customer == "-"}
    assert shown == {"'=1+1", "'@x", "'+x", "'-x", "-", 'a"b', "a,b", "x;=1+1", "h/p/*"}


def test_few_exports_are_under_way_at_once(sqlite_collector: Collector) -> None:
    """A client that does not read its export occupies a slot until it disconnects."""
    chain = Chain(since=calendar.timegm((2025, 3, 10, 12, 0, 0)))
    # This answer is larger than the socket buffers, so it stays open while the client does not read it.
    names = (("stuck", "requests", f"{number:05}-{'x' * 249}", 1) for number in range(20_000))
    assert sqlite_collector.post(chain.next(*names)).status == 200
    query = urlencode({"from": "2025-03-10", "to": "2025-03-11", "by": "region,customer,meter,route", "format": "csv"})
    request = f"GET /v1/usage?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\n\r\n".encode()

    def status() -> int:
        return sqlite_collector.get("/v1/usage", format="csv", customer="nobody").status

    with ExitStack() as ends:
        for _ in range(2):
            stuck = ends.enter_context(socket.socket())
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect((HOST, sqlite_collector.port))
            stuck.sendall(request)
            assert stuck.recv(15) == b"HTTP/1.1 200 OK"
        refused = sqlite_collector.get("/v1/usage", format="csv")
        assert (refused.status, refused["retry-after"]) == (429, "10")
        assert sqlite_collector.usage()["rows"]
    until(lambda: status() == 200, "a place is free again")
