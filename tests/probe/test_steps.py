"""The steps of a probe, and their verdicts on answers."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from edgeproxy.probe.fetch import Answer
from edgeproxy.probe.round import ProbeTarget, run_round
from edgeproxy.probe.steps import (
    ProbeError,
    Statement,
    check_answer,
    check_limits,
    parse_numbers,
    parse_statement,
    parse_texts,
    parse_total,
)

POLICY = '"basic";q=60;w=60'


@pytest.mark.parametrize("state", ['"basic";r=0;t=12', '"basic";r=60;t=1', '"basic";t=1;r=59, "day";r=1;t=9'])
def test_consistent_limit_fields_pass(state: str) -> None:
    check_limits({"RateLimit-Policy": f'{POLICY}, "day";w=86400;q=1', "RateLimit": state})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "has no RateLimit fields"),
        ({"RateLimit-Policy": POLICY}, "has no RateLimit fields"),
        ({"RateLimit-Policy": POLICY, "RateLimit": "basic"}, "has no RateLimit fields"),
        (
            {"RateLimit-Policy": POLICY, "RateLimit": '"other";r=1;t=1'},
            "has 'other', and RateLimit-Policy has not",
        ),
        ({"RateLimit-Policy": POLICY, "RateLimit": '"basic";r=61;t=1'}, "61 of 60 requests are left of 'basic'"),
    ],
)
def test_missing_or_contradictory_limit_fields_fail(fields: dict[str, str], why: str) -> None:
    with pytest.raises(ProbeError, match=why):
        check_limits(fields)


@pytest.mark.parametrize(("status", "passes"), [(200, True), (304, True), (401, False), (429, False), (503, False)])
def test_only_success_and_redirection_pass(status: int, passes: bool) -> None:
    if passes:
        check_answer(status)
    else:
        with pytest.raises(ProbeError, match=f"answered {status}"):
            check_answer(status)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"total": "7"}', b'{"total": null}'])
def test_invalid_total_is_refused(body: bytes) -> None:
    assert parse_total(b'{"total": 7, "rows": []}') == 7
    with pytest.raises(ProbeError, match="as a collector does"):
        parse_total(body)


STATEMENT: dict[str, Any] = {
    "opening": 5,
    "lines": [
        {"kind": "purchase", "reference": "cs_1", "millicredits": 100},
        {"kind": "consumption", "reference": "", "millicredits": -30},
    ],
    "closing": 75,
}


def test_statement_must_add_up_and_equal_the_balance() -> None:
    statement = parse_statement(orjson.dumps(STATEMENT))
    assert statement == Statement(5, 70, 75, (("cs_1", 100),))
    statement.check(75)
    with pytest.raises(ProbeError, match="the balance is 76 millicredits, and what is booked comes to 75"):
        statement.check(76)
    with pytest.raises(ProbeError, match="opens with 5, its lines come to 70, and it closes with 74"):
        statement._replace(closing=74).check(74)


@pytest.mark.parametrize(
    "changed", [{"lines": None}, {"lines": [7]}, {"lines": [{}]}, {"opening": "5"}, {"closing": None}]
)
def test_invalid_statement_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProbeError, match="as a collector does"):
        parse_statement(orjson.dumps(STATEMENT | changed))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"name": null}', b'{"name": true}', b'{"name": [1]}'])
def test_invalid_numbers_and_texts_are_refused(body: bytes) -> None:
    for read in (parse_numbers, parse_texts):
        with pytest.raises(ProbeError, match="as a collector does"):
            read(body, "name")


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("https://checkout.stripe.com/c/pay/cs_live_1", ["checkout"]),
        ("https://checkout.stripe.com/c/pay/cs_test_1#/_sandbox/checkout/", ["checkout"]),
        ("http://127.0.0.1:12111/_sandbox/checkout/cs_test_1", ["checkout", "purchase"]),
    ],
)
def test_purchase_for_a_person_is_begun_but_not_paid(url: str, made: list[str]) -> None:
    posted = []

    def fetch(url_requested: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        if body is not None:
            posted.append(url_requested)
        response: dict[str, Any] = {"id": "cs_1", "url": url, "statements": ["2027-01"]}
        purchases = [{"kind": "purchase", "reference": "cs_1", "millicredits": 5_000_000}]
        response |= {"opening": 0, "closing": 5_000_000, "lines": purchases}
        return Answer(200, {}, orjson.dumps(response))

    target = ProbeTarget("http://edge", "key", "https://collector.example", "token", checkout=True)
    made_steps = [
        step for step in run_round(target._replace(patience=0.0), fetch) if step.name in ("checkout", "purchase")
    ]
    assert [(step.name, step.why) for step in made_steps] == [(name, None) for name in made]
    paid = [f"{url}/pay"] if "purchase" in made else []
    assert posted == ["https://collector.example/billing/checkout", *paid]


@pytest.mark.parametrize("failing", [False, True])
def test_customer_without_credits_buys_some_before_its_request(failing: bool) -> None:
    """`failing`: the collector ends after the purchase has begun."""
    paths: list[str] = []

    def fetch(url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        paths.append(url.rpartition("/")[2].partition("?")[0])
        has_checkout = "checkout" in paths
        if failing and has_checkout and url.endswith("/billing/balance"):
            return Answer(503, {}, b"")
        spent = paths.count("request")
        response: dict[str, Any] = {"id": "cs_1", "url": "https://checkout.stripe.com/c/pay/cs_1", "statements": []}
        response |= {"available": 500 * has_checkout - spent, "balance": 0, "total": spent}
        return Answer(200, {}, orjson.dumps(response))

    target = ProbeTarget("http://edge/request", "key", "https://collector.example", "token")
    steps = {
        step.name: step.why for step in run_round(target._replace(patience=0.5, charge=True, checkout=True), fetch)
    }
    assert paths.index("checkout") < paths.index("request")
    assert paths.count("checkout") == 1, "once a round"
    why = "the collector answered 503 to /billing/balance"
    assert steps.pop("limits") is not None, "this answer has no limit fields"
    assert steps == {
        "checkout": None,
        "charge": why if failing else None,
        "request": None,
        "usage": None,
        "books": why if failing else None,
    }
