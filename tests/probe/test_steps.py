"""What the steps of a probe make of answers."""

import pytest

from edgeproxy.probe.steps import Failed, check_answer, check_limits, total_of

POLICY = '"basic";q=60;w=60'


@pytest.mark.parametrize("state", ['"basic";r=0;t=12', '"basic";r=60;t=1', '"basic";t=1;r=59, "day";r=1;t=9'])
def test_limit_fields_that_go_together_pass(state: str) -> None:
    check_limits({"RateLimit-Policy": f'{POLICY}, "day";w=86400;q=1', "RateLimit": state})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "has no RateLimit fields"),
        ({"RateLimit-Policy": POLICY}, "has no RateLimit fields"),
        ({"RateLimit-Policy": POLICY, "RateLimit": "basic"}, "has no RateLimit fields"),
        (
            {"RateLimit-Policy": POLICY, "RateLimit": '"other";r=1;t=1'},
            "tells of 'other', and RateLimit-Policy does not",
        ),
        ({"RateLimit-Policy": POLICY, "RateLimit": '"basic";r=61;t=1'}, "61 of 60 requests are left of 'basic'"),
    ],
)
def test_limit_fields_that_are_missing_or_contradict_each_other_fail(fields: dict[str, str], why: str) -> None:
    with pytest.raises(Failed, match=why):
        check_limits(fields)


@pytest.mark.parametrize(("status", "passes"), [(200, True), (304, True), (401, False), (429, False), (503, False)])
def test_an_answer_is_a_success_or_a_redirection(status: int, passes: bool) -> None:
    if passes:
        check_answer(status)
    else:
        with pytest.raises(Failed, match=f"answered {status}"):
            check_answer(status)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"total": "7"}', b'{"total": null}'])
def test_what_is_no_total_is_not_taken_for_one(body: bytes) -> None:
    assert total_of(b'{"total": 7, "rows": []}') == 7
    with pytest.raises(Failed, match="as a collector does"):
        total_of(body)
