"""Every refusal of the edge has a code of the table, with the status that the table names."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import edgeproxy.edge
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.problems import table
from edgeproxy.config.refusal_terms import TERMS
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import RejectedError, UnidentifiedError, UpstreamError
from edgeproxy.edge.http1.error_bodies import CODES as OTHER_BODIES
from edgeproxy.edge.problem_codes import BY_KEY_FAULT, BY_LIMIT, CODES, GENERAL, SPECIFIC, KeyFault

ROOM = Path(edgeproxy.edge.__file__).parent
STATED = {name: code for name, code in vars(problem_codes).items() if code in SPECIFIC}
"""The codes that places state, by their constants."""


def list_refusals() -> Iterator[tuple[str, int, str | None]]:
    """Yield the place, the status and the constant of the code of each refusal whose status is written there."""
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RejectedError":
                code = next((word.value for word in node.keywords if word.arg == "code"), None)
                if isinstance(node.args[0], ast.Constant):
                    yield f"{path.name}:{node.lineno}", int(str(node.args[0].value)), getattr(code, "attr", None)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_row_says_meaning_and_remedy(code: ProblemCode) -> None:
    assert code.meaning.endswith(".")
    assert code.remedy.endswith(".")
    assert code.name not in table.CODES


def test_a_name_is_in_one_row() -> None:
    assert len(CODES) == len(GENERAL) + len(SPECIFIC)


def test_every_status_of_an_error_has_a_code() -> None:
    assert GENERAL.keys() == OTHER_BODIES.keys()


def test_a_refusal_has_the_status_of_its_code() -> None:
    refusals = list(list_refusals())
    assert len(refusals) > 60
    assert [place for place, status, _ in refusals if status not in GENERAL] == []
    wrong = [place for place, status, name in refusals if name in STATED and STATED[name].status != status]
    assert wrong == []


def test_every_stated_code_is_used() -> None:
    text = "".join(path.read_text() for path in ROOM.rglob("*.py"))
    assert [name for name in STATED if text.count(name) < 2] == []


def test_every_kind_of_limit_has_a_code_of_its_status() -> None:
    limits = {kind: terms.status for kind, terms in TERMS.items() if kind not in ("account", "key")}
    assert {kind: code.status for kind, code in BY_LIMIT.items()} == limits


@pytest.mark.parametrize("reason", get_args(KeyFault))
def test_a_request_without_a_known_key_has_the_code_of_its_reason(reason: KeyFault) -> None:
    assert UnidentifiedError(reason, "No", fields=b"").code is BY_KEY_FAULT[reason]


def test_error_without_a_code_has_the_code_of_its_status() -> None:
    assert RejectedError(404, "No").code is None
    assert UpstreamError("dns_error", "No").code is None
    assert UpstreamError("dns_error", "No", status=503).code is problem_codes.UPSTREAM_UNAVAILABLE
