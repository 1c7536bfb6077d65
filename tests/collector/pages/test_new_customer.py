"""A new customer is one form: any name, a plan, a person who is invited, and a key."""

import pytest

from edgeproxy.collector.pages.new_customer import build_id
from loadtest.testbed.waiting import until
from tests.support.mailbox import text_of
from tests.support.site import PagesStage
from tests.support.visitor import Visitor


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("acme", "acme"),
        ("Zephyr GmbH & Co", "zephyr-gmbh-co"),
        ("Müller & Söhne Straße", "muller-sohne-strasse"),
        ("شركة المثال", "customer"),
        ("W" * 400, "w" * 48),
        ("  - ", "customer"),
        ("00000000-0000-7000-8000-000000000000", "customer"),
    ],
)
def test_the_id_is_made_from_the_name(shown: str, name: str) -> None:
    assert build_id(shown) == name


def test_new_customer_form_creates_plan_contact_and_key(stage: PagesStage) -> None:
    before = len(stage.mailbox.mails)

    def create(**more: str) -> str:
        (form,) = [
            form for form in stage.operator.get("/console/new-customer").forms if form.action == "/console/customers"
        ]
        assert form.fields["tier"] != "anonymous", "that tier is for requests without a key"
        fields = {**form.fields, "name": "Zephyr GmbH & Co", "tier": "pro", "key": "", **more}
        return stage.operator.post(form.action, fields).text + str(stage.operator.answer.text)

    assert "edge_v1_" in create(plan="standard", email="zoe@zephyr.example", key="yes")
    customer = stage.collector.get("/v1/customers/zephyr-gmbh-co").json()
    assert (customer["metadata"], customer["tier"]) == ({"name": "Zephyr GmbH & Co"}, "standard")
    keys = stage.collector.get("/v1/customers/zephyr-gmbh-co/keys").json()["keys"]
    assert len(keys) == 1
    until(
        lambda: [mail for mail in stage.mailbox.mails[before:] if mail["To"] == "zoe@zephyr.example"],
        "the contact is invited",
    )
    (mail,) = [mail for mail in stage.mailbox.mails[before:] if mail["Subject"].startswith("You are invited")]
    assert mail["Subject"] == "You are invited to Zephyr GmbH & Co"
    other = stage.collector.send(
        "POST", "/v1/customers/bolt/contacts", {"email": "zoe@zephyr.example", "role": "owner"}
    )
    assert other.status == 201
    mails = len(stage.mailbox.mails)
    with Visitor(stage.site) as zoe:
        zoe.get("/sign-in")
        zoe.send("/sign-in", email="zoe@zephyr.example")
    until(lambda: len(stage.mailbox.mails) > mails, "the link is mailed")
    assert "Zephyr GmbH & Co" in text_of(stage.mailbox.mails[-1]), "the name tells two customers apart"
    stage.operator.send("/console/search", q="Zephyr GmbH &")
    assert stage.operator.answer.url.path == "/console/customers/zephyr-gmbh-co", "the name that is shown finds it"
    stage.operator.send("/console/search", q="&")
    assert "No customer is like this" in stage.operator.read.text
    assert "Zephyr GmbH & Co" in stage.operator.get("/console/customers/zephyr-gmbh-co").text
    assert "Zephyr GmbH & Co" in stage.operator.get("/console/customers").text
    create()
    assert stage.collector.get("/v1/customers/zephyr-gmbh-co-2").status == 200, "another of this name has another id"
    assert "but its plan, person or invitation is not" in create(plan="nothing")
