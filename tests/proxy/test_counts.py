"""What a worker does where there is no room to count."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.counters.index import TableBusy, TableFull
from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import TallyTable
from edgeproxy.errors import Refused
from edgeproxy.proxy.counts import Counts


@pytest.fixture
def store(tmp_path: Path) -> Store:
    Store.prepare(tmp_path, workers=1, people=100, addresses=100).close()
    return Store.join(tmp_path)


def has_no_row(failure: type[Exception]) -> Callable[..., int]:
    def own(self: TallyTable, key: bytes, kind: int) -> int:
        raise failure(self.name)

    return own


def test_usage_in_a_full_table_is_counted_for_nobody_and_the_operator_hears_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(store)
    unnamed = counts.usage("-", "requests", "-")
    own = TallyTable.own
    monkeypatch.setattr(
        TallyTable,
        "own",
        lambda self, *of: has_no_row(TableFull)(self, *of) if self.name == "usage" else own(self, *of),
    )
    assert counts.usage("acme", "requests", "v1") is unnamed
    assert ("edge_table_full_total", ("usage",), [1]) in list(store.metric_totals())


def test_what_cannot_be_counted_now_is_not_served_now(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts(store)
    monkeypatch.setattr(TallyTable, "own", has_no_row(TableBusy))
    with pytest.raises(Refused) as refused:
        counts.usage("acme", "requests", "v1")
    assert refused.value.status == 503
    assert b"Retry-After" in refused.value.fields
    assert not refused.value.close


@pytest.mark.parametrize("failure", [TableFull, TableBusy])
def test_no_request_fails_for_a_metric_without_a_row(
    failure: type[Exception], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(store)
    monkeypatch.setattr(TallyTable, "own", has_no_row(failure))
    counts.requests("v1", "pro", 200).add()
    counts.auth_failure("unknown")
    for counter in counts.limited("v1", "pro", ("pro",)):
        counter.add()
    monkeypatch.undo()
    assert [row for row in store.metric_totals() if row[0] == "edge_auth_failures_total"] == []
    counts.auth_failure("unknown")
    assert ("edge_auth_failures_total", ("unknown",), [1]) in list(store.metric_totals())
