"""Faults of fields have codes and figures, beside their words."""

from collections.abc import Mapping
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from edgeproxy.config import field_codes
from edgeproxy.config.explain import explain_errors
from edgeproxy.config.field_codes import FIELD_CODES, FieldCode, find_field_code
from edgeproxy.config.field_types import Name, Sentence


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
