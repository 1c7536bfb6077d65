"""What every change of accounts has in common: how it is refused, and the version that it is made on."""

PAGE_MAX = 1000
"""Rows that a list has at most at once."""


class ChangeRejectedError(Exception):
    """A change is not made: the status that says so over HTTP, a sentence why, and what is wrong with each field."""

    def __init__(self, status: int, why: str, faults: list[tuple[str, str]] | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.faults = faults or []


def require_version(version: int, accepted: frozenset[int] | None) -> None:
    """Raise ChangeRejectedError(412) unless the version is among those that are `wanted`; None: any is."""
    if accepted is not None and version not in accepted:
        raise ChangeRejectedError(412, "it has changed since it was read: read it again")
