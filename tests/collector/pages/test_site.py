"""Pages without scripts, over real sockets: sign-in, the console, the portal, and refused visitors."""

import csv
import hashlib
import json
import re
import secrets
import signal
import time

import httpx
import pytest
from joserfc.jwk import OKPKey
from standardwebhooks import Webhook

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.api.app import PAGES_PER_MINUTE
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages import sessions, sign_in
from edgeproxy.collector.pages.invoices import INVOICES_MAX
from edgeproxy.collector.pages.sessions import Link, SignedIn
from edgeproxy.collector.pages.site import Audience, Page
from edgeproxy.collector.pages_service import list_signed_in_pages
from edgeproxy.wire.batch import Gap
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, SERVICE
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until
from tests.support.copied_invoices import copy_invoice
from tests.support.filled_site import key_of, pages_of
from tests.support.receivers import Receiver
from tests.support.site import PLACES, SCRAPE, PagesStage
from tests.support.used_database import use_database
from tests.support.visitor import Read, Visitor

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
NOBODYS = {"operation", "customer", "edge", "seq", "letter", "alert", "incident", "maintenance", "month", "token"}
"""Path parameters that do not name an object of one customer. For a month each customer sees its own data."""


def test_printed_link_works_once_and_sets_an_http_only_cookie(stage: PagesStage) -> None:
    assert str(stage.operator.get("/").text)
    assert stage.operator.answer.url.path == "/console"
    (cookie,) = [one for one in stage.operator.client.cookies.jar if one.name == "edgeproxy-session"]
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    with Visitor(stage.site) as other:
        other.get(stage.link)
        other.send("/sign-in/link")
        assert other.status == 403
        assert not list(other.client.cookies.jar)
    assert [entry["actor"] for entry in stage.entries("session.begin")][:1] == ["operator:link"]


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": "de"}


@pytest.mark.parametrize(
    ("method", "path", "accept", "status", "is_page"),
    [
        ("GET", "/favicon.php", BROWSER, 404, True),
        ("GET", f"/{HOSTILE}", BROWSER, 404, True),
        ("GET", "/console/nowhere", BROWSER, 404, True),
        ("POST", "/nowhere", BROWSER, 404, True),
        ("GET", "/sign-out", BROWSER, 405, True),
        ("PUT", "/sign-in", BROWSER, 405, True),
        ("HEAD", "/nowhere", BROWSER, 404, True),
        ("GET", "/v1/nowhere", BROWSER, 404, False),
        ("GET", "/billing/nowhere", BROWSER, 404, False),
        ("GET", "/nowhere", {"Accept": "application/json"}, 404, False),
        ("GET", "/nowhere", {}, 404, False),
    ],
)
def test_browsers_get_error_pages_and_programs_get_problem_json(
    stage: PagesStage, method: str, path: str, accept: dict[str, str], status: int, is_page: bool
) -> None:
    answer = httpx.request(method, f"{stage.site}{path}", headers=accept)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html" if is_page else "application/problem+json")
    assert (status == 405) is bool(answer.headers.get("Allow"))
    if is_page and method != "HEAD":
        assert 'lang="de"' in answer.text
        assert HOSTILE not in answer.text
        assert "script-src" in answer.headers["Content-Security-Policy"]


