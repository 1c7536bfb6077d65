"""The operators' console over real sockets: usage explored, as an operator and as its customer see it."""

import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.billing_tables import plan_versions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.reader import choose_reader
from edgeproxy.wire.traffic_report import ErrorGroup, build_report, dump_report
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE
from tests.support.site import PagesStage
from tests.support.used_database import use_database

NOW = int(time.time())
TODAY = NOW // DAY * DAY


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    """A site with usage of acme today and 40 days ago, by route and region."""
    with closing(PagesStage(tmp_path_factory.mktemp("pages"))) as stage:
        old = Chain("e-old", "eu-west", TODAY - 40 * DAY + 60)
        assert stage.collector.post(old.next(("acme", "requests", "v1", 100))).status == 200
        for edge, region, rows in (
            ("e-eu", "eu-west", (("acme", "requests", "v1", 150), ("acme", "requests", "<v2>", 30))),
            ("e-us", "us-east", (("acme", "requests", "v1", 20), ("bolt", "requests", "v1", 7777))),
        ):
            assert stage.collector.post(Chain(edge, region, TODAY).next(*rows)).status == 200
        refused = ("acme", "refused", "v1", 11, '{"certain":"yes","limit":"pro"}')
        assert stage.collector.post(Chain("e-no", "eu-west", TODAY).next(refused)).status == 200
        yield stage


def test_usage_is_explored_by_group_beside_the_time_before_and_as_csv(stage: PagesStage) -> None:
    operator, page = stage.operator, "/console/customers/acme/usage"
    operator.get(f"{page}?range=30&by=route&meter=requests")
    text = operator.read.text
    assert all(figure in text for figure in ("200 requests", "↑ 100.0%", "85.0%", "<v2>")), text
    assert "script" not in operator.read.tags
    (csv_link,) = [link for link in operator.read.links if "format=csv" in link]
    assert [link for link in operator.read.links if "where=route%3Av1" in link], "a group is followed by its link"
    answer = operator.client.get(f"{stage.site}{page}{csv_link}")
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    day = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(TODAY))
    assert answer.text.splitlines() == ["day,route,value", f"{day},<v2>,30", f"{day},v1,170"]
    assert "170 requests" in operator.get(f"{page}?where=route:v1&by=region").text
    assert "11 requests" in operator.get(f"{page}?meter=refused&by=limit").text
    assert "Rate limited (429)" in operator.read.text, "refusals are never called usage"
    month = operator.get(f"{page}?from=2020-01-01&to=2999-01-01&meter=requests").text
    assert "300 requests" in month
    for odd in ("range=x&step=y&by=z&where=q:1&meter=<b>", "from=9999-99-99&to=&range=own", "where=route:", "by=meter"):
        operator.get(f"{page}?{odd}")
        assert operator.status in (200, 400), odd
    operator.get("/console/customers/nobody/usage")
    assert operator.status == 404


def test_stale_contacts_form_neither_restores_nor_removes_contacts(stage: PagesStage) -> None:
    contacts = "/v1/customers/acme/contacts"
    for email, role in (("gone@example.com", "developer"), ("stays@example.com", "billing")):
        assert stage.collector.send("POST", contacts, {"email": email, "role": role}).status == 201
    operator = stage.operator
    operator.get("/console/customers/acme")
    assert stage.collector.send("POST", f"{contacts}/remove", {"email": "gone@example.com"}).status == 200
    new = {"email": "new@example.com", "role": "developer"}
    assert stage.collector.send("POST", contacts, new).status == 201
    operator.send("/acme/contacts", email="added@example.com", role="billing")
    assert operator.status == 200
    form = next(form for form in operator.read.forms if form.fields.get("email") == "new@example.com")
    assert form.action == "/console/customers/acme/contacts/remove"
    operator.post(f"{stage.site}{form.action}", form.fields)
    people = stage.collector.get(contacts).json()["contacts"]
    assert {person["email"]: person["role"] for person in people} == {
        "acme@example.com": "owner",
        "added@example.com": "billing",
        "stays@example.com": "billing",
    }


