"""A customer's own data on the portal: an owner who has just signed in downloads it, or has the account deleted."""

import hashlib
import io
import zipfile
from collections.abc import Iterator

import orjson
import pytest

from edgeproxy.config.collector.operators import FACTOR_SECONDS_MAX
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

DOWNLOAD, DELETE = "/account/data/download", "/account/data/delete"


@pytest.fixture
def owner(stage: PagesStage) -> Iterator[Visitor]:
    """An owner, on the page."""
    with stage.customer("acme") as visitor:
        visitor.get("/account/data")
        yield visitor


def age_sessions(stage: PagesStage) -> None:
    """Let all sessions have begun before a sign-in counts."""
    stage.collector.execute("UPDATE sessions SET created_at = created_at - ?", (FACTOR_SECONDS_MAX + 1,))


def find_state(stage: PagesStage) -> str:
    return str(stage.collector.get("/v1/customers/acme").json()["state"])


def test_owner_downloads_account_data_without_operator_data(stage: PagesStage, owner: Visitor) -> None:
    owner.send(DOWNLOAD)
    assert (owner.status, owner.answer.headers["Content-Type"]) == (200, "application/zip")
    assert 'filename="acme.zip"' in owner.answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(owner.answer.content)) as archive:
        contacts = orjson.loads(archive.read("json/contacts.json"))
        entries = orjson.loads(archive.read("json/audit.json"))
    assert [contact["email"] for contact in contacts] == ["acme@example.com"]
    assert "customer.create" in {entry["action"] for entry in entries}
    assert not {"actor", "origin"} & entries[0].keys(), "the operator's identity is not part of the export"
    (entry,) = stage.entries("customer.export")
    assert (entry["actor"], entry["target"]) == ("contact:acme@example.com", "acme")
    request = stage.collector.get("/v1/privacy/requests", token=ADMIN).json()["requests"][-1]
    assert (request["kind"], request["state"], request["person"]) == ("access", "done", "contact:acme@example.com")
    assert hashlib.sha256(owner.answer.content).hexdigest() in request["steps"][-1]["note"]


def test_stale_data_page_neither_exports_nor_deletes_the_account(stage: PagesStage, owner: Visitor) -> None:
    forms = {form.action: form.fields for form in owner.read.forms}
    age_sessions(stage)
    exports = len(stage.entries("customer.export"))
    for action in (DOWNLOAD, DELETE):
        owner.post(f"{stage.site}{action}", {**forms[action], "name": "acme"})
        assert owner.status == 401
        assert any(link.startswith("/sign-in?next=") for link in owner.read.links)
    owner.get("/account/data")
    assert not {DOWNLOAD, DELETE} & {form.action for form in owner.read.forms}, "the page asks for a sign-in first"
    assert any(link.startswith("/sign-in?next=") for link in owner.read.links)
    assert len(stage.entries("customer.export")) == exports
    assert find_state(stage) == "active"


def test_contact_added_by_a_token_has_no_sensitive_rights_until_an_owner_agrees(
    stage: PagesStage, owner: Visitor
) -> None:
    created = stage.collector.send("POST", "/v1/tokens", {"name": "provisioner", "role": "admin"}, token=ADMIN)
    contacts, fresh = "/v1/customers/acme/contacts", {"email": "fresh@example.com", "role": "owner"}
    assert stage.collector.send("POST", contacts, fresh, token=created.json()["secret"]).status == 201
    told = "Somebody was added to your team"
    until(
        lambda: "acme@example.com" in [mail["To"] for mail in stage.mailbox.mails if told in str(mail)],
        "the owner is notified",
    )
    with stage.customer("fresh") as visitor:
        visitor.get("/account/team")
        visitor.send("/account/team/invite", email="friend@example.com", role="owner")
        assert visitor.status == 200
        with stage.customer("friend") as friend:
            for somebody in (visitor, friend):
                for action in (DOWNLOAD, DELETE):
                    somebody.get("/account/data")
                    somebody.send(action, name="acme")
                    assert (somebody.status, "new here" in somebody.read.text) == (403, True)
        assert find_state(stage) == "active"
        owner.get("/account/team")
        (form,) = [
            form for form in owner.read.forms if form.action.endswith("/role") and "fresh@" in form.fields["email"]
        ]
        owner.post(f"{stage.site}{form.action}", form.fields)
        visitor.get("/account/data")
        visitor.send(DOWNLOAD)
        assert visitor.status == 200
    assert stage.collector.send("PUT", contacts, {"emails": ["acme@example.com"]}, token=ADMIN).status == 200


def test_developer_and_token_cannot_download_or_delete_the_account(stage: PagesStage) -> None:
    body = {"email": "dev@example.com", "role": "developer"}
    assert stage.collector.send("POST", "/v1/customers/acme/contacts", body).status == 201
    with stage.customer("dev") as developer:
        home = developer.get("/account")
        assert "/account/data" not in home.links
        token = home.form("/sign-out").fields["form"]
        developer.get("/account/data")
        assert developer.status == 403
        for action in (DOWNLOAD, DELETE):
            developer.post(f"{stage.site}{action}", {"form": token, "once": "0" * 32, "name": "acme"})
            assert developer.status == 403
    secret = stage.collector.send("POST", "/v1/tokens", {"name": "acme-data", "customer": "acme"}).json()["secret"]
    assert stage.collector.get("/v1/customers/acme/data", token=secret).status == 403
    assert stage.collector.send("DELETE", "/v1/customers/acme", token=secret).status == 403
    assert find_state(stage) == "active"


def test_owner_deletes_the_account_and_only_an_operator_restores_it(stage: PagesStage, owner: Visitor) -> None:
    owner.send(DELETE, name="acm")
    assert owner.status == 422
    assert find_state(stage) == "active"
    owner.get("/account/data")
    owner.send(DELETE, name="acme")
    assert owner.status == 200, owner.read.text
    assert find_state(stage) == "deleting"
    assert DELETE not in {form.action for form in owner.read.forms}
    (entry,) = stage.entries("customer.delete")
    assert entry["actor"] == "contact:acme@example.com"
    secret = stage.collector.send("POST", "/v1/tokens", {"name": "acme-back", "customer": "acme"}).json()["secret"]
    assert stage.collector.send("POST", "/v1/customers/acme/restore", token=secret).status == 403
    (request,) = stage.collector.get("/v1/privacy/requests?open=true", token=ADMIN).json()["requests"]
    assert (request["kind"], request["state"], request["person"]) == ("erasure", "identified", entry["actor"])
    assert stage.collector.send("POST", "/v1/customers/acme/restore").status == 200
    assert find_state(stage) == "active"
    assert stage.collector.get("/v1/privacy/requests?open=true", token=ADMIN).json()["requests"] == []
    assert stage.collector.get("/v1/privacy/requests", token=ADMIN).json()["requests"][-1]["state"] == "withdrawn"
