"""Portal, console and API give one answer to "may I call now?", with the remedy that ends the refusal."""

import re
import time
from collections.abc import Callable

import pytest

from edgeproxy.collector.languages.reader import create_reader
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage


def pause(stage: PagesStage, name: str, status: str) -> None:
    change = {"paused": {"why": "three invoices", "status": status}}
    assert stage.collector.send("PATCH", f"/v1/customers/{name}", change).status == 200


def spend_credits(stage: PagesStage, name: str) -> None:
    gift = {"customer": name, "millicredits": 20_000, "why": "welcome"}
    assert stage.collector.send("POST", "/billing/credits/adjust", gift).status == 201
    hour = int(time.time()) // 60 * 60
    assert stage.collector.post(Chain("e-spent", "eu-west", hour).next((name, "cost", "v1", 20_000))).status == 200


def use_up_quota(stage: PagesStage, name: str) -> None:
    change = {"quotas": [{"meter": "requests", "per": "month", "included": 5, "cap": "hard"}]}
    assert stage.collector.send("PATCH", f"/v1/customers/{name}", change).status == 200
    minute = int(time.time()) // 60 * 60
    assert stage.collector.post(Chain("e-full", "eu-west", minute).next((name, "requests", "v1", 5))).status == 200


def revoke_keys(stage: PagesStage, name: str) -> None:
    key = stage.collector.send("POST", f"/v1/customers/{name}/keys", {"name": "only"}).json()
    assert stage.collector.send("DELETE", f"/v1/keys/{key['id']}").status in (200, 204)


CASES: dict[str, tuple[Callable[[PagesStage, str], None], str, str, str, str]] = {
    "unpaid": (lambda stage, name: pause(stage, name, "402"), "account", "no", "pay", "Pay the open invoices"),
    "abusive": (
        lambda stage, name: pause(stage, name, "403"),
        "account",
        "no",
        "contact",
        "An operator must resume",
    ),
    "prepaid": (spend_credits, "credits", "no", "top_up", "Buy credits: until then requests get 402."),
    "full": (use_up_quota, "quota", "partly", "wait", "Wait until"),
    "keyless": (revoke_keys, "key", "no", "create_key", "Create a key."),
}


@pytest.mark.parametrize("name", CASES)
def test_access_page_and_api_give_the_same_verdict(stage: PagesStage, name: str) -> None:
    bring_about, kind, verdict, remedy, words = CASES[name]
    stage.join(name)

    def fetch() -> dict[str, object]:
        answer = stage.collector.get(f"/v1/customers/{name}/access")
        assert answer.status == 200, answer
        described: dict[str, object] = answer.json()
        return described

    assert fetch()["may_call"] == "yes"
    bring_about(stage, name)
    until(lambda: fetch()["may_call"] == verdict, "the refusal is described", seconds=20)
    limits = fetch()["limits"]
    assert isinstance(limits, list)
    (first, *_) = limits
    assert (first["kind"], first["state"], first["remedy"]) == (kind, "reached", remedy)
    refused = "Every request is refused now." if verdict == "no" else "Some requests are refused now."
    with stage.customer(name) as visitor:
        for path in ("/account", "/account/limits"):
            text = visitor.get(path).text
            assert (refused in text, words in text) == (True, True), (path, text)
            assert f"refuses with {first['status']}" in text, path
    text = stage.operator.get(f"/console/customers/{name}").text
    assert (refused in text, words in text, "no limit is reached" in text) == (True, True, False), text


def test_soft_quota_beyond_its_units_is_called_used_up(stage: PagesStage) -> None:
    """The quota's month is that of Auckland, so its end is at 11:00 or 12:00 UTC on the last day of a month."""
    stage.join("kiwi")
    quota = {"meter": "requests", "per": "month", "included": 5, "timezone": "Pacific/Auckland"}
    assert stage.collector.send("PATCH", "/v1/customers/kiwi", {"quotas": [quota]}).status == 200
    minute = int(time.time()) // 60 * 60
    assert stage.collector.post(Chain("e-kiwi", "eu-west", minute).next(("kiwi", "requests", "v1", 9))).status == 200
    with stage.customer("kiwi") as visitor:
        until(lambda: "used up, refuses nobody" in visitor.get("/account/limits").text, "it is used up", seconds=20)
        (shown,) = stage.collector.get("/v1/customers/kiwi/quotas", token=ADMIN).json()["quotas"]
        assert "nearly used up" not in visitor.read.text
        assert re.fullmatch(r"\d{4}-\d\d-(28|29|30|31)T1[12]:00:00\.000Z", shown["resets"])
        end = create_reader("en").moment(shown["resets"])
    for text in (visitor.read.text, stage.operator.get("/console/customers/kiwi").text):
        assert f"Wait until {end}." in text
