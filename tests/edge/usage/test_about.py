"""An edge's description of itself beside a batch: it is read back unchanged, and never blocks a batch."""

import pytest

from edgeproxy import __version__
from edgeproxy.wire.edge_report import SYNC_FIELD, EdgeReport, format_fields, parse_fields


@pytest.mark.parametrize(("age", "read"), [(None, None), (0.0, 0), (2.6, 3)])
def test_edge_report_survives_a_round_trip(age: float | None, read: int | None) -> None:
    assert parse_fields(format_fields(age)) == EdgeReport(__version__, read)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"User-Agent": "Python/3.11 aiohttp/3.9", SYNC_FIELD: "-1"},
        {"User-Agent": "edgeproxy/<b>", SYNC_FIELD: "9" * 10},
        {"User-Agent": "edgeproxy/" + "9" * 41, SYNC_FIELD: "٣"},
    ],
)
def test_odd_report_fields_are_ignored(said: dict[str, str]) -> None:
    assert parse_fields(said) == EdgeReport()
