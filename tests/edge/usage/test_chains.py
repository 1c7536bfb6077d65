"""Chains of batches by residency: each row in one of them, once, wherever the process is killed."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage.chains import Chains, fetch_home
from edgeproxy.edge.usage.identity import IdentityError, LastSealed, adopt_identity, get_chain_folder, set_aside_state
from edgeproxy.edge.usage.spool import list_segments
from loadtest.testbed.sealing import NOW, WAYS, Faulty, Killed, Name, batches, count, prepare, sums, totals

HERE, ABROAD = ("anna", "requests", "v1"), ("us:bob", "requests", "v1")


class Edge:
    """A state directory whose home is eu, its chains, and a worker."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.disk = Faulty()
        self.store = prepare(state)
        self.worker = Store.join(state)

    def open(self, now: float = NOW, home: str | None = "eu", others: tuple[str, ...] = ("us",)) -> Chains:
        self.chains = Chains.open(self.store, "here", now, home=home, others=others, disk=self.disk)
        return self.chains

    def seal(self, now: float) -> tuple[str, ...]:
        """One turn of the accounting."""
        growths, faults = self.chains.find_growth(now)
        for sealer, growth in growths:
            for part in growth.parts:
                sealer.write_marks(part, sealer.append_batch(part, growth.until))
        self.chains.record_sealed(growths)
        return faults

    def again(self, now: float) -> None:
        """The supervisor dies, and another one comes."""
        self.chains.close()
        self.store.close()
        self.disk = Faulty()
        self.store = prepare(self.state)
        self.open(now)

    def spool(self, residency: str) -> Path:
        return get_chain_folder(self.state, residency) / "spool"

    def sealed(self) -> Counter[Name]:
        """Return the sums of both chains' batches, by the names in the tables."""
        found = sums(self.spool(""))
        for (customer, meter, route), value in sums(self.spool("us")).items():
            found[f"us:{customer}", meter, route] += value
        return found


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path / "state")
    yield made
    made.worker.close()
    made.store.close()


def test_each_residency_chain_has_its_own_customers_and_identity(edge: Edge) -> None:
    edge.open()
    for name in (HERE, ABROAD, ("-", "requests", "v1")):
        count(edge.worker, name, 2)
    assert edge.seal(NOW + 5) == ()
    (home,), (abroad,) = batches(edge.spool("")), batches(edge.spool("us"))
    assert {row[0] for row in home.rows} == {"anna", "-"}
    assert [row[0] for row in abroad.rows] == ["bob"]
    assert home.edge != abroad.edge
    assert (home.until, home.seq) == (abroad.until, abroad.seq)
    assert fetch_home(edge.state) == "eu"
    edge.again(NOW + 10)
    count(edge.worker, ABROAD)
    edge.seal(NOW + 15)
    assert (len(batches(edge.spool(""))), len(batches(edge.spool("us")))) == (1, 2)
    assert edge.sealed() == totals(edge.store)


def test_killed_at_any_act_of_the_disk_each_row_is_sealed_once(edge: Edge, seed: int) -> None:
    chance, now = random.Random(seed), NOW
    edge.open()
    for act in range(1, 60):
        for _ in range(chance.randrange(1, 5)):
            count(edge.worker, chance.choice([HERE, ABROAD]), chance.randrange(1, 9))
        edge.disk.acts, edge.disk.way = chance.randrange(1, 7), chance.choice(WAYS)
        now += 5
        try:
            edge.seal(now)
        except (Killed, OSError):
            pass
        # Between the marks of one chain and the record of both, too.
        if act % 3:
            edge.again(now)
            assert edge.seal(now) == ()
            assert edge.sealed() == totals(edge.store), f"seed {seed}, act {act}"
    edge.disk.acts = 0
    edge.seal(now + 5)
    assert edge.sealed() == totals(edge.store)


def test_usage_of_a_residency_that_is_not_configured_waits_until_it_is(edge: Edge) -> None:
    edge.open(others=())
    count(edge.worker, HERE)
    count(edge.worker, ABROAD)
    assert edge.seal(NOW + 5) == ("usage of the residency us is not sealed: it is not configured",)
    assert sums(edge.spool("")) == Counter({HERE: 1})
    edge.chains.close()
    edge.open()
    assert edge.seal(NOW + 10) == ()
    assert edge.sealed() == totals(edge.store)


def test_a_state_directory_keeps_its_home(edge: Edge) -> None:
    edge.open(home=None, others=()).close()  # As an edge that ships to one collector.
    edge.open().close()
    for home, what in (("us", "us is"), (None, "no residency is")):
        with pytest.raises(IdentityError, match=f"of the residency eu, and {what} configured as the home"):
            edge.open(home=home, others=())
    edge.open().close()


def test_missing_last_batch_renews_only_the_identity_of_its_chain(edge: Edge) -> None:
    edge.open()
    for now in (5, 10):
        count(edge.worker, HERE)
        count(edge.worker, ABROAD)
        edge.seal(NOW + now)
    before = {name: sealer.identity.id for name, sealer in edge.chains.sealers.items()}
    edge.chains.close()
    (path,) = list_segments(edge.spool("us"))
    path.write_bytes(path.read_bytes()[:-1])
    assert LastSealed(get_chain_folder(edge.state, "us")).fetch() == 2
    edge.open(NOW + 15)
    after = {name: sealer.identity.id for name, sealer in edge.chains.sealers.items()}
    assert (after[""], after["us"] != before["us"]) == (before[""], True)
    assert edge.chains.sealers["us"].aside == get_chain_folder(edge.state, "us") / "aside.1"
    count(edge.worker, ABROAD, 3)
    edge.seal(NOW + 20)
    assert sums(edge.spool("us")) == Counter({("bob", "requests", "v1"): 3})


def test_a_state_that_is_set_aside_and_adopted_takes_all_chains_along(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ABROAD)
    edge.seal(NOW + 5)
    mine = edge.chains.sealers["us"].identity.id
    edge.chains.close()
    edge.worker.close()
    edge.store.close()
    aside = set_aside_state(edge.state, edge.state)
    assert not get_chain_folder(edge.state, "us").exists()
    adopt_identity(edge.state, edge.state, aside.name)
    edge.store = prepare(edge.state)
    edge.worker = Store.join(edge.state)
    assert edge.open().sealers["us"].identity.id == mine
    assert edge.seal(NOW + 6) == ()
    assert sums(edge.spool("us")) == Counter({("bob", "requests", "v1"): 1})
