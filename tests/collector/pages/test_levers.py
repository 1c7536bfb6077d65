"""What operators do at night: a leaked key, another tier, an incident from an alert; and what has no form."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from loadtest.testbed.collector import ADMIN, READ
from tests.support.site import PagesStage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    with closing(PagesStage(tmp_path_factory.mktemp("levers"))) as made:
        columns = "key, kind, severity, title, details, at, routed_at"
        with closing(sqlite3.connect(made.collector.database, timeout=30)) as database, database:
            row = ("a", "batches_lost", "page", "batches of <e-1> are lost", "{}", 1000, 1)
            database.execute(f"INSERT INTO alerts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        yield made


def test_a_leaked_key_is_revoked_by_pasting_it_and_is_shown_and_stored_nowhere(stage: PagesStage) -> None:
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


def test_a_key_gets_a_budget_which_its_customer_can_lower_and_not_raise(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        acme.get("/account/keys")
        acme.send("/account/keys", name="ci", budget="much")
        assert acme.status == 422
        assert "Write a budget such as $50/month or 1000000 tokens/day." in acme.read.text
        acme.send("/account/keys", budget="1000 calls/day")
        assert acme.read.secret, "what was written besides is kept"
        (key,) = [one for one in stage.collector.get("/v1/customers/acme/keys").json()["keys"] if one["budget"]]
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


def test_the_tier_of_a_customer_is_changed_on_its_page(stage: PagesStage) -> None:
    stage.operator.get("/console/customers/acme")
    stage.operator.send("/tier", tier="standard")
    assert stage.collector.get("/v1/customers/acme").json()["tier"] == "standard"
    assert "The tier is changed" in stage.operator.read.text


def test_an_incident_is_begun_from_an_alert_which_it_acknowledges(stage: PagesStage) -> None:
    operator = stage.operator
    assert "/console/incidents?alert=1" in operator.get("/console/alerts").links
    assert "batches of <e-1> are lost" in operator.get("/console/incidents?alert=1").text
    operator.send("/console/incidents", title="Some figures are late", message="We look into it.")
    (alert,) = stage.collector.get("/v1/alerts", token=ADMIN, kind="batches_lost").json()["alerts"]
    (incident,) = stage.collector.get("/v1/incidents", token=ADMIN).json()["incidents"]
    assert alert["handling"]["acknowledged_why"] == f"incident {incident['id']}"
    assert (incident["severity"], "lost" in incident["title"]) == ("P1", False)
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
