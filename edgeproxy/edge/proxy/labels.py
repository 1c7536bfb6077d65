"""Values of metric labels that more than one module writes."""

from http import HTTPStatus

NO_LABEL = "-"
"""The label of a customer, a tier or a route where there is none."""

KNOWN_STATUSES = frozenset(status.value for status in HTTPStatus)


def format_status_label(status: int) -> str:
    """Return the status as a label: unregistered ones by their class, so that upstreams cannot make labels at will."""
    return str(status) if status in KNOWN_STATUSES else f"{status // 100}xx"
