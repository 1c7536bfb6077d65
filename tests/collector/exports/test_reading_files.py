"""Readers of other files than the ledger's."""

import pytest

from edgeproxy.collector.accounts.end_users import ERASED
from edgeproxy.collector.exports.manifest import DamagedExportError
from edgeproxy.collector.exports.reading_files import ReadingRow, subtract

KEY = ("app", "7")
READING = ReadingRow(1_790_000_000, "c-1", "people", "", 1, "hmac:ab")


@pytest.mark.parametrize("item", [None, f"{ERASED}12"])
def test_a_file_has_an_item_still_that_the_ledger_has_erased(item: str | None) -> None:
    assert subtract("file", {KEY: READING._replace(item=item)}, {KEY: READING}) == {}


@pytest.mark.parametrize("change", [{"item": "hmac:cd"}, {"item": None, "value": 2}, {"item": None, "customer": "c-2"}])
def test_export_row_that_differs_from_the_ledger_is_damage(change: dict[str, object]) -> None:
    with pytest.raises(DamagedExportError, match="what the ledger does not"):
        subtract("file", {KEY: READING._replace(**change)}, {KEY: READING})  # type: ignore[arg-type]


def test_an_item_that_was_not_exported_is_damage() -> None:
    with pytest.raises(DamagedExportError):
        subtract("file", {KEY: READING}, {KEY: READING._replace(item=None)})
