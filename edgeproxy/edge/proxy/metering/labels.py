"""Values of metric labels that more than one module writes."""

from http import HTTPStatus

NO_LABEL = "-"
"""The label for a missing customer, tier or route."""

KNOWN_STATUSES = frozenset(status.value for status in HTTPStatus)


def format_status_label(status: int) -> str:
    """Return the status as a label.

    Unregistered ones become their class, so that upstreams cannot create arbitrary labels.
    """
    return str(status) if status in KNOWN_STATUSES else f"{status // 100}xx"
