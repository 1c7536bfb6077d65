"""The billed meters of a route, and the label of its answers' statuses."""

import pytest

from edgeproxy.edge.proxy.metering.labels import format_status_label
from edgeproxy.edge.proxy.metering.meters import is_billed


@pytest.mark.parametrize(
    ("when", "billed", "free"),
    [
        ("answered", (101, 200, 204, 301, 304, 399, 400, 404, 429, 499), (500, 502, 503, 599, 999)),
        ("success", (200, 201, 206, 299, 301, 304, 399), (101, 400, 404, 499, 500, 599)),
        # Counted when the request is let through, so that no answer may count it again.
        ("admitted", (), (101, 200, 301, 404, 500)),
    ],
)
def test_meter_condition_decides_the_billed_statuses(when: str, billed: tuple[int, ...], free: tuple[int, ...]) -> None:
    assert [status for status in (*billed, *free) if is_billed(when, status)] == list(billed)


def test_a_registered_status_is_its_own_label() -> None:
    assert format_status_label(200) == "200"
    assert format_status_label(429) == "429"
    assert format_status_label(101) == "101"


def test_an_unregistered_status_is_counted_with_its_class() -> None:
    """Or an upstream could make a thousand label values."""
    assert format_status_label(299) == "2xx"
    assert format_status_label(599) == "5xx"
    assert format_status_label(999) == "9xx"
    assert len({format_status_label(status) for status in range(100, 1000)}) < 80
