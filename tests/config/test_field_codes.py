"""Faults of fields have codes and figures, beside their words."""

from collections.abc import Mapping
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from edgeproxy.config import field_codes
from edgeproxy.config.explain import explain_errors
from edgeproxy.config.field_codes import FIELD_CODES, FieldCode, find_field_code
from edgeproxy.config.field_types import Name, Sentence
from edgeproxy.config.problems import ConfigError, Problem, format_path


class Sample(BaseModel, extra="forbid"):
    """Fields with faults of several kinds."""

    name: Name = "a"
    words: Sentence = "a"
    text: Annotated[str, Field(max_length=3)] = ""
    number: Annotated[int, Field(ge=1)] = 1
    pattern: Annotated[str, Field(pattern="^a$")] = "a"


@pytest.mark.parametrize(
    ("field", "value", "code", "params"),
    [
        ("name", "a b", field_codes.NOT_A_NAME, {"most": 64}),
        ("words", "x" * 501, field_codes.TOO_LONG, {"most": 500}),
        ("words", " ", field_codes.MISSING, {"most": 500}),
        ("text", "abcd", field_codes.TOO_LONG, {"most": 3}),
        ("number", 0, field_codes.OUT_OF_RANGE, {}),
        ("number", "x", field_codes.INVALID, {}),
        ("pattern", "b", field_codes.INVALID, {}),
        ("other", 1, field_codes.UNKNOWN, {}),
    ],
)
def test_a_fault_has_a_code_and_figures(field: str, value: object, code: FieldCode, params: Mapping[str, int]) -> None:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate({field: value})
    (finding,) = explain_errors(caught.value, lambda _: set())
    assert (finding.code, finding.params) == (code, params)


def test_code_has_a_name() -> None:
    assert find_field_code("too-long") is field_codes.TOO_LONG
    assert find_field_code("of-another-version") == FieldCode("of-another-version", "")
    assert all(name == code.name and code.meaning for name, code in FIELD_CODES.items())


# ---- problems as people read them


def test_problem_text_states_place_fault_and_remedy():
    problem = Problem("edge.yaml", 3, "drain", "'5' lacks a unit", "a time such as 5s")
    assert str(problem) == "edge.yaml:3: drain: '5' lacks a unit, a time such as 5s"


def test_a_problem_of_the_command_line_has_no_place():
    assert str(Problem("", 0, "--rate", "is wrong", "write 5/s")) == "--rate: is wrong, write 5/s"


def test_errors_have_a_line_for_each_problem():
    problems = [Problem("a", 1, "x", "is wrong", "right it"), Problem("b", 2, "y", "is missing", "write it")]
    errors = ConfigError(iter(problems))
    assert errors.problems == problems
    assert str(errors) == "a:1: x: is wrong, right it\nb:2: y: is missing, write it"


def test_a_path_is_dotted_and_odd_names_are_quoted():
    assert format_path(("tiers", "basic", "limits", 0)) == "tiers.basic.limits.0"
    assert format_path(("tiers", "a b\n", "limits")) == r"tiers.'a b\n'.limits"
    assert len(format_path(("x" * 1000 + ".",))) == 60
