"""Urgent actions of operators: a leaked key, another tier, an incident from an alert, and actions without a form."""

import time
from collections.abc import Iterator
from contextlib import closing

import orjson
import pytest

from loadtest.testbed.collector import ADMIN, READ
from tests.support.site import PagesStage
from tests.support.visitor import Visitor


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    with closing(PagesStage(tmp_path_factory.mktemp("levers"))) as stage:
        columns = "key, kind, severity, title, details, at, routed_at"
        row = ("a", "batches_lost", "page", "batches of <e-1> are lost", "{}", 1000, 1)
        stage.collector.execute(f"INSERT INTO alerts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        yield stage


def test_pasted_leaked_key_is_revoked_and_never_shown_or_stored(stage: PagesStage) -> None:
    operator, collector = stage.operator, stage.collector
    key = collector.send("POST", "/v1/customers/acme/keys", {"name": "x"}).json()
    operator.get("/console/customers")
    operator.send("/console/keys/leaked", key=f" {key['secret']} ")
    assert str(operator.answer.url) == f"{stage.site}/console/customers/acme?done=leaked"
    assert collector.get(f"/v1/keys/{key['id']}").json()["state"] == "revoked"
    assert [entry["actor"] for entry in stage.entries("key.revoke")] == ["operator:link"]
    for secret, status in ((key["secret"], 409), ("edge_v1_of_nobody", 404), ("", 422)):
        operator.get("/console/customers")
        operator.send("/console/keys/leaked", key=secret)
        assert operator.status == status
        assert not secret or secret not in operator.answer.text
    assert key["secret"] not in collector.output
    assert collector.send("POST", "/v1/keys/find", {"key": key["secret"]}, token=READ).status == 403


def test_customer_can_lower_but_not_raise_a_key_budget(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        acme.get("/account/keys")
        acme.send("/account/keys", name="ci", budget="much")
        assert acme.status == 422
        assert "Write a budget such as $50/month or 1000000 tokens/day." in acme.read.text
        acme.send("/account/keys", budget="1000 calls/day")
        assert acme.read.secret, "the other form values are preserved"
        (key,) = [key for key in stage.collector.get("/v1/customers/acme/keys").json()["keys"] if key["budget"]]
        assert (key["name"], key["budget"]["amount"], key["budget"]["meter"]) == ("ci", 1000, "calls")
        form, page = f"/account/keys/{key['id']}/budget", acme.get("/account/keys")
        assert "0 / 1,000 0%" in page.text
        acme.send(form, budget="2000 calls/day")
        assert acme.status == 403
        assert "This would be wider than your keys are." in acme.read.text
        acme.get("/account/keys")
        acme.send(form, budget="500 calls/day")
        assert "0 / 500 0%" in acme.read.text
    stage.operator.get("/console/customers/acme")
    stage.operator.send(f"/console/keys/{key['id']}/budget", budget="")
    assert stage.collector.get(f"/v1/keys/{key['id']}").json()["budget"] is None


def test_budgets_of_many_keys_are_shown_in_part(stage: PagesStage) -> None:
    """A customer may have thousands of budgets: a page asks for those of its keys, and lists the fullest."""
    stage.join("many")
    keys = "/v1/customers/many/keys"
    created = [stage.collector.send("POST", keys, {"budget": "9 calls/day"}).json()["id"] for _ in range(23)]
    rotated = stage.collector.send("POST", f"/v1/keys/{created[0]}/rotate", {"overlap": "1d"}).json()["id"]
    ended = stage.collector.send("POST", f"/v1/keys/{created[1]}/rotate", {"overlap": "0s"}).json()["id"]
    assert stage.collector.send("DELETE", f"/v1/keys/{ended}", {"why": "old"}).status == 200

    def select(**query: str) -> list[str]:
        listed = stage.collector.get("/v1/customers/many/key-budgets", **query).json()
        return sorted(budget["key"] for budget in listed["budgets"])

    latest = sorted([rotated, ended, *created[2:]])
    assert select() == latest, "budgets of ended keys too, each with the last key that has it"
    assert select(key=f"{created[0]},{created[5]}") == sorted([rotated, created[5]])
    assert select(key=rotated) == [rotated]
    limits = stage.collector.get("/v1/customers/many/access").json()["limits"]
    assert sum(limit["kind"] == "budget" for limit in limits) == 22, "no budget of ended keys"
    with stage.customer("many") as many:
        read = many.get("/account/limits")
        assert read.text.count("Budget of") == 20
        assert "2 more" in read.text
        assert "0 / 9 0%" in many.get(f"/account/keys/{created[7]}").text


def test_the_tier_of_a_customer_is_changed_on_its_page(stage: PagesStage) -> None:
    stage.operator.get("/console/customers/acme")
    stage.operator.send("/tier", tier="standard")
    assert stage.collector.get("/v1/customers/acme").json()["tier"] == "standard"
    assert "The tier is changed" in stage.operator.read.text


def test_incident_opened_from_an_alert_acknowledges_it(stage: PagesStage) -> None:
    operator = stage.operator
    assert "/console/incidents?alert=1" in operator.get("/console/alerts").links
    assert "batches of <e-1> are lost" in operator.get("/console/incidents?alert=1").text
    operator.send("/console/incidents", title="Some figures are late", message="We look into it.")
    (alert,) = stage.collector.get("/v1/alerts", token=ADMIN, kind="batches_lost").json()["alerts"]
    (incident,) = stage.collector.get("/v1/incidents", token=ADMIN).json()["incidents"]
    assert alert["handling"]["acknowledged_why"] == f"incident {incident['id']}"
    assert (incident["severity"], "lost" in incident["title"]) == ("P1", False)
    with stage.customer("acme") as acme:
        assert "We look into it." in acme.get("/account").text, acme.read.text
        for message, state in (("It was a disk.", "monitoring"), ("It is over.", "resolved")):
            assert "Some figures are late" in acme.get("/account").text
            update = {"state": state, "message": message}
            stage.collector.send("POST", f"/v1/incidents/{incident['id']}/updates", update)
        assert "Some figures are late" not in acme.get("/account").text
    for number in ("0", "x", "99", "9" * 40):
        assert operator.get(f"/console/incidents?alert={number}").form("/console/incidents").fields.get("alert") is None


def test_a_form_sent_to_a_page_without_one_is_answered_with_a_page(stage: PagesStage) -> None:
    operator = stage.operator
    form = {"form": operator.get("/console/edges").form("/sign-out").fields["form"]}
    for path, status in (("/console/edges", 405), ("/console/nothing", 404), ("/account/limits", 405)):
        operator.post(path, form)
        assert (operator.status, operator.answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
    operator.get("/console/customers/acme?lang=de")
    operator.send("/pause", why="")
    assert (operator.status, "Füllen Sie dieses Feld aus." in operator.read.text) == (422, True)
    operator.get("/console?lang=en")


def test_selected_alerts_are_acknowledged_one_by_one_and_failures_are_shown(stage: PagesStage) -> None:
    columns = "key, kind, severity, customer, title, details, at, routed_at"
    rows = [
        (f"{customer}-{part}", "quota_reached", "warn", customer, "t", orjson.dumps(quota).decode(), part, 1)
        for customer in ("acme", "bolt")
        for part in (50, 80, 100)
        for quota in [{"threshold": part, "quota": "calls-month", "since": "2027-01-01"}]
    ]
    rows.append(("other", "webhook_disabled", "warn", "bolt", "t", "{}", 100, 1))
    rows.insert(0, ("oldest", "charging_stopped", "page", None, "the oldest", "{}", 1, 1))
    rows.append(("newest", "price_change_decided", "info", None, "the newest", "{}", 1, 1))
    stage.collector.execute(f"INSERT INTO alerts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *rows)
    listed = stage.collector.get("/v1/alerts", token=ADMIN, kind="quota_reached").json()["alerts"]
    of_acme, of_bolt = (
        [str(alert["id"]) for alert in listed if alert["customer"] == name] for name in ("acme", "bolt")
    )
    operator, page = stage.operator, "/console/alerts?kind=quota_reached&acknowledged=false"
    text = operator.get("/console/alerts").text
    assert text.index("the oldest") < text.index("the newest"), "critical alerts come first"
    text = operator.get("/console/alerts?sort=-at").text
    assert text.index("the newest") < text.index("the oldest"), "unless another order was asked for"
    assert "the newest" not in operator.get("/console/alerts?acknowledged=false").text, "the alert needs no action"
    assert operator.get(page).text.count("2 earlier") == 2, "a line for each quota"
    one_post = {f"alert-{of_acme[0]}": " ".join(of_acme), "alert-9999": "9999", "why": "seen"}
    for _ in range(2):  # It may be sent twice.
        operator.get(page)
        operator.send("/console/alerts/acknowledge", **one_post)
        assert "1 alert could not be acknowledged." in operator.read.text
        assert "By number: 9999." in operator.read.text
        entries = [entry["target"] for entry in stage.entries("alert.acknowledge")]
        assert sorted(set(of_acme) & set(entries)) == sorted(of_acme)
        assert len(entries) == len(set(entries)), "an entry each"
    for ticked in ({}, {"alert-1": "one"}):
        operator.get(page)
        operator.send("/console/alerts/acknowledge", **ticked)
        assert operator.status == 422
    with stage.customer("bolt") as bolt:
        bolt.get("/account/alerts")
        bolt.send(
            "/account/alerts/acknowledge", **{f"alert-{of_bolt[0]}": of_bolt[0], f"alert-{of_acme[0]}": of_acme[0]}
        )
        assert f"By number: {of_acme[0]}." in bolt.read.text, "of another customer it is as though there were none"
        bolt.send(f"/account/alerts/{of_bolt[1]}/acknowledge", earlier=" ".join(of_bolt[1:]))
        assert "The alert is acknowledged." in bolt.read.text
    handled = stage.collector.get("/v1/alerts", token=ADMIN, kind="quota_reached", customer="bolt").json()["alerts"]
    assert not any(alert["handling"]["acknowledged_at"] for alert in handled), "operators handle them apart"


def test_incidents_of_any_month_are_shown_to_everybody(stage: PagesStage) -> None:
    began = int(time.time()) - 200 * 86400
    month, before = (time.strftime("%Y-%m", time.gmtime(began - ago)) for ago in (0, 31 * 86400))
    row = ("i-1", "P1", "<b>An old one</b>", "[]", began, began + 60)
    columns = "id, severity, title, regions, began_at, ended_at"
    stage.collector.execute(f"INSERT INTO incidents ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
    told = ("u-1", "i-1", began, "resolved", "It is over.")
    stage.collector.execute(
        "INSERT INTO incident_updates (id, incident, at, state, message) VALUES (?, ?, ?, ?, ?)", told
    )
    anyone = Visitor(stage.site)
    page = anyone.get(f"/status/history?month={month}&lang=en")
    assert "<b>An old one</b>" in page.text
    assert "It is over." in page.text
    assert "There were none." in anyone.get(f"/status/history?month={before}").text
    assert anyone.get("/status/history").links, "this month"
    for wrong in ("2001-01", "2999-01", "2027-13", "x"):
        anyone.get(f"/status/history?month={wrong}")
        assert anyone.status == 404
