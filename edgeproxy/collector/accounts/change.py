"""Common parts of account changes: rejections, versions, and differences for the audit log."""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.problems import request_codes
from edgeproxy.collector.problems.coded_error import CodedError, FieldFault
from edgeproxy.config.field_codes import INVALID, FieldCode

PAGE_MAX = 1000
"""The most rows of a list."""
INVALID_FIELDS = "some fields cannot be used"


class ChangeRejectedError(CodedError):
    """A change is rejected."""


def require_version(version: int, accepted: frozenset[int] | None) -> None:
    """Raise ChangeRejectedError(412) unless the version is among the accepted ones; None accepts any."""
    if accepted is not None and version not in accepted:
        raise ChangeRejectedError(request_codes.VERSION_CHANGED, "it has changed since it was read: read it again")


def reject_fields(faults: Sequence[FieldFault]) -> ChangeRejectedError:
    """Return the error of a change with invalid fields."""
    return ChangeRejectedError(request_codes.FIELDS_INVALID, INVALID_FIELDS, faults)


def reject_field(field: str, fault: str, code: FieldCode = INVALID, **params: str | int) -> ChangeRejectedError:
    """Return the error of a change with one invalid field. `params` are the figures in its sentence."""
    return reject_fields([FieldFault(field, fault, code, params)])


def drop_empty_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values without null and empty ones. The audit log records a new object in this form."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def compute_difference(
    before: Mapping[str, object], after: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the fields that differ, with their values before and after."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}