def test_unknown_path_answers_404_html_and_search_finds_a_contact(stage: PagesStage) -> None:
    operator = stage.operator
    for path in ("/console/nothing", "/console/customers/acme/pause", "/account/nothing"):
        operator.get(path)
        assert (operator.status, operator.answer.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert operator.read.links.count("/console/customers"), "the navigation is there"
    assert stage.collector.get("/v1/nothing").json()["status"] == 404
    operator.get("/console")
    operator.send("/console/search", q="ACME@example.com")
    assert str(operator.answer.url) == f"{stage.site}/console/customers/acme"
    operator.send("/console/search", q="nobody@example.com")
    assert '<a href="/console/customers" aria-current="true">' in operator.answer.text
    sheet = next(link for link in re.findall(r'href="(/pages/[^"]+css)"', operator.answer.text))
    plain, packed = (
        operator.client.get(f"{stage.site}{sheet}", headers={"Accept-Encoding": coding})
        for coding in ("identity", "gzip")
    )
    assert plain.text == packed.text
    assert (plain.headers.get("content-encoding"), packed.headers["content-encoding"]) == (None, "gzip")


def test_customer_usage_page_shows_only_its_own_usage(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        text = acme.get("/account/usage?customer=bolt&by=region&meter=requests").text
        assert ("200 requests" in text, "7,777" in text) == (True, False)
        assert "GET /v1/usage?from=" in text, "a customer's own token names no customer"
        acme.get("/console/customers/acme/usage")
        assert acme.status == 403
        csv = acme.client.get(f"{stage.site}/account/usage?customer=bolt&by=route&format=csv&range=today")
        assert [line.rpartition(",")[2] for line in csv.text.splitlines()] == ["value", "30", "170"]


def test_usage_page_writes_a_meter_of_credits_as_money(stage: PagesStage) -> None:
    stage.join("prepaid")
    rows = [("prepaid", "cost", "v1", 6_300), ("prepaid", "cost", "v2", 2_000)]
    assert stage.collector.post(Chain("e-prepaid", "eu-west", int(time.time()) // 60 * 60).next(*rows)).status == 200
    text = stage.operator.get("/console/customers/prepaid/usage?meter=cost&by=route&range=24h").text
    assert [figure for figure in ("8,300", "6,300", "8.3K", "2,000", "2K") if figure in text] == []
    assert [text.count(figure) > 0 for figure in ("$0.0083", "$0.0063", "$0.002")] == [True] * 3


def test_usage_page_shows_costs_to_roles_that_see_spending(stage: PagesStage) -> None:
    stage.join("buyer")
    assert stage.collector.send("POST", "/billing/subscription?customer=buyer", {"plan": "standard"}).status == 201
    usage = (("buyer", "llm_tokens", "v1", 1_500_000), ("buyer", "llm_tokens", "v2", 500_000))
    minute = int(time.time()) // 60 * 60  # No invoice has usage from before the plan.
    assert stage.collector.post(Chain("e-buyer", "eu-west", minute).next(*usage)).status == 200
    page = "/account/usage?meter=llm_tokens"

    def cost_of(text: str) -> list[str]:
        return re.findall(r"Cost\s*(\$[\d.]+)", text)

    assert cost_of(stage.operator.get("/console/customers/buyer/usage?meter=llm_tokens").text) == ["$10.00"]
    with stage.customer("buyer") as buyer:
        assert cost_of(buyer.get(page).text) == ["$10.00"]
        assert cost_of(buyer.get(f"{page}&where=route:v2&by=region").text) == ["$2.50"], "a quarter of the units"
    rows = [("buyer", "llm_tokens", "v1", n * 1000, f'{{"model":"m-{n}"}}') for n in range(1, 8)]
    assert stage.collector.post(Chain("e-models", "eu-west", minute).next(*rows)).status == 200
    upcoming, held, spend = (
        stage.collector.get(f"/billing/{path}", token=ADMIN, customer="buyer").json()
        for path in ("invoices/upcoming", "subscription", "spend-alerts")
    )
    usd = choose_reader("en", None).money
    assert held["mrr"] == 99_00 * 10_000
    facts = [f"Next invoice, as of now{usd(upcoming['total'])}", f"MRR{usd(held['mrr'] // 10000)}", "Overduenothing"]
    facts += [
        f"Cost of this period{usd(spend['spent'])}",
        "Spending capnone",
        "m-77,0000.3%",
        f"Total2,028,000{usd(1028)}",
    ]
    text = re.sub(r"\s+", " ", stage.operator.get("/console/customers/buyer").text)
    assert [fact for fact in facts if fact not in text] == []
    assert "others6,0000.3%" in text, "five models have rows of their own"


def test_customer_page_lists_current_refusals_by_limit_region_and_time(stage: PagesStage) -> None:
    stage.join("night")
    minute = int(time.time()) // 60 * 60
    for ago, route, refused in ((3, "v1", 40), (60, "<v2>", 7)):
        row = ("night", "refused", route, refused, '{"certain":"no","limit":"pro"}')
        batch = Chain(f"e-{ago}", "us-east", minute - ago * 60).next(row, ("night", "requests", "v1", 555))
        assert stage.collector.post(batch).status == 200
    report = stage.collector.get("/v1/customers/night/limits").json()
    (limit,) = report["limits"]
    assert (limit["count"], limit["window_s"], limit["used"], limit["peak"]) == (600, 60.0, 0, 555)
    groups = [
        (refusal["route"], refusal["region"], refusal["refused"], refusal["recent"]) for refusal in report["refusals"]
    ]
    assert groups == [("v1", "us-east", 40, 40), ("<v2>", "us-east", 7, 0)]
    first = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(minute - 3 * 60))
    assert report["refusals"][0]["first_at"].startswith(first)
    assert [
        refusal["refused"] for refusal in stage.collector.get("/v1/customers/night/limits?hours=1").json()["refusals"]
    ][:1] == [40]
    text = " ".join(stage.operator.get("/console/customers/night").text.split())
    assert "In the last five minutes 40 requests were refused, most by pro on v1 in us-east." in text
    assert "Peak of the last day: 555." in text
    assert stage.operator.read.tags.isdisjoint({"v2", "script"})
    assert "No error is known." in text
    down, asleep = ErrorGroup("night", "<v1>", 503, "upstream"), ErrorGroup("night", "v1", 502, "edge")
    for ago, errors, unnamed in ((3, {down: 8}, 0), (30, {down: 4, asleep: 1}, 6)):
        report = dump_report(build_report(minute - ago * 60, "us-east", {}, errors, unnamed))
        assert stage.collector.send("POST", "/v1/traffic", report, token=EDGE, Edge_Id="e-3").status == 200
    text = " ".join(stage.operator.get("/console/customers/night").text.split())
    assert "In the last five minutes 8 requests failed, most with 503 on <v1> in us-east." in text
    assert "502 the edge v1 us-east 1" in text
    assert "6 requests of any customers (minutes with such errors: 1)." in text
    gone = Chain("e-gone", "us-east", minute - 600).next(
        ("night", "refused", "v1", 900, '{"certain":"yes","limit":"standard"}')
    )
    assert stage.collector.post(gone).status == 200
    raised = {"factor": 5, "for": "1h", "why": "a launch"}
    assert stage.collector.send("POST", "/v1/customers/night/limits/raise", raised).status == 201
    assert stage.collector.get("/v1/customers/night/limits").json()["limits"][0]["count"] == 3000
    with stage.customer("night") as own:
        text = " ".join(own.get("/account/limits").text.split())
        markup = own.answer.text
        (explore,) = [link for link in own.read.links if "by=limit" in link]
        explored = " ".join(own.get(explore).text.split())
    assert "47 requests were refused by limits." in text
    assert "Total 947" in explored, "the explorer shows these 24 hours, also just after midnight"
    assert "900 more requests were refused by limits that no longer apply to you." in text
    assert "Standard" not in text, "a limit of another tier is nothing to act on"
    assert "0 / 3,000 in 1 minute 0% Peak of the last day: 555." in text
    assert "40 of them in the last five minutes." in text
    assert "Spread requests evenly. After a 429, wait as long as its Retry-After says." in text
    assert "Refused requests by hour" in markup
    assert "us-east" not in text.partition("Used now")[0], "regions of the edges are no matter of customers"
    stage.join("calm")
    with stage.customer("calm") as other:
        assert "No limit refused a request." in other.get("/account/limits").text
    assert stage.collector.get("/v1/customers/nobody/limits").status == 404
    assert "Edges report it within 20 seconds." in text
    for edge, used in (("e-3", 80), ("e-60", 12)):
        limits = [
            {
                "limit": "pro",
                "scope": "customer",
                "mode": "enforce",
                "count": 100,
                "window_s": 10,
                "used": used,
                "peak": 95,
            },
            {
                "limit": "concurrency",
                "scope": "customer",
                "mode": "enforce",
                "count": 4,
                "window_s": 0,
                "used": 4,
                "peak": 4,
            },
        ]
        usage = {"region": "us-east", "usage": [{"customer": "night", "limits": limits}]}
        assert stage.collector.send("POST", "/v1/limit-usage", usage, token=EDGE, Edge_Id=edge).status == 200
    seen = (
        "Requests at once 4 / 4 at the limit us-east 4.",
        "pro 80 / 100 in 10 seconds 80% us-east 80. Highest since",
    )
    text = " ".join(stage.operator.get("/console/customers/night").text.split())
    assert [one for one in seen if one not in text] == []
    with stage.customer("night") as night:
        text = " ".join(night.get("/account/limits").text.split())
        assert [one for one in seen if one not in text] == []
        night.get("/console/customers/night")
        assert night.status == 403


def test_money_of_a_customer_is_shown_as_unknown_or_missing_but_never_zero(stage: PagesStage) -> None:
    stage.join("unpriced")
    text = re.sub(r"\s+", " ", stage.operator.get("/console/customers/unpriced").text)
    assert [
        fact for fact in ("Next invoice, as of nowno plan", "MRRno plan", "Open invoicesnone") if fact not in text
    ] == []
    subscription = stage.collector.send("POST", "/billing/subscription?customer=unpriced", {"plan": "enterprise"})
    assert subscription.status == 201

    async def damage(database: Database) -> None:
        async with database.writing() as connection:
            own = plan_versions.c.version == subscription.json()["plan"]
            await connection.execute(sa.update(plan_versions).where(own).values(settings="{"))

    use_database(stage.collector.settings["database"], damage)
    text = re.sub(r"\s+", " ", stage.operator.get("/console/customers/unpriced").text)
    facts = ["Next invoice, as of nownot known now", "MRRnot known now", "Cost of this periodnot known now"]
    assert [fact for fact in facts if fact not in text] == []
