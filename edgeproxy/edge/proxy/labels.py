"""Values of metric labels that more than one module writes."""

from http import HTTPStatus

NO_LABEL = "-"
"""What stands for the customer, the tier or the route where there is none."""

KNOWN_STATUSES = frozenset(status.value for status in HTTPStatus)


def code_label(status: int) -> str:
    """The status as a label: unregistered ones by their class, so that upstreams cannot make labels at will."""
    return str(status) if status in KNOWN_STATUSES else f"{status // 100}xx"
