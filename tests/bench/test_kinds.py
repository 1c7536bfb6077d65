"""The cost benchmark of policy kinds: each kind is measured, and behaves as described during the measurement."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.admission import admit
from loadtest.bench.measure import kinds
from loadtest.bench.measure.kinds import KINDS, PLENTY, Kind, Worker
from loadtest.bench.measure.tables import two_workers

NOW = 60_000_000.0
Stores = tuple[Store, Store]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with two_workers(tmp_path / "state") as stores:
        yield stores


def test_every_kind_has_all_its_figures(tmp_path: Path) -> None:
    pace = kinds.Pace(decisions=50, repeats=2, cells=2 * kinds.BATCH, subjects=2 * kinds.BATCH)
    rows = kinds.run(tmp_path / "state", pace)
    assert [row["what"] for row in rows] == [kind.what for kind in KINDS]
    for row, kind in zip(rows, KINDS, strict=True):
        expected = (
            {"alone", "turns", "stranger"}
            | ({"new_cell"} if kind.celled else set())
            | ({"refused"} if kind.refuses else set())
        )
        assert {name for name, figure in row.items() if isinstance(figure, float) and 0 < figure < 10_000} == expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_kind_admits_within_its_limit_and_settles_usage(stores: Stores, kind: Kind) -> None:
    own, other = map(Worker, stores)
    decide = kinds.deciding(own, kind, b"acme", PLENTY)
    for _ in range(5):
        decide(NOW)
    terms = kind.terms(other, b"acme", PLENTY)
    refused, _, _, noted = admit(terms, NOW)
    assert not refused
    assert bool(noted is not None and noted.paid) == (kind.what.endswith("credits that pay"))
    # Only the last admission is in use; settled ones are not.
    assert [slot.counts.used for slot in terms.slots] == [1] * len(terms.slots)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.refuses], ids=lambda kind: kind.what)
def test_refusal_benchmark_is_refused(stores: Stores, kind: Kind) -> None:
    kinds.refusing((Worker(stores[0]), Worker(stores[1])), kind, b"acme", NOW)(NOW + kinds.STEP)
