"""Errors that are answered with a code of the table."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.config.field_codes import INVALID, FieldCode

Params = Mapping[str, str | int]
"""The names and figures in a sentence, for programs and for sentences in other languages."""


class FieldFault(NamedTuple):
    """An invalid field: its name, such as `limits.0.rate`, and the reason, in English and for programs."""

    field: str
    detail: str
    code: FieldCode = INVALID
    params: Params = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class CodedError(Exception):
    """The error of a request: its code, the reason, the figures in the reason, and the invalid fields."""

    def __init__(
        self, code: ProblemCode, why: str, faults: Sequence[FieldFault] = (), *, params: Params | None = None
    ) -> None:
        super().__init__(code.status, why)
        self.code = code
        self.why = why
        self.faults = list(faults)
        self.params = params or {}

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return self.code.status
