"""An answer of the collector states its code, whatever its body is."""

import pytest

from edgeproxy.client.event_client import UnavailableError
from edgeproxy.client.transport import Answer


@pytest.mark.parametrize(
    ("body", "code"),
    [(b'{"code": "events-busy"}', "events-busy"), (b"{}", None), (b"[]", None), (b"<html>", None), (b"\xff", None)],
)
def test_an_answer_has_the_code_of_its_problem(body: bytes, code: str | None) -> None:
    answer = Answer(429, body, 1.0)
    assert answer.code == code
    assert UnavailableError(answer).code == code
