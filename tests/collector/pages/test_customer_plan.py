"""An operator gives a customer a plan, previews and makes a change, discounts it, and ends it, in the console."""

import pytest

from loadtest.testbed.collector import ADMIN
from tests.support.site import PagesStage


@pytest.fixture(scope="module")
def customer(stage: PagesStage) -> str:
    stage.join("planned")
    return "planned"


def test_a_plan_is_given_changed_kept_and_ended_in_the_console(stage: PagesStage, customer: str) -> None:
    page, operator = f"/console/customers/{customer}/plan", stage.operator

    def find_plan() -> str | None:
        answer = stage.collector.get("/billing/subscription", token=ADMIN, customer=customer)
        return str(answer.json()["plan"]) if answer.status == 200 else None

    operator.get(page)
    assert "The customer has no plan." in operator.read.text
    operator.send(f"{page}/preview", plan="standard", interval="month")
    assert operator.status == 200, operator.read.text
    assert ("Nothing has been changed yet." in operator.read.text, find_plan()) == (True, None)
    operator.send(page)
    assert (operator.status, find_plan()) == (200, "standard@1")
    operator.get(page)
    operator.send(f"{page}/preview", plan="free")
    assert "is withdrawn" not in operator.read.text, "nothing waits"
    operator.send(page)
    assert ("After that" in operator.read.text, find_plan()) == (True, "standard@1")
    assert 0 < operator.read.text.index("Stay with Standard") < operator.read.text.index("End the plan")
    operator.send(f"{page}/preview", plan="enterprise", when="now")
    assert "The change that waits is withdrawn with it: Free." in operator.read.text
    operator.send(page)
    assert ("After that" in operator.read.text, find_plan()) == (False, "enterprise@1")
    operator.get(page)
    operator.send(f"{page}/end/preview", when="period_end")
    assert "The plan ends at the end of the paid period." in operator.read.text
    operator.send(f"{page}/keep")
    assert "The plan goes on." in operator.read.text
    operator.send(f"{page}/end/preview", when="now")
    shown = operator.read.text
    assert ("Paid fees are not refunded." in shown, find_plan()) == (True, "enterprise@1"), shown
    operator.send(f"{page}/end")
    assert ("The plan has ended." in operator.read.text, find_plan()) == (True, None)


def test_role_without_plan_rights_has_no_plan_form(stage: PagesStage, customer: str) -> None:
    with stage.customer("acme") as acme:
        acme.get(f"/console/customers/{customer}/plan")
        assert acme.status == 403
