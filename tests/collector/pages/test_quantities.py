"""The plan pages of a plan that is sold by quantity: customers and operators preview and change the quantity."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from loadtest.testbed.collector import ADMIN, PLANS, SOLD
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

CREW = (
    "  crew@1: {fee: '10', tier: basic, quantity: {max: 20}}\n  crew@2: {fee: '20', tier: basic, quantity: {max: 9}}\n"
)
WORDS = {
    "en": ("Quantity", "a month for each", "What would this quantity cost?"),
    "de": ("Menge", "im Monat je Stück", "Was würde diese Menge kosten?"),
    "nl": ("Aantal", "per maand per stuk", "Wat zou dit aantal kosten?"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    folder = tmp_path_factory.mktemp("quantities")
    (folder / "plans.yaml").write_text(f"{Path(PLANS).read_text()}\n{CREW}")
    with closing(PagesStage(folder)) as stage:
        stage.collector.end()
        stage.collector.settings["billing"]["plans"] = str(folder / "plans.yaml")
        stage.collector.settings["meters"] |= SOLD
        stage.collector.start()
        yield stage


def fetch(stage: PagesStage, name: str) -> dict[str, Any]:
    subscription = stage.collector.get("/billing/subscription", token=ADMIN, customer=name).json()
    return {field: subscription[field] for field in ("plan", "quantity", "next_plan", "next_quantity")}


def preview(visitor: Visitor, plan: str, quantity: int | str) -> None:
    """Fill in a quantity of a plan, and preview its cost."""
    visitor.get("/account/plan")
    forms = [form for form in visitor.read.forms if form.action.endswith("/preview")]
    (form,) = [form for form in forms if "quantity" in form.fields and form.fields["plan"] == plan]
    visitor.post(form.action, {**form.fields, "quantity": str(quantity)})


def test_customer_previews_quantity_costs_and_cancels_a_reduction(stage: PagesStage) -> None:
    stage.join("crew")
    body = {"plan": "crew@2", "quantity": 3}
    assert stage.collector.send("POST", "/billing/subscription?customer=crew", body, token=ADMIN).status == 201
    held = fetch(stage, "crew")
    with stage.customer("crew") as crew:
        preview(crew, "crew@2", 5)
        assert "<dt>Quantity</dt><dd>5</dd>" in crew.answer.text
        assert "Due now" in crew.read.text
        assert fetch(stage, "crew") == held
        crew.send("/account/plan")
        assert fetch(stage, "crew") == {**held, "quantity": 5}
        preview(crew, "crew@2", 2)
        assert "It begins at the end of the paid period" in crew.read.text
        crew.send("/account/plan")
        assert fetch(stage, "crew") == {"plan": "crew@2", "quantity": 5, "next_plan": "crew@2", "next_quantity": 2}
        assert "2 × crew" in crew.get("/account/plan").text.lower()
        form = next(form for form in crew.read.forms if form.fields.get("plan") == "enterprise")
        crew.post(form.action, form.fields)
        assert "is withdrawn with it: 2 × crew." in crew.read.text.lower()
        crew.get("/account/plan")
        crew.send("/account/plan/keep")
        assert fetch(stage, "crew") == {**held, "quantity": 5}
        preview(crew, "crew@2", 10)
        assert crew.status == 422, "there are nine at most"
        preview(crew, "crew@2", "0000000006")
        assert "<dt>Quantity</dt><dd>6</dd>" in crew.answer.text, "no digit is cut off"
        preview(crew, "crew@2", "6" * 16)
        assert "Write a whole number from 1." in crew.read.text
        for language, words in WORDS.items():
            crew.client.headers["Accept-Language"] = language
            text = crew.get("/account/plan").text
            assert [word for word in words if word not in text] == [], language


def test_quantity_of_an_older_version_changes_without_a_change_of_prices(stage: PagesStage) -> None:
    stage.join("early")
    body = {"plan": "crew@1", "quantity": 3}
    assert stage.collector.send("POST", "/billing/subscription?customer=early", body, token=ADMIN).status == 201
    with stage.customer("early") as early:
        preview(early, "crew@1", 5)
        assert "<dt>Quantity</dt><dd>5</dd>" in early.answer.text
        early.send("/account/plan")
    assert fetch(stage, "early") == {"plan": "crew@1", "quantity": 5, "next_plan": None, "next_quantity": None}


def test_operator_previews_and_changes_the_quantity_and_a_customer_cannot(stage: PagesStage) -> None:
    stage.join("staffed")
    page, operator = "/console/customers/staffed/plan", stage.operator
    operator.get(page)
    operator.send(f"{page}/preview", plan="crew", interval="month", quantity="3")
    assert "<dt>Quantity</dt><dd>3</dd>" in operator.answer.text
    assert "Due now" in operator.read.text
    operator.send(page)
    held = {"plan": "crew@2", "quantity": 3, "next_plan": None, "next_quantity": None}
    assert fetch(stage, "staffed") == held
    operator.get(page)
    assert "<dt>Quantity</dt><dd>3</dd>" in operator.answer.text
    operator.send(f"{page}/preview", quantity="5")
    assert fetch(stage, "staffed") == held, "the preview changes nothing"
    operator.send(page)
    assert fetch(stage, "staffed") == {**held, "quantity": 5}
    operator.get(page)
    operator.send(f"{page}/preview", quantity="10")
    assert (operator.status, fetch(stage, "staffed")) == (422, {**held, "quantity": 5})
    with stage.customer("crew") as outsider:
        outsider.get("/account")
        outsider.post(page, {"form": outsider.read.forms[0].fields["form"], "plan": "crew", "quantity": "9"})
        assert (outsider.status, fetch(stage, "staffed")) == (403, {**held, "quantity": 5})
