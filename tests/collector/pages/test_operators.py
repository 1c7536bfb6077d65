"""Operators and contacts sign in with a browser at a real OpenID provider: code flow, PKCE, roles, second factor."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from edgeproxy.collector.pages.sessions import CONFIRM_SECONDS
from edgeproxy.collector.pages_service import list_signed_in_pages
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, Collector
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until
from tests.support.filled_site import report_traffic
from tests.support.oidc import AUDIENCE, THERE, Provider
from tests.support.site import PLACES
from tests.support.visitor import Visitor

ROLES = {"claim": "groups", "admin": ["ops"], "support": ["helpdesk"]}


INVOICE_FORMS = ("hold", "accept", "void", "credit", "settle", "write-off")


class Stage:
    """A collector with operators who sign in at an OpenID provider."""

    def __init__(self, folder: Path) -> None:
        self.provider = Provider(folder)
        self.collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")
        self.site = f"http://{HOST}:{self.collector.port}"
        self.provider.start(redirect=f"{self.site}/sign-in/back {self.site}/sign-in/customer/back")
        operators = {"issuer": self.provider.issuer, "audience": AUDIENCE, "roles": ROLES}
        pages: dict[str, object] = {"client": "console", "client_secret": "secret-of-console"}
        pages["customers"] = {"issuer": self.provider.issuer, **pages}
        self.collector.settings |= {"operators": operators, "pages": pages}
        # Of a calendar month's last hours the first fee may be too small for a credit note.
        self.collector.settings["billing"] |= {"anchor": "signup"}
        self.collector.start()

    def sign_in(self, visitor: Visitor, person: str, path: str = "/sign-in/operator") -> None:
        """Sign in as `person` at the provider."""
        visitor.get(path)
        visitor.read.form("").fields["person"] = person
        visitor.send("", person=person)

    def reload(self, issuer: str, secret: str) -> str:
        """Reload with this issuer of operators and this secret of its client. Return the new lines of the log."""
        settings, before = self.collector.settings, len(self.collector.output)
        settings["operators"] = {**settings["operators"], "issuer": issuer}
        settings["pages"] = {**settings["pages"], "client_secret": secret}
        self.collector.write()
        assert self.collector.process is not None
        self.collector.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in self.collector.output[before:], "the file is applied")
        return self.collector.output[before:]

    def age_sessions(self) -> None:
        """Make all sessions so old that the collector confirms them at the issuer again."""
        self.collector.execute("UPDATE sessions SET created_at = created_at - ?", (CONFIRM_SECONDS,))

    @property
    def rollout(self) -> dict[str, object]:
        """The status of the billing rollout."""
        body: dict[str, object] = self.collector.get("/billing/rollout", token=ADMIN).json()
        return body

    def close(self) -> None:
        """Stop the collector and the provider."""
        self.collector.close()
        self.provider.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not THERE:
        pytest.skip("oidc-provider is not on this machine")
    with closing(Stage(tmp_path_factory.mktemp("operators"))) as made:
        yield made


def test_issuer_roles_decide_the_visible_pages(stage: Stage) -> None:
    assert "sign-in/link" not in stage.collector.output  # With an issuer the collector prints no link.
    with Visitor(stage.site) as ops, Visitor(stage.site) as helpdesk, Visitor(stage.site) as stranger:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/audit")
        assert (ops.status, ops.answer.url.path) == (200, "/console/audit"), " ".join(ops.read.text.split())
        assert any("actor=operator%3Aops" in link for link in ops.read.links)
        ops.get("/console/new-customer")
        ops.send("/console/customers", name="acme", tier="basic", key="")
        assert ops.status == 200

        stage.sign_in(helpdesk, "helpdesk")
        assert "/console/audit" not in helpdesk.read.links
        assert helpdesk.get("/console/audit").text
        assert helpdesk.status == 403
        helpdesk.get("/console/customers/acme")
        helpdesk.send("/pause", why="unpaid")
        assert stage.collector.get("/v1/customers/acme").json()["paused"]["why"] == "unpaid"
        assert not [form for form in helpdesk.read.forms if form.action.endswith(("/keys", "/contacts"))]
        token = helpdesk.read.form("/sign-out").fields["form"]
        form = {"form": token, "once": "0" * 32, "email": "me@example.com", "role": "owner"}
        helpdesk.post("/console/customers/acme/contacts", form)
        assert helpdesk.status == 403

        stage.sign_in(stranger, "stranger")
        assert stranger.status == 403
        stranger.get("/console")
        assert stranger.answer.url.path == "/sign-in"


def test_sign_in_callback_requires_the_state_of_its_own_browser(stage: Stage) -> None:
    with Visitor(stage.site) as victim, Visitor(stage.site) as attacker:
        attacker.client.follow_redirects = False
        attacker.get("/sign-in/operator")
        asked = parse_qs(urlsplit(attacker.answer.headers["location"]).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", asked["code_challenge"][0])
        victim.get(f"/sign-in/back?code=stolen&state={asked['state'][0]}")
        assert victim.status == 400
        victim.client.follow_redirects = False
        victim.get("/sign-in/operator")
        victim.get(f"/sign-in/back?code=stolen&state={asked['state'][0]}")
        assert victim.status == 403
        attacker.get(f"/sign-in/back?code=made-up&state={asked['state'][0]}")
        assert attacker.status == 403
        assert "edgeproxy-session" not in attacker.client.cookies


def test_session_ends_when_the_issuer_no_longer_knows_the_operator(stage: Stage) -> None:
    with Visitor(stage.site) as ops, Visitor(stage.site) as leaver:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/customers")
        stage.sign_in(leaver, "leaver", "/sign-in/operator?next=/console/audit")
        assert leaver.status == 200
        form = leaver.read.form("/sign-out").fields
        assert ask(stage.provider.port, "/leave").status == 204
        leaver.get("/console/audit")
        assert leaver.status == 200, "the issuer has not been asked yet"
        stage.age_sessions()
        leaver.post("/console/customers", {**form, "name": "made-by-leaver", "tier": "basic"})
        assert leaver.status == 401
        leaver.get("/console/audit")
        assert (leaver.status, leaver.answer.url.path) == (403, "/sign-in/back")
        assert stage.collector.get("/v1/customers/made-by-leaver").status == 404
        # An operator who has not left stays signed in.
        ops.get("/console/audit?order=newest")
        assert (ops.status, str(ops.answer.url)) == (200, f"{stage.site}/console/audit?order=newest")


def test_second_factor_requires_a_new_sign_in_at_the_issuer(stage: Stage) -> None:
    with Visitor(stage.site) as ops:
        ops.client.follow_redirects = False
        ops.get("/sign-in/operator?again=1")
        asked = parse_qs(urlsplit(ops.answer.headers["location"]).query)
        assert (asked["prompt"], asked["max_age"]) == (["login"], ["0"])


def test_billing_stop_requires_the_role_and_a_recent_second_factor(stage: Stage) -> None:
    why = {"why": "a wrong price", "message": "Free today."}
    with Visitor(stage.site) as ops, Visitor(stage.site) as helpdesk:
        stage.sign_in(helpdesk, "helpdesk", "/sign-in/operator?next=/console/rollout")
        assert helpdesk.status == 403
        token = helpdesk.read.form("/sign-out").fields
        for form in ("stop", "resume", "percent"):
            helpdesk.post(f"/console/rollout/{form}", {**token, **why, "percent": "5"})
            assert helpdesk.status == 403

        stage.sign_in(ops, "ops-by-password", "/sign-in/operator?next=/console/rollout")
        assert not [form for form in ops.read.forms if form.action.startswith("/console/rollout")], "asked for before"
        assert "asks for a second factor" in ops.read.text
        ops.post("/console/rollout/stop", {**ops.read.form("/sign-out").fields, **why})
        assert ops.status == 401
        assert stage.rollout["charging"] is True
        (step_up,) = [link for link in ops.read.links if link.startswith("/sign-in/operator?again=1")]
        for cookie in list(ops.client.cookies.jar):  # The provider would reuse its own session of the first person.
            if not cookie.name.startswith("edgeproxy"):
                ops.client.cookies.delete(cookie.name)
        stage.sign_in(ops, "ops", step_up)
        assert (ops.status, ops.answer.url.path) == (200, "/console/rollout")  # Back on the page of the form.
        ops.send("/console/rollout/stop", **why)
        assert "Free today." in ops.read.text
        assert stage.rollout["message"] == "Free today."
        assert "Nobody is charged" in " ".join(ops.get("/console").text.split())
        ops.get("/console/rollout")
        ops.send("/console/rollout/resume", why="mended")
        assert stage.rollout["charging"] is True
        ops.send("/console/rollout/percent", percent="5", why="down from 100")
        ops.send("/console/rollout/percent", percent="25", why="up")
        assert (ops.status, "gates are closed" in ops.read.text) == (409, True)
        ops.get("/console/rollout")
        ops.send("/console/rollout/percent", percent="25", why="up", force="a drill")
        assert stage.rollout["percent"] == 25
        entries = stage.collector.get("/v1/audit", token=ADMIN, actor="operator:ops").json()["entries"]
        done = [entry["action"] for entry in entries if entry["action"].startswith("billing.")]
        assert done == ["billing.stop", "billing.resume", "billing.rollout", "billing.rollout"]


def test_only_sensitive_forms_require_a_second_factor(stage: Stage) -> None:
    sensitive = {
        *(f"/console/customers/{{customer}}/{what}" for what in ("delete", "restore")),
        *(f"/console/rollout/{what}" for what in ("stop", "resume", "percent")),
        *(f"/console/invoices/{{invoice}}/{what}" for what in INVOICE_FORMS),
        *(f"/console/customers/{{customer}}/credits/{what}" for what in ("gift", "withdraw", "refund", "reverse")),
        *(f"/console/price-changes{what}" for what in ("", "/amounts", "/preview", "/{change}/withdraw")),
        "/console/keys/{key}/restore",
        "/console/tokens",  # A token with a role of people.
    }
    said = {
        "once": "0" * 32,
        "name": "nobody",
        "why": "a test",
        "percent": "5",
        "amount": "1",
        "role": "admin",
    }
    asks = set()
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops-by-password")
        token = ops.read.form("/sign-out").fields
        for page in list_signed_in_pages(sells=True):
            if page.method == "POST" and page.who == "operator":
                ops.post(page.path.format(**PLACES | {"customer": "nobody", "alert": "999999999"}), token | said)
                # A search changes nothing; without a text it lists all customers.
                assert ops.status == 200 if page.path == "/console/search" else 400 <= ops.status < 500, page
                if ops.status == 401:
                    asks.add(page.path)
                    assert [link for link in ops.read.links if link.startswith("/sign-in/operator?again=1")], page
        assert asks == sensitive
        assert "asks for a second factor" in ops.get("/console/rollout").text


def test_only_a_previewed_price_change_can_be_scheduled(stage: Stage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "subscribed", "tier": "basic"}).status == 201
    body = {"plan": "standard"}
    assert stage.collector.send("POST", "/billing/subscription?customer=subscribed", body).status == 201
    hostile = "<img src=x onerror=alert(1)>"
    plans = (
        '\r\nplans:\r\n  standard@2: {name: "<b>Dear</b>", fee: "109", meters: {seats: {included: 5, cap: hard}}}\r\n'
    )
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops-by-password", "/sign-in/operator?next=/console/price-changes")
        typed = {"plans": plans, "at": "2099-01-01", "why": "x"}
        ops.post("/console/price-changes/preview", {**ops.read.form("/sign-out").fields, **typed})
        assert ops.status == 401, "the request needs a second factor"
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/price-changes")
        ops.send("/preview", plans="plans: {standard@1: {fee: '1'}}", at="2099-01-01", why="x")
        assert (ops.status, "was edited" in ops.read.text) == (422, True)
        ops.get("/console/price-changes")
        ops.send("/preview", plans=plans, at="2099-01-01", why="dearer")
        text = " ".join(ops.read.text.split())
        assert "standard@1 → standard@2 $99.00 $109.00 $10.00" in text
        assert "subscribed" in text
        assert stage.collector.get("/billing/price-changes", token=ADMIN).json()["price_changes"] == []
        form = ops.read.form("/console/price-changes").fields
        ops.post("/console/price-changes", {**form, "plans": form["plans"].replace("109", "110")})
        assert ops.status == 409, "the change was not previewed"
        ops.post("/console/price-changes", {**form, "why": hostile})
        assert "The price change is scheduled." in ops.read.text
        assert not ops.read.tags & {"img", "script", "b"}
        (change,) = stage.collector.get("/billing/price-changes", token=ADMIN).json()["price_changes"]
        ops.get(f"/console/price-changes/{change['id']}")
        assert (ops.status, ops.read.tags & {"img", "script", "b"}) == (200, set())
        ops.send("/withdraw", why="prices stay")
        assert (ops.status, "The price change is withdrawn." in ops.read.text) == (200, True)
        assert not [form for form in ops.read.forms if form.action.endswith("/withdraw")]
        ops.get("/console/price-changes")
        ops.send("/amounts", **{"standard@1/fee": "99", "at": "2099-01-01", "why": "x"})
        assert (ops.status, "changes nothing" in ops.read.text) == (422, True)
        ops.get("/console/price-changes")
        ops.send("/amounts", **{"standard@1/fee": "111", "at": "2099-01-01", "why": "dearer"})
        text = " ".join(ops.read.text.split())
        assert "standard@1 → standard@3 1 subscriber" in text
        assert "Fee a month $99.00 $111.00" in text
        assert "standard@3:" in ops.read.form("/console/price-changes").fields["plans"]


def test_an_operator_decides_about_invoices_by_their_state(stage: Stage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "billed", "tier": "basic"}).status == 201
    asked = {"plan": "standard"}
    assert stage.collector.send("POST", "/billing/subscription?customer=billed", asked, token=ADMIN).status == 201
    (one,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="billed").json()["invoices"]

    def invoice(**now: str) -> dict[str, object]:
        """Return the invoice. First set the columns in `now`, which the billing run would set."""
        if now:
            columns = ", ".join(f"{name} = ?" for name in now)
            stage.collector.execute(f"UPDATE invoices SET {columns} WHERE id = ?", [*now.values(), one["id"]])
        body: dict[str, object] = stage.collector.get(f"/billing/invoices/{one['id']}", token=ADMIN).json()
        return body

    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/invoices")
        assert "billed" in ops.read.text, "invoices in all states are listed at first"
        assert "billed" not in ops.get("/console/invoices?state=held").text
        invoice(state="draft")
        ops.get(f"/console/invoices/{one['id']}")
        ops.send("/hold", why="the customer disputes it")
        assert (invoice()["state"], invoice()["held_why"]) == ("held", "the customer disputes it")
        assert "warning 1 invoice is held" in " ".join(ops.get("/console").text.split())
        assert "the customer disputes it" in ops.get("/console/invoices").text
        assert "billed" in ops.get("/console/invoices?customer=billed&state=held").text
        assert "No invoice is like this" in ops.get("/console/invoices?customer=nobody").text
        amount = f"${int(str(invoice()['total'])) / 100:.2f}"
        assert f"Accept it: {amount} goes out" in ops.get(f"/console/invoices/{one['id']}").text
        ops.send("/accept", why="it is right")
        assert (invoice()["state"], invoice()["accepted_why"]) == ("closing", "it is right")
        invoice(state="open", stripe_id="in_1", amount_due=str(invoice()["total"]))
        ops.get(f"/console/invoices/{one['id']}")
        ops.send("/credit", why="a mistake", amount="0.011")
        assert ops.status == 422
        ops.get(f"/console/invoices/{one['id']}")
        ops.send("/credit", why="a mistake", amount="1.50")
        (entry,) = stage.collector.get("/v1/audit", token=ADMIN, action="invoice.credit").json()["entries"]
        assert (entry["after"]["amount"], entry["actor"]) == (150, "operator:ops")
        for what, state in (("settle", "settling"), ("write-off", "writing_off")):
            invoice(state="open", amount_due="9900")
            note = "UPDATE credit_notes SET state = 'made'"
            stage.collector.execute(note)
            ops.get(f"/console/invoices/{one['id']}")
            ops.send(f"/{what}", why="a letter", **({"amount": "99.00"} if what == "settle" else {}))
            assert invoice()["state"] == state, ops.read.text
        invoice(state="open")
        ops.get(f"/console/invoices/{one['id']}")
        ops.send("/void", why="all of it was one")
        assert invoice()["state"] == "voiding"
        assert "Nothing can be done with it now." in ops.read.text


def test_operator_grants_and_revokes_credits(stage: Stage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "credited", "tier": "basic"}).status == 201
    page = "/console/customers/credited/credits"
    with Visitor(stage.site) as ops, Visitor(stage.site) as helpdesk:
        stage.sign_in(ops, "ops", f"/sign-in/operator?next={page}")
        ops.send("/gift", amount="12.345678", why="an outage", expires="2099-01-01")
        ops.send("/withdraw", amount="2.345678", why="too much of it")
        for wrong in ("x", "-1", "1e999999", "0.0000001", "nan"):
            ops.get(page)
            ops.send("/gift", amount=wrong, why="an outage")
            assert ops.status == 422, wrong
        balance = stage.collector.get("/billing/balance", token=ADMIN, customer="credited").json()
        assert (balance["balance"], balance["grants"][0]["expires_at"][:4]) == (10_000_000, "2099")
        stage.sign_in(helpdesk, "helpdesk", f"/sign-in/operator?next={page}")
        assert (helpdesk.status, [form for form in helpdesk.read.forms if page in form.action]) == (200, [])


def test_contact_signs_in_by_an_address_verified_by_the_issuer(stage: Stage) -> None:
    contacts = {"emails": ["jane@example.com"]}
    for name in ("first", "second"):
        assert stage.collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
    assert stage.collector.send("PUT", "/v1/customers/first/contacts", contacts).status == 200
    way = "/sign-in/customer?next=/account/keys"
    with Visitor(stage.site) as jane, Visitor(stage.site) as mallory, Visitor(stage.site) as nobody:
        stage.sign_in(jane, "jane", way)
        assert (jane.status, jane.answer.url.path) == (200, "/account/keys"), " ".join(jane.read.text.split())
        (entry,) = stage.collector.get("/v1/audit", token="admin-token", actor="contact:jane@example.com").json()[
            "entries"
        ]
        assert (entry["action"], entry["after"]) == ("session.begin", {"customer": "first", "role": "owner"})
        for visitor, person in ((mallory, "mallory"), (nobody, "nobody")):
            stage.sign_in(visitor, person, way)
            assert visitor.status == 403
            visitor.get("/account")
            assert visitor.answer.url.path == "/sign-in"
        # A contact of two customers chooses one. A removed contact is signed out.
        assert stage.collector.send("PUT", "/v1/customers/second/contacts", contacts).status == 200
        jane.send("/sign-out")
        jane.get(way)  # She is still signed in at the issuer.
        assert [form.action for form in jane.read.forms] == ["/sign-in/link"] * 2
        jane.post("/sign-in/link", jane.read.forms[1].fields)
        assert "second" in jane.get("/account").text
        # The issuer confirms the session without a page for her, and her chosen customer is kept.
        keys = jane.get("/account/keys").form("/account/keys").fields
        stage.age_sessions()
        jane.post("/account/keys", keys)
        assert jane.status == 401
        asked = [jane.get("/account/keys").text, *(str(answer.url.path) for answer in jane.answer.history)]
        assert "second" in asked[0]
        assert asked[1:3] == ["/account/keys", "/sign-in/customer"]
        assert (jane.status, jane.answer.url.path) == (200, "/account/keys")
        assert stage.collector.send("PUT", "/v1/customers/second/contacts", {"emails": []}).status == 200
        jane.get("/account")
        assert jane.answer.url.path == "/sign-in"


def test_sensitive_form_requires_a_contacts_new_sign_in_at_the_issuer(
    stage: Stage,
) -> None:
    owner = {"email": "ann@example.com", "role": "owner"}
    assert stage.collector.send("POST", "/v1/customers", {"name": "confirmed", "tier": "basic"}).status == 201
    assert stage.collector.send("POST", "/v1/customers/confirmed/contacts", owner).status == 201
    with Visitor(stage.site) as ann:
        stage.sign_in(ann, "ann", "/sign-in/customer?next=/account/data")
        assert (ann.status, ann.answer.url.path) == (200, "/account/data")
        assert "/sign-in/customer?again=1&next=/account/data" in ann.read.links
        fields = {"form": ann.read.form("/sign-out").fields["form"], "name": "confirmed"}
        ann.post("/account/data/delete", fields)
        assert ann.status == 401
    assert stage.collector.get("/v1/customers/confirmed").json()["state"] == "active"


def test_deleting_a_customer_requires_its_name_and_can_be_undone(stage: Stage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "leaver", "tier": "basic"}).status == 201
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/customers/leaver")
        ops.send("/delete", name="other")
        assert ops.status == 422
        ops.get("/console/customers/leaver")
        ops.send("/delete", name="leaver")
        assert stage.collector.get("/v1/customers/leaver").json()["state"] == "deleting"
        ops.send("/restore")
        assert stage.collector.get("/v1/customers/leaver").json()["state"] == "active"


def test_operator_restores_a_revoked_key_on_the_customers_page(stage: Stage) -> None:
    assert stage.collector.send("POST", "/v1/customers", {"name": "careless", "tier": "basic"}).status == 201
    key = stage.collector.send("POST", "/v1/customers/careless/keys", {}).json()["id"]
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/customers/careless")
        ops.send(f"{key}/revoke")
        assert stage.collector.get(f"/v1/keys/{key}").json()["state"] == "revoked"
        ops.send(f"{key}/restore")
        assert (ops.status, ops.answer.url.path) == (200, "/console/customers/careless")
        assert stage.collector.get(f"/v1/keys/{key}").json()["state"] == "active"
        assert not [form for form in ops.read.forms if form.action.endswith("/restore")]


def test_business_metrics_are_hidden_from_support_operators(stage: Stage) -> None:
    with Visitor(stage.site) as ops, Visitor(stage.site) as helpdesk:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/business-metrics")

        def told() -> bool:
            ops.get("/console/business-metrics?month=2026-10")
            assert ops.status == 200
            return "Lifetime value" in ops.read.text

        until(told, "the figures are worked out")
        assert "Revenue for each unit of cost." in ops.read.text
        assert {"?month=2026-09", "?month=2026-11"} <= set(ops.read.links)
        for month in ("2999-01", "2026-13", "x"):
            ops.get(f"/console/business-metrics?month={month}")
            assert ops.status == 400
        stage.sign_in(helpdesk, "helpdesk", "/sign-in/operator?next=/console/business-metrics")
        assert helpdesk.status == 403


def test_overview_shows_the_traffic_reported_by_edges(stage: Stage) -> None:
    chain = Chain()
    assert stage.collector.post(chain.next()).status == 200
    minute = int(time.time()) // 60 * 60 - 600
    with Visitor(stage.site) as ops:
        stage.sign_in(ops, "ops")
        assert "No edge has reported traffic in this time" in ops.get("/console").text
        for number in (0, 1, 3):
            report_traffic(stage.collector, chain.edge, chain.region, minute + 60 * number, 36_000)
        report_traffic(stage.collector, chain.edge, chain.region, minute - 3600, 54_000)
        for hours, rate in (("1", "600"), ("24", None), ("168", None), ("7", "600")):
            text = " ".join(ops.get(f"/console?hours={hours}").text.split())
            assert "Refused (429) 2.00%" in text, text
            assert "Errors (5xx) 1.00%" in text
            assert "Latency p95 4.85 ms" in text
            assert rate is None or f"Requests on average {rate} /s ↓ 33.3% before: 900" in text, text
            assert chain.region in text
        assert "minutes of edges are missing" in text


def test_an_issuer_gets_no_secret_that_came_with_another_issuer(stage: Stage) -> None:
    """A new secret with an unchanged issuer is used at once."""
    issuer, provider = stage.provider.issuer, stage.provider.process
    assert provider is not None

    def sign_in() -> int:
        with Visitor(stage.site) as ops:
            stage.sign_in(ops, "ops")
            return ops.status

    waits = '"needs_restart": ["pages"]'
    with closing(Ports(1)) as ports:
        other = f"http://{HOST}:{ports.numbers[0]}"
        assert waits in stage.reload(other, "for-the-other")
        assert sign_in() == 401  # The collector trusts the other issuer's keys alone.
        assert "invalid_client" not in provider.output
        assert waits in stage.reload(other, "secret-of-console")
    assert waits not in stage.reload(issuer, "rotated")
    assert sign_in() == 403
    assert "invalid_client" in provider.output
    stage.reload(issuer, "secret-of-console")
    assert sign_in() == 200