def test_operator_creates_a_customer_and_a_key_rotates_and_revokes_it(stage: PagesStage) -> None:
    operator = stage.operator
    operator.get("/console/new-customer")
    operator.send("/console/customers", name="zebra", tier="pro", external_id=HOSTILE)
    assert operator.status == 200
    assert HOSTILE in operator.read.text  # It is shown as text, not as a tag.
    assert not operator.read.tags & {"img", "script"}
    operator.send("/keys", name="server")
    secret = operator.read.secret
    assert secret.startswith("edge_v1_")
    again = operator.client.post(
        f"{stage.site}/console/customers/zebra/keys",
        content=operator.answer.request.content,
        headers={"Origin": stage.site, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert secret in again.text  # The form was sent twice, and makes one key.
    (key,) = stage.collector.get("/v1/customers/zebra/keys").json()["keys"]
    for sought in (secret, secret[:16], "zeb", HOSTILE):
        operator.send("/console/search", q=sought)
        assert str(operator.answer.url) == f"{stage.site}/console/customers/zebra"  # The only match is opened.
    operator.send("/console/search", q="\N{SNOWMAN} nobody")
    assert (operator.status, str(operator.answer.url)) == (200, f"{stage.site}/console/search")
    assert "/console/customers/zebra" not in operator.read.links
    operator.get("/console/customers/zebra")
    assert secret not in operator.answer.text
    operator.send("/rotate", overlap="7d")
    assert operator.read.secret != secret
    assert f"The key before it, {key['start']}…, works until " in operator.read.text
    operator.get("/console/customers/zebra")
    operator.send(f"{key['id']}/revoke")
    states = {key["id"]: key["state"] for key in stage.collector.get("/v1/customers/zebra/keys").json()["keys"]}
    assert (states.pop(key["id"]), list(states.values())) == ("revoked", ["active"])
    (entry,) = stage.entries("key.revoke")
    assert entry["actor"] == "operator:link"
    operator.get("/console/customers/zebra")
    operator.send("/limits/raise", factor="5", **{"for": "24h"}, why=HOSTILE)
    assert (operator.status, HOSTILE in operator.read.text) == (200, True)
    assert not operator.read.tags & {"img", "script"}
    raised = stage.collector.get("/v1/customers/zebra/limits/raise").json()["raised"]
    assert (raised["factor"], raised["by"]) == (5, "operator:link")
    operator.send("/limits/revert")
    assert stage.collector.get("/v1/customers/zebra/limits/raise").json()["raised"] is None


def test_customer_sees_only_its_own_objects_and_creates_keys(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        assert {"/account", "/account/limits", "/account/keys"} <= set(acme.read.links)
        assert "/ 600 in 1 minute" in acme.get("/account/limits").text
        acme.get("/account/keys")
        acme.send("/account/keys", name="mine")
        assert acme.read.secret.startswith("edge_v1_")
        (entry,) = [entry for entry in stage.entries("key.create") if entry["actor"] == "contact:acme@example.com"]
        assert str(entry["target"]).startswith("acme/")
        acme.get("/account/keys")
        mine = stage.collector.get("/v1/customers/acme/keys").json()["keys"][0]["id"]
        with stage.customer("bolt") as bolt:
            bolt.get("/account/keys")
            form = bolt.read.form("/account/keys").fields
            for action in (f"/account/keys/{mine}/rotate", f"/account/keys/{mine}/revoke"):
                bolt.post(action, form)
                assert bolt.status == 403
                bolt.post(action, {**form, "form": acme.read.form("/account/keys").fields["form"]})
                assert bolt.status == 403
        assert stage.collector.get(f"/v1/keys/{mine}").json()["state"] == "active"
        # A removed contact is signed out, and a sign-in link created meanwhile does not work.
        assert stage.collector.send("PUT", "/v1/customers/acme/contacts", {"emails": []}).status == 200
        assert acme.get("/account").forms[0].action == "/sign-in"
        acme.get(stage.link_of(Link("contact:acme@example.com", "acme")))
        acme.send("/sign-in/link")
        assert acme.status == 403
        assert acme.get("/account").forms[0].action == "/sign-in"
        emails = {"emails": ["acme@example.com"]}
        assert stage.collector.send("PUT", "/v1/customers/acme/contacts", emails).status == 200


def test_new_key_is_shown_with_commands_and_its_first_request(stage: PagesStage) -> None:
    with stage.customer("acme") as acme, stage.customer("bolt") as bolt:
        acme.get("/account/keys")
        acme.send("/account/keys", name="first")
        page, secret = acme.answer.text, acme.read.secret
        assert page.count(secret) == 4, "in its field, and in the commands of three languages"
        assert "curl -i -X GET &#39;https://api.example.com/v1/ping&#39;" in page
        key = next(
            key for key in stage.collector.get("/v1/customers/acme/keys").json()["keys"] if key["name"] == "first"
        )
        live = f"/account/get-started?key={key['id']}"
        assert f'data-from="{live}"' in page
        assert "Waiting for the first request" in acme.get(live).text
        assert secret not in acme.answer.text
        bolt.get(live)
        assert bolt.status == 403
        stage.collector.execute("UPDATE keys SET last_used_on = 1764028800 WHERE id = ?", [key["id"]])
        assert "its first request has arrived" in acme.get(live).text
    stage.operator.get("/console/customers/acme")
    stage.operator.send("/keys", name="made by an operator")
    assert "api.example.com" not in stage.operator.answer.text, "the commands are for customers"


def test_api_reference_shows_a_hostile_description_as_text(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        links = [link for link in acme.get("/account/docs").links if link.startswith("/account/docs/")]
        assert links == ["/account/docs/createOrder", "/account/docs/get-v1-ping"]
        for path in ("/account/docs", *links):
            read = acme.get(path)
            assert acme.status == 200
            assert not read.tags & {"img", "script", "b"}
            assert not [one for one in read.loaded if not one.startswith("/pages/")]
            assert "\u202e" not in acme.answer.text, "the character would reverse the text"
        text = acme.get("/account/docs/createOrder").text
        assert "<img src=x onerror=alert(1)>" in text
        assert "curl -i -X POST 'https://api.example.com/v1/orders/{id};reboot#'" in text, "nothing ends the quotes"
        assert "it'\\''s" in text
        for field in ("item", "parent.item", "lines[].price", "https://attacker.example/schema.json"):
            assert field in text
        acme.get("/account/docs/nothing")
        assert acme.status == 404


def test_plan_preview_shows_the_cost_and_changes_nothing(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        acme.get("/account/plan")
        assert "You have no plan yet." in acme.read.text
        assert "Agent executions: 100 a day; then requests are refused" in acme.read.text, "a tier's quota, too"
        limits = re.findall(r"<li([^>]*)>(?:(?!<li).)*<span>At most", acme.answer.text)
        assert set(limits) == {' class="no"'}, "no limit has the tick of what one gets"
        asked = next(
            form for form in acme.read.forms if form.action.endswith("/preview") and form.fields["plan"] == "standard"
        )
        acme.post(asked.action, asked.fields)
        assert "Nothing has been changed yet." in acme.read.text
        assert stage.collector.get("/billing/subscription", token=ADMIN, customer="acme").status == 404
        acme.send("/account/plan")
        assert acme.answer.url.query == b"done=plan"
        held = stage.collector.get("/billing/subscription", token=ADMIN, customer="acme").json()
        assert held["plan"].startswith("standard@")
        plan = acme.get("/account/plan").text
        assert "Your plan: Standard" in plan
        assert "standard@" not in plan, "customers see the plan's name, not its version"
        (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="acme").json()["invoices"]
        assert f"/account/invoices/{invoice['id']}" in acme.get("/account/invoices").links
        assert "Plan Standard" in acme.get(f"/account/invoices/{invoice['id']}").text
        lines = acme.client.get(f"/account/invoices/{invoice['id']}/csv").text.splitlines()
        assert lines[0].startswith("invoice,text,kind,meter,")
        assert re.search(r'"?Standard, [-\d]+ to [-\d]+"?,fee,,,.*,1,usd,[\d.]+$', lines[1]), lines
        assert "Plan Standard, renews on" in acme.get("/account").text
        acme.get("/account/invoices")
        acme.send("/account/invoices/stripe")
        assert [link for link in acme.read.links if link.startswith(stage.sandbox.url)], "Stripe's page for cards"
        with stage.customer("bolt") as bolt:
            for path in ("", "/csv", "/pdf"):
                bolt.get(f"/account/invoices/{invoice['id']}{path}")
                assert bolt.status == 403


def test_smaller_plan_is_announced_for_the_end_of_the_paid_period(stage: PagesStage) -> None:
    stage.join("smaller")
    sent = stage.collector.send("POST", "/billing/subscription?customer=smaller", {"plan": "enterprise"}, token=ADMIN)
    assert sent.status == 201
    with stage.customer("smaller") as visitor:
        visitor.get("/account/plan")
        (preview,) = [
            form
            for form in visitor.read.forms
            if form.action.endswith("/preview") and form.fields["plan"] == "standard"
        ]
        assert "dearer" in visitor.post(preview.action, preview.fields).text, "a higher price is no smaller one"
        visitor.send("/account/plan")
        assert "The plan changes at the end of the paid period." in visitor.read.text
        assert re.search("Plan Enterprise until .+, then Standard", visitor.get("/account").text)


def test_invoice_pages_show_amounts_due_paid_credited_and_refunded(stage: PagesStage) -> None:
    """One dollar was credited while the invoice was open. Later half of the payment was refunded."""
    stage.join("credited")
    body = {"plan": "standard"}
    assert stage.collector.send("POST", "/billing/subscription?customer=credited", body, token=ADMIN).status == 201
    (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="credited").json()["invoices"]
    numbers = {"amount_due": 0, "amount_paid": 9800, "amount_credited": 5000, "amount_refunded": 4900}
    values = {"state": "paid", "subtotal": 9900, "total": 9900, "amount_due": 0, "amount_paid": 9800}
    columns = ", ".join(f"{name} = ?" for name in values)
    stage.collector.execute(f"UPDATE invoices SET {columns} WHERE id = ?", [*values.values(), invoice["id"]])
    stage.collector.execute(
        "INSERT INTO credit_notes (id, invoice, amount, refunded, why, state, tries, created_at)"
        " VALUES (?, ?, ?, ?, 'a mistake', 'made', 0, 0)",
        *(
            (f"{invoice['id']}-{amount}", invoice["id"], amount, refunded)
            for amount, refunded in ((100, 0), (4900, 4900))
        ),
    )
    path = f"/billing/invoices/{invoice['id']}"
    for one in (
        stage.collector.get(path, token=ADMIN).json(),
        *stage.collector.get("/billing/invoices", token=ADMIN, customer="credited").json()["invoices"],
    ):
        assert {name: one[name] for name in numbers} == numbers

    def words(read: Read) -> str:
        return "".join(read.text.split())

    with stage.customer("credited") as visitor:
        assert "$99.00$50.00credited" in words(visitor.get("/account/invoices"))
        own = words(visitor.get(f"/account/invoices/{invoice['id']}"))
        assert "Credited-$50.00Paid$98.00Paidback$49.00Topay$0.00" in own
    console = words(stage.operator.get(f"/console/invoices/{invoice['id']}"))
    assert "Total$99.00Topay$0.00Paid$98.00Credited$50.00Paidback$49.00" in console
    line = words(stage.operator.get(f"/console/invoices/{invoice['id']}/lines/0"))
    assert re.search(r"Amount\$\d+\.\d\d", line)
    assert re.search(r"Plan\w+Version\d+From", line), line
    assert "$99.00$50.00credited–" in words(stage.operator.get("/console/invoices?customer=credited&state="))
    listed = stage.operator.client.get("/console/invoices?customer=credited&state=&format=csv").text.splitlines()
    (row,) = csv.DictReader(listed)
    assert {name: row[name] for name in numbers} == dict(zip(numbers, ("0.00", "98.00", "50.00", "49.00"), strict=True))


def test_file_of_invoices_has_those_of_all_pages(stage: PagesStage) -> None:
    stage.join("invoiced")
    assert stage.collector.send("POST", "/billing/subscription?customer=invoiced", {"plan": "standard"}).status == 201
    (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="invoiced").json()["invoices"]
    # Void and booked: no job of the running collector changes it.
    copy_invoice(stage, invoice["id"], INVOICES_MAX, {"stripe_id": None, "state": "void", "booked": "void"})
    with stage.customer("invoiced") as visitor:
        (file,) = [link for link in visitor.get("/account/invoices").links if "format=csv" in link]
        rows = list(csv.DictReader(visitor.client.get(f"{stage.site}/account/invoices{file}").text.splitlines()))
    total = f"{invoice['total'] / 100:.2f}"
    assert [(row["total"], row["currency"]) for row in rows] == [(total, "usd")] * (INVOICES_MAX + 1)


def test_customer_subscribes_with_a_coupon(stage: PagesStage) -> None:
    stage.join("thrifty")
    with stage.customer("thrifty") as thrifty:
        thrifty.get("/account/plan")
        (form,) = [form for form in thrifty.read.forms if form.fields.get("plan") == "standard"]
        thrifty.post(form.action, {**form.fields, "coupon": "unknown"})
        assert thrifty.status == 422
        thrifty.post(form.action, {**form.fields, "coupon": " launch20 "})
        assert "Coupon LAUNCH20, 20 % off" in thrifty.read.text
        thrifty.send("/account/plan")
        assert stage.collector.get("/billing/subscription/coupon", token=ADMIN, customer="thrifty").status == 200
        (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="thrifty").json()["invoices"]
        assert "Coupon LAUNCH20, 20 % off" in thrifty.get(f"/account/invoices/{invoice['id']}").text
        amounts = {"amounts": [9_000_00]}
        path = "/billing/spend-alerts"
        assert stage.collector.send("PUT", f"{path}?customer=thrifty", amounts, token=ADMIN).status == 200
        spent = stage.collector.get(path, token=ADMIN, customer="thrifty").json()["spent"]
        costs = stage.collector.get("/billing/costs", token=ADMIN, customer="thrifty").json()
        assert costs["days"][-1]["amount"] == spent > 0
        assert f"So far: ${spent / 100:,.2f} · alert at $9,000.00" in " ".join(thrifty.get("/account").text.split())
        thrifty.client.headers["Accept-Language"] = "de"
        assert "Kosten dieses Zeitraums" in thrifty.get("/account").text
        body = {"email": "dev@thrifty.example", "role": "developer"}
        assert stage.collector.send("POST", "/v1/customers/thrifty/contacts", body, token=ADMIN).status == 201
    with Visitor(stage.site) as developer:
        developer.get(stage.link_of(Link("contact:dev@thrifty.example", "thrifty")))
        developer.send("/sign-in/link")
        assert "Home" in developer.get("/account").text
        assert "Cost of this period" not in developer.read.text, "developers do not see spending"


def test_bought_credits_have_a_receipt_and_a_statement(stage: PagesStage) -> None:
    with stage.customer("bolt") as bolt:
        assert "0 credits" in bolt.get("/account/credits").text
        assert "1,000 credits are $1.00. Only actual usage is charged." in bolt.read.text
        for wrong in ("4.99", "10000.01", "5.001", "1e999999", "NaN", "", "-5"):
            (form, *_) = [form for form in bolt.get("/account/credits").forms if form.action.endswith("/buy")]
            bolt.post(form.action, {**form.fields, "amount": wrong})
            assert bolt.status == 422, wrong
        purchase = stage.buy(bolt, "12,50")
        in_yen = bolt.get("/account/credits?currency=JPY").text
        assert in_yen.count("Amounts in JPY are approximate") == 1
        assert 0 < in_yen.rfind("≈ ¥1,881") < in_yen.find("Amounts in JPY"), "each amount is explained"
        assert "are approximate" not in bolt.get("/account/credits?currency=USD").text
        text = bolt.get("/account/credits?done=bought").text
        assert all(said in text for said in ("12,500 credits", "$12.50", "Thank you."))
        (receipt,) = [link for link in bolt.read.links if link.endswith(f"{purchase}/receipt")]
        assert "Amount paid$12.50" in bolt.get(receipt).text
        assert str(bolt.answer.url).startswith(f"{stage.sandbox.url}/_sandbox/receipts/")
        month = next(link for link in bolt.get("/account/credits").links if "/statements/" in link)
        assert "Balance so far" in bolt.get(month).text
        answer = bolt.client.get(f"{month}.csv")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv")
        assert "12500000,12.50" in answer.text
        paper = bolt.client.get(f"{month}.pdf")
        assert paper.content.startswith(b"%PDF-")
        assert "attachment" in paper.headers["content-disposition"]
        assert "default-src 'none'" in paper.headers["content-security-policy"]
        assert bolt.client.get("/account/credits/statements/2027-13").status_code == 404
        assert "$12.50 12,500 credits" in " ".join(bolt.get("/account").text.split()), "the balance is on Home"


def test_amounts_in_another_currency_are_marked_approximate(stage: PagesStage) -> None:
    stage.join("tourist")
    with stage.customer("tourist") as tourist:
        assert "≈" not in tourist.get("/account/plan").text
        text = tourist.get("/account/plan?currency=JPY").text
        assert "$99.00 ≈ ¥14,900" in text  # 14,899.5, rounded: the yen has no smaller unit.
        assert "Amounts in JPY are approximate: one US dollar is ¥150.50, by the rate of Nov 20, 2026." in text
        assert "≈ ¥" in tourist.get("/account/plan").text  # The chosen currency is remembered.
        assert "≈" not in tourist.get("/account/plan?currency=USD").text
        tourist.client.cookies.delete("edgeproxy-currency")
        tourist.client.headers["Accept-Language"] = "nl-BE"
        assert "≈ €\xa079,20" in tourist.get("/account/plan").text


def test_usage_by_dimension_is_shown_with_its_cost(stage: PagesStage) -> None:
    stage.join("metered")
    created = stage.collector.send("POST", "/billing/subscription?customer=metered", {"plan": "standard"})
    assert created.status == 201, created
    used = (("m-large", 900_000), ("m-small", 100_000), ("m-small", 34_567))
    events = [
        {
            "id": f"{n}",
            "source": "models",
            "customer": "metered",
            "meter": "llm_tokens",
            "value": value,
            "dimensions": {"model": model},
        }
        for n, (model, value) in enumerate(used)
    ]
    events.append(events[0] | {"id": "before", "time": format_timestamp(int(time.time() - 3600) * 1000)})
    assert stage.collector.send("POST", "/v1/events", events, token=SERVICE).status == 202
    body = stage.collector.get("/billing/invoices/upcoming", token=ADMIN, customer="metered", projected="true").json()
    (over,) = [line for line in body["lines"] if line["kind"] == "usage" and line["tier"]]
    assert (over["quantity"], over["amount"]) == (34_567, 35)
    assert body["projected"] == {"days": 0, "low": None, "high": None}, "of a customer's first day nothing is projected"
    with stage.customer("metered") as metered:
        text = " ".join(metered.get("/account/month").text.split())
        assert "LLM tokens by model" in text
        # Neither model has its own price: the units above the included amount are split in proportion to usage.
        assert "m-large900,00087.0%$0.30 m-small134,56713.0%$0.05 Total1,034,567$0.35" in text
        assert "This period so far1,034,567" in text
        assert "1,934,567" not in text, "usage before the plan is on no invoice and in no sum"
        assert "LLM tokens1,034,567$0.35––" in text
        assert "–$99.00–$99.00" in text, "the amount of a fee is known"
        assert "Whole days so far: 0. A projection needs three." in text
        stage.collector.execute("UPDATE customers SET created_at = created_at - 5 * 86400000 WHERE name = 'metered'")
        home = " ".join(metered.get("/account").text.split())
        assert "LLM tokens 1M / 1M over 34,567 above what is included" in home
        assert re.search(r"expected on [^$]+ \$99.35 – \$[\d.,]+", home), home
        text = " ".join(metered.get("/account/month").text.split())
        assert re.search(r"LLM tokens1,034,567\$0\.351,034,567 – [\d,]+\$0\.35 – \$[\d,.]+ ", text)
        assert "The projection goes by the last 5 days" in text


def test_usage_by_key_shows_key_names(stage: PagesStage) -> None:
    stage.join("keyed")
    chain = Chain("edge-keyed", "eu-west", int(time.time()) - 60)
    keys = [stage.collector.send("POST", "/v1/customers/keyed/keys", {"name": name}).json() for name in ("<i>", None)]
    named, unnamed = (key["usage_key"] for key in keys)
    counts = ((named, 31), (unnamed, 12), ("0" * 16, 5), ("somebody", 3))
    rows = [("keyed", "calls", "v1", count, f'{{"key":"{key}"}}') for key, count in counts]
    assert stage.collector.post(chain.next(*rows)).status == 200
    with stage.customer("keyed") as keyed:
        for page in ("/account/month", "/account/usage?range=today&meter=calls&by=key"):
            text = " ".join(keyed.get(page).text.split())
            assert re.findall(
                rf"<i> \({keys[0]['start']}\)31|{keys[1]['start']}12|0000000000000000 ?5|somebody3", text
            ), page
            assert named not in text, page


def test_customer_can_keep_a_plan_that_was_set_to_end(stage: PagesStage) -> None:
    stage.join("fickle")
    body = stage.collector.send("POST", "/billing/subscription?customer=fickle", {"plan": "standard"}).json()
    with stage.customer("fickle") as fickle:
        fickle.get("/account/plan")
        fickle.send("/account/plan/end")
        assert "The plan ends at the end of the paid period." in fickle.read.text
        held = stage.collector.get("/billing/subscription", token=ADMIN, customer="fickle").json()
        assert (held["state"], held["cancel_at"]) == ("active", body["period_end"])
        fickle.send("/account/plan/keep")
        held = stage.collector.get("/billing/subscription", token=ADMIN, customer="fickle").json()
        assert (held["state"], held["cancel_at"], held["plan"]) == ("active", None, body["plan"])


def test_alerts_are_mailed_to_the_contact_chosen_by_the_customer(stage: PagesStage) -> None:
    address = "/v1/customers/bolt/alert-address"
    with stage.customer("bolt") as bolt:
        bolt.get("/account/alerts")
        assert "No contact is chosen. Failed payments are mailed to owners" in bolt.read.text
        assert "charging is stopped" not in bolt.read.text, "only kinds that customers get can be chosen"
        assert "charging is stopped" in stage.operator.get("/console/alerts").text
        bolt.send("/account/alerts/address", email="bolt@example.com")
        assert "Alerts are mailed to bolt@example.com." in bolt.read.text
        assert stage.collector.get(address).json() == {"email": "bolt@example.com", "is_mailed": True}
        form = bolt.read.form("/account/alerts/address")
        bolt.post(form.action, {**form.fields, "email": "victim@example.com"})
        assert bolt.status == 422  # Alerts can be mailed to contacts only.
        bolt.get("/account/alerts")
        bolt.send("/account/alerts/address", email="")
        assert stage.collector.get(address).json()["email"] is None
        bolt.send("/account/alerts/address", email="bolt@example.com")
    contacts = "/v1/customers/bolt/contacts"
    emails = stage.collector.get(contacts).json()["emails"]
    left = [email for email in emails if email != "bolt@example.com"]
    stage.collector.send("PUT", contacts, {"emails": left})
    assert stage.collector.get(address).json()["email"] is None, "a removed contact gets no mail"
    stage.collector.send("PUT", contacts, {"emails": emails})


def test_page_rate_limit_counts_visitors_and_ignores_api_requests(stage: PagesStage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "busy", "tier": "basic"}).status == 201
    contacts = "/v1/customers/busy/contacts"
    assert stage.collector.send("PUT", contacts, {"emails": ["busy@example.com"]}).status == 200
    token = stage.collector.send("POST", "/v1/tokens", {"name": "busy", "customer": "busy"}).json()["secret"]
    while stage.collector.get("/billing/status", token=token).status == 200:
        pass
    with stage.customer("busy") as busy:
        assert "Spending" in busy.get("/account/alerts").text
        opened = 1
        while busy.client.get("/account/docs/nothing").status_code != 429:  # Not `busy.get`, which reads the page.
            opened += 1
            assert opened <= PAGES_PER_MINUTE, "nothing bounds it"
        assert opened > PAGES_PER_MINUTE - 6, "signing in opens some, too"
        busy.get("/account/docs/nothing")
        assert "retry-after" in busy.answer.headers
        assert "You have opened too many pages." in busy.read.text
    with stage.customer("acme") as acme:
        acme.get("/account/alerts")
        assert acme.status == 200


def test_a_customer_chooses_the_region_that_executes_its_requests(stage: PagesStage) -> None:
    stage.join("roaming")  # Queries of a customer are limited, and others are of roaming.
    with stage.customer("roaming") as roaming:
        roaming.get("/account/limits")
        roaming.send("/account/limits/region", region="us-east")
        assert stage.collector.get("/v1/customers/roaming").json()["regions"] == {"prefer": "us-east"}
        form = roaming.read.form("/account/limits/region")
        assert form.fields["region"] == "us-east"
        roaming.post(form.action, {**form.fields, "region": "moon"})
        assert roaming.status == 422
        roaming.get("/account/limits")
        roaming.send("/account/limits/region", region="")
        assert stage.collector.get("/v1/customers/roaming").json()["regions"] is None


def test_signed_in_customer_has_the_change_rate_of_a_token(stage: PagesStage) -> None:
    def allow(changes: int) -> None:
        assert stage.collector.process is not None
        before = stage.collector.output.count('"reloaded"')
        stage.collector.settings["changes_per_minute"]["customers"] = changes
        stage.collector.write()
        stage.collector.process.send_signal(signal.SIGHUP)
        until(lambda: stage.collector.output.count('"reloaded"') > before, "the collector has reloaded")

    allow(2)
    try:
        with stage.customer("bolt") as bolt:
            statuses = []
            for _ in range(3):
                bolt.get("/account/keys")
                bolt.send("/account/keys", name="one of many")
                statuses.append(bolt.status)
        assert (statuses, "retry-after" in bolt.answer.headers) == ([200, 200, 429], True)
    finally:
        allow(1_000_000)


def test_sign_out_ends_the_session_on_the_server(stage: PagesStage) -> None:
    with stage.customer("bolt") as bolt:
        cookies = dict(bolt.client.cookies)
        bolt.send("/sign-out")
        assert bolt.answer.url.path == "/sign-in"
        bolt.client.cookies.update(cookies)
        bolt.get("/account")
        assert bolt.answer.url.path == "/sign-in"


def test_a_customer_s_front_door_leaves_operators_to_the_side(stage: PagesStage) -> None:
    with Visitor(stage.site) as anyone:
        anyone.get("/sign-in")
        assert "<details" in anyone.answer.text
        assert 'id="operators"' not in anyone.answer.text
        anyone.get("/sign-in?next=/console/edges")
        assert 'id="operators"' in anyone.answer.text


def test_a_stranger_gets_no_mail_and_is_told_the_same(stage: PagesStage) -> None:
    count = len(stage.mailbox.mails)
    with Visitor(stage.site) as stranger:
        stranger.get("/sign-in")
        stranger.send("/sign-in", email="nobody@example.com")
        unknown = stranger.read.text.replace("nobody", "NAME")
        stranger.get("/sign-in")
        stranger.send("/sign-in", email="bolt@example.com")
        assert stranger.read.text.replace("bolt", "NAME") == unknown
    stage.mailbox.wait_for(count + 1)
    assert stage.mailbox.mails[-1]["To"] == "bolt@example.com"


def test_a_client_asks_for_few_links_a_minute(stage: PagesStage) -> None:
    with Visitor(stage.site, "127.0.1.1") as client:
        for number in range(sign_in.REQUESTS_PER_MINUTE + 1):
            client.get("/sign-in")
            client.send("/sign-in", email=f"{number}@example.com")
        assert (client.status, int(client.answer.headers["Retry-After"]) > 0) == (429, True)


def asked(page: Page, visitor: Visitor, fields: dict[str, str]) -> httpx.Response:
    path = page.path.format(**PLACES)
    if page.method == "GET":
        return visitor.client.get(path, follow_redirects=False)
    return visitor.client.post(path, data=fields, headers={"Origin": visitor.site}, follow_redirects=False)


def test_every_page_and_form_is_refused_to_the_wrong_session(stage: PagesStage) -> None:
    nobody, bolt = Visitor(stage.site), stage.customer("bolt")
    tokens = {
        one: one.get(path).form("/sign-out").fields for one, path in ((bolt, "/account"), (stage.operator, "/console"))
    }
    for page in list_signed_in_pages(sells=True):
        answer = asked(page, nobody, {})
        assert answer.status_code == (303 if page.method == "GET" else 401), page
        assert answer.headers.get("location", "/sign-in?").startswith("/sign-in?")
        wrong = bolt if page.who == "operator" else stage.operator
        token = tokens[wrong]
        assert asked(page, wrong, token).status_code == 403, page
        if page.method == "POST":  # The right session, and the form of another one, or of another site.
            right = stage.operator if page.who == "operator" else bolt
            assert asked(page, right, {**token, "once": "0" * 32}).status_code == 403, page
            path = page.path.format(**PLACES)
            for fields in (
                {},
                {"Origin": "https://evil.example.com"},
                {"Origin": stage.site, "Sec-Fetch-Site": "cross-site"},
            ):
                assert right.client.post(path, data=token, headers=fields).status_code == 403, page
    nobody.client.close()
    bolt.client.close()


FORGED = {"name": "acme", "alert-1": "1", "span": "1h", "email": "x@example.com", "role": "read", "tier": "pro"}
FORGED |= {"amount": "5", "below": "5", "month_max": "50", "percent": "5", "factor": "2", "for": "24h", "overlap": "1d"}
FORGED |= {"status": "402", "severity": "P2", "title": "t", "message": "m", "at": "2027-02-01", "why": "forged"}
"""Fields that pass the checks that pages make before they call the API."""
VIEWERS_OWN = {"/console/search", "/console/alerts/acknowledge"}
"""A form that only reads, and one whose page lists the alerts that the API refused."""


def test_viewer_cannot_apply_any_form_of_operators(stage: PagesStage) -> None:
    async def begin_session(database: Database) -> str:
        async with database.writing() as connection:
            viewer = SignedIn("operator:viewer", frozenset({"read"}))
            return await sessions.begin_session(connection, viewer, time.time())

    before = stage.collector.get("/v1/audit", token=ADMIN).json()["entries"][0]
    secret = use_database(stage.collector.settings["database"], begin_session)
    with Visitor(stage.site) as viewer:
        viewer.client.cookies.set("edgeproxy-session", secret)
        (form,) = {form.fields["form"] for form in viewer.get("/console/customers/acme").forms if "form" in form.fields}
        forms = [page for page in list_signed_in_pages(sells=True) if (page.method, page.who) == ("POST", "operator")]
        assert VIEWERS_OWN | {
            f"/console/customers/{{customer}}/credits/top-up{end}" for end in ("", "/off", "/preview")
        } <= {page.path for page in forms}
        fields = FORGED | {"form": form, "once": secrets.token_hex(16)}
        statuses = {page.path: asked(page, viewer, fields).status_code for page in forms}
    assert {path: status for path, status in statuses.items() if status != 403}.keys() == VIEWERS_OWN, statuses
    assert stage.collector.get("/v1/audit", token=ADMIN).json()["entries"][0] == before, "nothing was changed"


def test_customer_cannot_read_or_change_objects_of_another_customer(stage: PagesStage) -> None:
    """Open each page and form whose path contains an id, with ids of another customer that has every kind of object."""
    stage.join("rich")
    stage.join("poor")
    assert stage.collector.send("POST", "/billing/subscription?customer=rich", {"plan": "standard"}).status == 201
    with stage.customer("rich") as rich, stage.customer("poor") as poor:
        theirs = {"purchase": stage.buy(rich, "5")}
        theirs["key"] = stage.collector.send("POST", "/v1/customers/rich/keys", {}).json()["id"]
        hooks = "/v1/customers/rich/webhook-endpoints"
        theirs["endpoint"] = stage.collector.send("POST", hooks, {"url": "http://127.0.0.1:1/"}).json()["id"]
        body = stage.collector.get("/billing/invoices", token=ADMIN, customer="rich").json()
        theirs["invoice"] = body["invoices"][0]["id"]
        poor.get("/account/keys")
        token = poor.read.form("/account/keys").fields
        tried = set()
        for page in list_signed_in_pages(sells=True):
            names = set(re.findall(r"{(\w+)}", page.path)) - NOBODYS
            if page.who == "customer" and names:
                path = page.path.format(**PLACES | theirs)
                fields = {**token, "overlap": "1d"}
                mine = {"data": fields, "headers": {"Origin": stage.site}} if page.method == "POST" else {}
                # An endpoint is looked for among the customer's own.
                status = 404 if "endpoint" in names else 403
                assert poor.client.request(page.method, path, **mine).status_code == status, page
                tried |= names
        assert tried == theirs.keys()
        assert stage.collector.get(f"/v1/keys/{theirs['key']}").json()["state"] == "active"
        (endpoint,) = stage.collector.get(hooks).json()["endpoints"]
        assert (endpoint["state"], endpoint["old_secret_until"]) == ("enabled", None)


def test_hostile_events_are_shown_harmlessly_and_counted_once_mended(stage: PagesStage) -> None:
    bad = {"id": "1", "source": "s", "customer": "acme", "meter": HOSTILE, "value": 7, "note": "\u202e" + "x" * 3000}
    long = {"id": "2", "source": "s", "customer": "acme", "meter": "\u202e" * 20000, "value": 7}
    assert stage.collector.send("POST", "/v1/events", [bad, long], token=SERVICE).status == 202
    operator = stage.operator
    operator.get("/console/quarantine")
    assert len(operator.answer.content) < 100 << 10
    assert not operator.read.tags & {"img", "script"}
    assert "\u202e" not in operator.answer.text
    forms = [form for form in operator.read.forms if form.action.endswith("/replay")]
    mended = '{"id": "1", "source": "s", "customer": "acme", "meter": "tokens", "value": 7}'
    operator.post(forms[0].action, {**forms[0].fields, "event": mended})
    assert (operator.status, operator.answer.url.query) == (200, b"done=replayed")
    assert stage.collector.usage(customer="acme", meter="tokens")["total"] == 7
    operator.send("/discard", why="nobody knows what it was")
    assert len(stage.entries("dead_letter.discard")) == 1
    with stage.customer("acme") as acme:
        assert "Tokens" in acme.read.text


def test_invoice_of_hundreds_of_lines_is_shown_in_pages(stage: PagesStage) -> None:
    collector, rows_max, bytes_max = stage.collector, 240, 90_000
    stage.join("long")
    assert collector.send("POST", "/billing/subscription?customer=long", {"plan": "standard"}).status == 201
    (invoice, *_) = collector.get("/billing/invoices", token=ADMIN, customer="long").json()["invoices"]
    columns = "invoice, position, kind, plan_version, segment_start, segment_end, meter, value, tier, quantity, amount"
    lines = [
        (invoice["id"], number, "usage", "standard@1", number, number + 1, "llm_tokens", "", 0, 1, 1, 0, 1, "t")
        for number in range(1, rows_max)
    ]
    values = ", ".join("?" * len(lines[0]))
    collector.execute(f"INSERT INTO invoice_lines ({columns}, start, end, text) VALUES ({values})", *lines)
    with stage.customer("long") as customer:
        for visitor, page in ((customer, "/account/invoices/"), (stage.operator, "/console/invoices/")):
            path, shown = f"{page}{invoice['id']}", 0
            while path:
                visitor.get(path)
                assert len(visitor.answer.content) < bytes_max, path
                shown += visitor.answer.text.count('scope="row"')
                more = re.search(r'href="(\?cursor=[0-9]+)" rel="next"', visitor.answer.text)
                path = f"{page}{invoice['id']}{more[1]}" if more else ""
            assert shown == rows_max


def test_hostile_names_are_shown_harmlessly_on_every_page(stage: PagesStage) -> None:
    collector, odd = stage.collector, f"{HOSTILE}\u202e"
    stage.join("odd")
    known = {
        "external_id": f"{HOSTILE} again",
        "metadata": {"note": HOSTILE},
        "paused": {"why": HOSTILE, "status": 403},
    }
    assert collector.send("PATCH", "/v1/customers/odd", known).status == 200
    assert collector.send("POST", "/v1/customers/odd/keys", {"name": HOSTILE}).status == 201
    incident = {"severity": "P3", "title": HOSTILE, "regions": [], "message": odd}
    assert collector.send("POST", "/v1/incidents", incident).status == 201
    letter = {"id": "odd", "source": odd, "customer": "odd", "meter": odd, "value": 1, "note": "x" * (64 << 10)}
    assert collector.send("POST", "/v1/events", [letter], token=SERVICE).status == 202
    chain = Chain()
    assert collector.post(chain.next()).status == collector.post(chain.next(gap=Gap(2, 3, HOSTILE))).status == 200
    assert collector.send("POST", "/billing/subscription?customer=odd", {"plan": "standard"}).status == 201
    (invoice, *_) = collector.get("/billing/invoices", token=ADMIN, customer="odd").json()["invoices"]
    stopped = {"charging": False, "message": HOSTILE, "why": HOSTILE}
    assert collector.send("PUT", "/billing/rollout", stopped).status == 200
    seen = set()
    try:
        with stage.customer("odd") as customer:
            visitors: dict[Audience, Visitor] = {"operator": stage.operator, "customer": customer}
            for who, visitor in visitors.items():
                for page, path in pages_of(who, invoice["id"], "odd", key_of(stage, "odd")).items():
                    # Before each page, since events of Stripe's about its delivery may still come.
                    held = "UPDATE invoices SET state = 'held', held_why = ? WHERE id = ?"
                    collector.execute(held, [odd, invoice["id"]])
                    read = visitor.get(path)
                    assert visitor.status == 200, path
                    assert not read.tags & {"img", "script"}, path
                    assert "\u202e" not in visitor.answer.text, path
                    assert len(visitor.answer.content) < 100 << 10, path
                    if HOSTILE in read.text:
                        seen.add(page)
    finally:
        assert collector.send("PUT", "/billing/rollout", {"charging": True, "why": "mended"}).status == 200
    console = ("", "/customers", "/customers/{customer}", "/edges", "/incidents", "/quarantine", "/audit", "/invoices")
    console += ("/invoices/{invoice}", "/rollout")
    assert seen >= {*(f"/console{path}" for path in console), "/account", "/account/keys", "/account/keys/{key}"}


def test_customer_creates_webhook_endpoints_and_sees_sent_messages(stage: PagesStage) -> None:
    stage.join("hooked")
    hooks = "/v1/customers/hooked/webhook-endpoints"
    with Receiver() as receiver, stage.customer("hooked") as hooked:
        assert "/account/webhooks" in hooked.read.links
        hooked.get("/account/webhooks")
        url = f"http://127.0.0.1:{receiver.port}/page"
        hooked.send("/account/webhooks", url=url, description=HOSTILE, **{"invoice.paid": "on"})
        secret = hooked.read.secret
        (created,) = stage.collector.get(hooks).json()["endpoints"]
        assert (created["url"], created["types"], created["description"]) == (url, ["invoice.paid"], HOSTILE)
        hooked.get("/account/webhooks")
        assert HOSTILE in hooked.read.text
        hooked.send("/test")
        until(lambda: receiver.on("/page"), "the test message is there")
        hook = receiver.on("/page")[0]
        assert Webhook(secret).verify(hook.body, hook.fields)["type"] == "webhook.test"
        # The receiver has the message before the collector notes that it was sent.
        until(
            lambda: any(form.action.endswith("/redeliver") for form in hooked.get("/account/webhooks").forms),
            "the message can be redelivered",
        )
        assert secret not in hooked.answer.text
        hooked.send("/redeliver")
        until(lambda: len(receiver.on("/page")) == 2, "the message is sent again")
        hooked.get("/account/webhooks")
        form = hooked.read.form(f"{created['id']}/disable").fields
        hooked.send("/rotate")
        assert hooked.read.secret not in ("", secret)
        with stage.customer("bolt") as other:
            form |= {"form": other.get("/account/webhooks").form("/account/webhooks").fields["form"]}
            for action in ("rotate", "test", "disable", "delete", "redeliver"):
                other.post(f"/account/webhooks/{created['id']}/{action}", form)
                assert other.status == 404, action
        hooked.get("/account/webhooks")
        hooked.send("/disable")
        assert "disabled by hand" in hooked.read.text
        hooked.send("/enable")
        hooked.send("/delete")
        assert stage.collector.get(hooks).json()["endpoints"] == []
        hooked.send("/account/webhooks", url="https://10.0.0.1/")
        assert hooked.status == 422
        hooked.get("/account/webhooks")
        hooked.send("/account/webhooks", url="http://127.0.0.1:1/")
        hooked.get("/account/webhooks")
        assert "enabled" in hooked.read.text
        hooked.send("/test")
        until(lambda: "failing" in hooked.get("/account/webhooks").text, "a failing endpoint is not called enabled")


def test_customer_sees_the_date_and_amount_of_a_price_change(stage: PagesStage) -> None:
    stage.join("dear")
    collector, plans = (
        stage.collector,
        "plans: {standard@2: {name: Standard, fee: '109', meters: {seats: {cap: hard}}}}",
    )
    assert collector.send("POST", "/billing/subscription?customer=dear", {"plan": "standard"}).status == 201
    created = collector.send("POST", "/billing/price-changes", {"plans": plans, "at": "2098-12-02", "why": "x"})
    assert created.status == 201, created
    with stage.customer("dear") as dear:
        text = dear.get("/account/plan").text  # The first period from then on depends on the day of this subscription.
        assert re.search(r"From (Dec|Jan) \d+, 209[89]: Standard costs \$109\.00 a month\.", text)
        assert "Seats: 0 included" in dear.read.text
        gone = collector.send("POST", f"/billing/price-changes/{created.json()['id']}/withdraw", {"why": "x"})
        assert gone.status == 200, gone
        assert "$109.00" not in dear.get("/account/plan").text


def test_refusals_page_shows_customers_and_the_share_of_uncertain_refusals(stage: PagesStage) -> None:
    chain = Chain(since=int(time.time()) // 60 * 60 - 120)
    rows = [
        ("acme", "refused", "v1", n, f'{{"certain":"{word}","limit":"basic"}}') for n, word in ((30, "yes"), (10, "no"))
    ]
    assert stage.collector.post(chain.next(*rows)).status == 200

    def told() -> bool:
        stage.operator.get("/console/refusals?hours=1")
        assert stage.operator.status == 200
        return "Requests refused" in stage.operator.read.text

    until(told, "the figures are worked out")
    text = " ".join(stage.operator.read.text.split())
    assert "acme basic 40 10 (25.0%)" in text
    assert stage.collector.get("/v1/refusals", hours="1").json()["uncertain"] == 10


def test_console_creates_and_revokes_tokens_and_admin_role_needs_more(stage: PagesStage) -> None:
    operator = stage.operator
    operator.get("/console/tokens")
    operator.send("/console/tokens", name="console-edge", role="edge", region="eu-west")
    secret = operator.read.secret
    assert secret.startswith("token_v1_")
    assert stage.collector.get("/v1/regions/best", token=secret).status != 401
    operator.get("/console/tokens")
    assert secret not in operator.answer.text
    operator.send("console-edge/secret", overlap="0s")
    assert operator.read.secret != secret
    assert stage.collector.get("/v1/regions/best", token=secret).status == 401
    operator.get("/console/tokens")
    operator.send("console-edge/revoke")
    assert operator.answer.url.query == b"done=token"
    operator.send("/console/tokens", name="console-admin", role="admin")
    assert operator.status == 401
    assert "a sign-in by link does not have" in operator.read.text


def test_jobs_are_shown_with_their_last_run(stage: PagesStage) -> None:
    def show_job(name: str) -> list[str]:
        return stage.operator.get("/console/jobs").text.partition(name)[2].split()

    until(lambda: show_job("maintenance")[0] == "succeeded", "the job ran once")


def test_edges_and_the_audit_log_are_shown(stage: PagesStage) -> None:
    chain = Chain()
    said = {"User-Agent": "edgeproxy/7.8.9", "Edge-Sync-Age": "4"}
    assert stage.collector.post(chain.next(), fields=said).status == 200
    row = " ".join(stage.operator.get("/console/edges").text.partition(chain.edge)[2].split())
    assert "token-" in row
    assert "4 seconds 7.8.9 0 0" in row
    summary = stage.operator.read.text.partition("Versions")[2].partition(chain.edge)[2].partition("7.8.9")[0]
    assert summary.strip() == "11 late", "a region of one edge is in the summary too"
    assert f"/console/edges/{chain.edge}" in stage.operator.read.links
    text = " ".join(stage.operator.get(f"/console/edges/{chain.edge}").text.split())
    assert "it works off what it had kept" in text, "the edge ships old batches"
    assert "All batches of this edge have arrived" in text
    stage.operator.get("/console/edges/none")
    assert stage.operator.status == 404
    read = stage.operator.get("/console/audit?actor=operator:link&action=session.begin")
    rows = read.text.rpartition("Change")[2]
    assert "Signed in" in rows
    assert "Contacts changed" not in rows


def test_the_status_is_everybodys_and_has_no_customer(stage: PagesStage) -> None:
    operator = stage.operator
    operator.get("/console/incidents")
    operator.send("/console/incidents", title=HOSTILE, message="We look into it.\u202e", severity="P1")
    assert "Origin" not in operator.client.headers

    def shown(name: str) -> Answer:
        return ask(stage.collector.port, f"/status.{name}")

    until(lambda: all(region["checks"] for region in shown("json").json()["regions"]), "both regions were asked")
    until(lambda: b"We look into it." in shown("atom").body, "the incident is told of")
    status = shown("json").json()
    assert {region["region"]: region["availability"] for region in status["regions"]} == {
        "eu-west": 1.0,
        "us-east": 0.0,
    }
    with Visitor(stage.site, **{"Accept-Language": "de"}) as anyone:
        read = anyone.get("/status")
        assert "eu-west" in read.text
        assert HOSTILE in read.text
        assert not read.tags & {"img", "script"}
        assert anyone.answer.headers["content-encoding"] == "gzip"

        def fetch_again() -> int:
            tag = anyone.client.get("/status").headers["etag"]
            return anyone.client.get("/status", headers={"If-None-Match": tag}).status_code

        until(lambda: fetch_again() == 304, "an unchanged page answers 304")
        assert 'lang="nl"' in anyone.client.get("/status?lang=nl").text[:200]
        assert 'lang="nl"' in anyone.client.get("/status").text[:200]
        feed = anyone.client.get("/status.atom").text
        assert "<script" not in feed
        assert "We look into it." in feed
        for body in (anyone.answer.text, feed, shown("json").body.decode()):
            assert not re.search(r"acme|bolt|zebra", body)


@pytest.mark.parametrize("path", ["/sign-in", "/console", "/status", "/console/customers/none"])
def test_pages_have_the_fields_that_keep_them_safe(stage: PagesStage, path: str) -> None:
    answer = stage.operator.client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    read = Read(answer.text)
    assert not [name for name in read.attributes if name == "style" or name.startswith("on")]
    assert all(place.startswith("/pages/") for place in read.loaded)


def test_metrics_require_a_scrape_token_if_configured(stage: PagesStage) -> None:
    collector = stage.collector
    assert collector.get("/metrics", token=None).status == 401
    assert collector.get("/metrics", token=ADMIN).status == 401, "a token of the API is none of these"
    assert b"collector_ready 1" in collector.get("/metrics", token=SCRAPE).body
    assert collector.get("/v1/edges", token=SCRAPE).status == 401, "nor is one of these a token of the API"
    assert collector.get("/readyz", token=None).status == 200


def test_other_doors_stay_as_they_are(stage: PagesStage) -> None:
    assert ask(stage.collector.port, "/v1/customers").status == 401
    cookies = "; ".join(f"{name}={value}" for name, value in stage.operator.client.cookies.items())
    assert ask(stage.collector.port, "/v1/customers", fields={"Cookie": cookies}).status == 401


def test_customer_replaces_a_due_key_and_the_old_key_ends_later(stage: PagesStage) -> None:
    stage.join("rota")
    with stage.customer("rota") as rota:
        assert "to be replaced" not in rota.get("/account").text
        assert stage.collector.send("PATCH", "/v1/customers/rota", {"rotate_every": "0s"}).status == 200
        old = stage.collector.send("POST", "/v1/customers/rota/keys", {"name": HOSTILE}).json()
        read = rota.get("/account")
        assert f"The key {old['start']} ({HOSTILE}) was to be replaced by" in read.text
        assert not read.tags & {"img", "script"}
        assert "The old key works for another 2 days at most." in rota.get("/account/keys").text
        assert "höchstens noch 2 Tage" in rota.get("/account/keys?lang=de").text
        rota.get("/account/keys?lang=en")
        forms = [form for form in rota.read.forms if form.action.endswith(f"{old['id']}/rotate")]
        assert ["overlap" in form.fields for form in forms] == [False, True]
        began = time.time()
        rota.post(forms[0].action, forms[0].fields)
        secret = rota.read.secret
        assert secret.startswith("edge_v1_")
        rota.post(forms[0].action, forms[0].fields)
        assert rota.read.secret == secret, "a second click makes no second key"
        rota.post(forms[1].action, forms[1].fields | {"once": "f" * 32})
        assert rota.status == 409
    replaced, new = stage.collector.get("/v1/customers/rota/keys").json()["keys"]
    assert (replaced["state"], replaced["rotated_to"], replaced["rotate_by"]) == ("rotating", new["id"], None)
    assert parse_time(replaced["expires_at"]).timestamp() == pytest.approx(began + 2 * 86400, abs=60)
    (entry,) = [entry for entry in stage.entries("key.rotate") if entry["target"] == f"rota/{old['id']}"]
    assert entry["actor"] == "contact:rota@example.com"
    assert [key["id"] for key in stage.collector.get("/v1/customers/rota/keys", due="true").json()["keys"]] == [
        new["id"]
    ]
    assert secret not in stage.collector.output


def test_customer_registers_a_public_key_and_a_private_key_is_refused(stage: PagesStage) -> None:
    private = OKPKey.generate_key("X25519")
    secret = str(private.as_dict(private=True)["d"])
    stage.join("jose")
    with stage.customer("jose") as jose:
        for language, title in (("de", "Neue Schlüssel per Webhook"), ("nl", "Nieuwe sleutels via een webhook")):
            assert title in jose.get(f"/account/keys?lang={language}").text
        form = jose.get("/account/keys?lang=en").form("/account/keys/public-key")
        jose.post("/account/keys/public-key", {**form.fields, "jwk": json.dumps(private.as_dict(private=True))})
        assert "is a private key" in jose.read.text
        assert secret not in jose.answer.text
        jose.post("/account/keys/public-key", {**form.fields, "jwk": "no JSON"})
        assert "has no kty" in jose.read.text
        form = jose.get("/account/keys").form("/account/keys/public-key")
        jose.post("/account/keys/public-key", {**form.fields, "jwk": json.dumps(private.as_dict(private=False))})
        assert "No webhook of yours names the type key.delivered" in jose.get("/account/keys").text
        assert private.thumbprint() in jose.read.text
        state = stage.collector.get("/v1/customers/jose/key-rotation").json()
        assert (state["public_key"]["thumbprint"], state["deliver"]) == (private.thumbprint(), "portal")
        jose.send("/account/keys/public-key/delete")
    assert stage.collector.get("/v1/customers/jose/key-rotation").json()["public_key"] is None
    assert secret not in stage.collector.output
    assert len(stage.entries("customer.public-key")) == 2


def list_key_names(stage: PagesStage, customer: str) -> set[str]:
    return {key["name"] for key in stage.collector.get(f"/v1/customers/{customer}/keys").json()["keys"]}


def test_form_of_an_old_tab_changes_no_other_customer(stage: PagesStage) -> None:
    """The second tab signs in for another customer and so ends the first tab's session."""
    stage.join("first")
    stage.join("second")
    with stage.customer("first") as browser:
        browser.get("/account/keys")
        form = browser.read.form("/account/keys")
        browser.get(stage.mailed_link("second"))
        browser.send("/sign-in/link")
        browser.get("/account/keys")
        browser.post("/account/keys", {**form.fields, "name": "of-the-first"})
        assert browser.status in (401, 403), browser.status
        assert "edge_v1_" not in browser.read.text
        assert "of-the-first" not in list_key_names(stage, "first") | list_key_names(stage, "second")
        browser.get("/account/keys")
        browser.send("/account/keys", name="of-the-second")
        assert "of-the-second" in list_key_names(stage, "second")


def test_sign_out_leaves_no_customer_data_in_the_browser(stage: PagesStage) -> None:
    pages = ("/account", "/account/keys", "/account/invoices", "/account/usage")
    with stage.customer("acme") as browser:
        for page in pages:
            browser.get(page)
            assert (browser.status, browser.answer.headers["cache-control"]) == (200, "no-store"), page
        cookies = dict(browser.client.cookies)
        browser.send("/sign-out")
        with Visitor(stage.site) as back:
            back.client.cookies.update(cookies)
            for page in pages:
                back.get(page)
                assert back.read.forms[0].action == "/sign-in", "the cookie of before opens nothing"
                assert "acme" not in back.read.text


def test_page_size_is_bounded_for_ten_thousand_keys(stage: PagesStage) -> None:
    stage.join("keyring")
    ((own,),) = stage.collector.execute("SELECT id FROM customers WHERE name = 'keyring'")
    rows = ((f"key-{n:05}", own, hashlib.sha256(b"%d" % n).hexdigest(), f"edge_v1_{n:05}", n) for n in range(10_000))
    columns = "id, customer, sha256, start, created_at, name, version"
    stage.collector.execute(f"INSERT INTO keys ({columns}) VALUES (?, ?, ?, ?, ?, 'many', 1)", *rows)
    with stage.customer("keyring") as customer:
        # A customer of six meters has 50 KB of charts beside its keys.
        pages = ((stage.operator, "/console/customers/keyring", 50), (customer, "/account/keys", 100))
        for visitor, page, most in pages:
            visitor.get(page)
            size = len(visitor.answer.content)
            assert (visitor.status, size < most << 10) == (200, True), (page, size)
            (more,) = [link for link in visitor.read.links if "cursor=" in link]
            first = visitor.read.text
            visitor.get(more)
            assert visitor.status == 200
            assert visitor.read.text != first
    stage.operator.get("/console")
    stage.operator.send("/console/search", q="edge_v1_09999")
    assert str(stage.operator.answer.url).endswith("/console/customers/keyring")
