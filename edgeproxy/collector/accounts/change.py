"""Common parts of account changes: rejections, versions, and differences for the audit log."""

from collections.abc import Mapping

PAGE_MAX = 1000
"""The most rows of a list."""
INVALID_FIELDS = "some fields cannot be used"


class ChangeRejectedError(Exception):
    """A change is rejected: its HTTP status, the reason as a sentence, and the faults, each with its field."""

    def __init__(self, status: int, why: str, faults: list[tuple[str, str]] | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.faults = faults or []


def require_version(version: int, accepted: frozenset[int] | None) -> None:
    """Raise ChangeRejectedError(412) unless the version is among the accepted ones; None accepts any."""
    if accepted is not None and version not in accepted:
        raise ChangeRejectedError(412, "it has changed since it was read: read it again")


def reject_field(field: str, fault: str) -> ChangeRejectedError:
    """Return the error of a change with one invalid field."""
    return ChangeRejectedError(422, INVALID_FIELDS, [(field, fault)])


def drop_empty_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values without null and empty ones. The audit log records a new object in this form."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def compute_difference(
    before: Mapping[str, object], after: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the fields that differ, with their values before and after."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}
