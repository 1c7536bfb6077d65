"""Automatic top-up on the pages of credits: a preview in words, who may set it, and what it has bought."""

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage

PAGE, CONSOLE = "/account/credits", "/console/customers/acme/credits"
AMOUNTS = {"below": "5", "amount": "25", "month_max": "50"}


def show(stage: PagesStage) -> dict[str, object]:
    """Return the customer's automatic top-up."""
    shown: dict[str, object] = stage.collector.get("/billing/credits/top-up", token=ADMIN, customer="acme").json()
    return shown


def test_customer_enables_top_up_after_a_preview_and_sees_purchases(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        assert "Credits can be bought automatically" in acme.get(PAGE).text
        acme.send(f"{PAGE}/top-up/preview", **AMOUNTS)
        assert (acme.status, "There is no saved payment method." in acme.read.text) == (409, True)
        stage.save_card("acme")
        for wrong in ({"amount": "4.99"}, {"below": "25.01"}, {"month_max": "24"}, {"below": "many"}):
            acme.get(PAGE)
            acme.send(f"{PAGE}/top-up/preview", **{**AMOUNTS, **wrong})
            assert (acme.status, "Write an amount from" in acme.read.text) == (422, True)
            (form,) = [form for form in acme.read.forms if form.action.endswith("/top-up/preview")]
            ((name, value),) = wrong.items()
            assert value == "many" or form.fields[name] == value, "the form keeps it"
        acme.get(PAGE)
        acme.send(f"{PAGE}/top-up/preview", **AMOUNTS)
        assert acme.status == 200
        words = (
            "When credits for less than $5.00 are left, credits for $25.00 are bought with the saved payment method."
        )
        assert words in acme.read.text
        assert "that is $50.00 at most" in acme.read.text
        assert show(stage)["state"] == "off", "nothing is changed yet"
        acme.send(f"{PAGE}/top-up")
        assert "Automatic top-up is on." in acme.read.text
        until(
            lambda: "automatic" in acme.get(PAGE).text.split("Purchases", 1)[1],
            "the credits are bought",
            seconds=40,
            step=2.0,
        )
        assert "Bought automatically in this month: $25.00 of $50.00." in acme.read.text
        stage.buy(acme, "25")
        assert acme.get(PAGE).text.split("Purchases", 1)[1].count("automatic") == 1, "one purchase was made by hand"
        acme.send(f"{PAGE}/top-up/off")
        assert "Automatic top-up is off." in acme.read.text
        assert (show(stage)["state"], show(stage)["below"]) == ("off", 5_000_000)


def test_operator_enables_top_up_for_a_customer_and_other_roles_get_403(stage: PagesStage) -> None:
    stage.save_card("acme")
    stage.operator.get(CONSOLE)
    stage.operator.send(f"{CONSOLE}/top-up/preview", **AMOUNTS)
    stage.operator.send(f"{CONSOLE}/top-up")
    assert (show(stage)["state"], "Automatic top-up is on." in stage.operator.read.text) == ("on", True)
    contact = {"email": "dev@example.com", "role": "developer"}
    assert stage.collector.send("POST", "/v1/customers/acme/contacts", contact).status == 201
    with stage.customer("dev") as developer, stage.customer("bolt") as bolt:
        for visitor, root in ((developer, PAGE), (bolt, CONSOLE)):
            (form, *_) = visitor.get("/account/alerts").forms
            for path in ("/top-up/preview", "/top-up", "/top-up/off"):
                visitor.post(f"{stage.site}{root}{path}", {"form": form.fields["form"], "once": "0" * 32, **AMOUNTS})
                assert (path, visitor.status) == (path, 403)
        form_token = form.fields["form"]
        bolt.post(f"{stage.site}{PAGE}/top-up/off", {"form": form_token, "once": "0" * 32})
    assert show(stage)["state"] == "on", "bolt has turned off its own"
