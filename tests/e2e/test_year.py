"""Months of customers in two residencies: invoices add up, and personal data never reaches the other side.

After an erasure, no data of the person remains anywhere, not even after an older backup is restored.
"""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from loadtest.regions import clocks
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.e2e.year import erasure, life
from tests.e2e.year.plan import RESIDENCIES, Person, begin_of, choose_erased, draw_people
from tests.e2e.year.side import Side
from tests.e2e.year.world import World
from tests.support.byte_search import search_files
from tests.support.invoiced import FREEZE
from tests.support.s3 import PROGRAM

DAY = 86400
PEOPLE = int(os.environ.get("EDGEPROXY_YEAR_PEOPLE", "4"))
LENGTH = int(os.environ.get("EDGEPROXY_YEAR_MONTHS", "1"))
DISPUTES = LENGTH // 3
"""The month of the disputes."""
RETRY_DAYS = (1, 3, 5, 7)
"""The days from a failed payment to each retry."""
GRACE_DAYS = 31
"""The days from the deletion of a customer to its erasure."""
START_SECONDS = 900.0
"""Seconds that a collector may take to become ready. All processes share one machine."""


class Year:
    """The year of these customers, with the results computed by hand."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        self.people = {name: list(some) for name, some in draw_people(seed, PEOPLE).items()}
        self.requests: Counter[str] = Counter()
        self.begins: dict[str, int] = {}
        """The start of each customer's plan, in Unix seconds."""
        self.erased = {name: choose_erased(seed, some) for name, some in self.people.items()}
        self.pseudonyms: dict[str, str] = {}
        self.names_at_stripe: dict[str, str] = {}
        """The names of people by their ids at Stripe."""
        self._began = monotonic()

    def tell(self, text: str) -> None:
        print(f"{monotonic() - self._began:6.0f} s  {text}", flush=True)

    def choose(self, which: Callable[[Person], bool]) -> dict[str, list[Person]]:
        return {name: [one for one in some if which(one)] for name, some in self.people.items()}

    def live(self) -> None:
        """Play all months."""
        world, sides = self.world, self.world.sides
        world.run_for(life.join, self.people)
        for name, side in sides.items():
            self.begins |= {person.name: life.fetch_begin(side, person) for person in self.people[name]}
        self.tell("all have joined")
        world.settle()
        for name, side in sides.items():
            life.enter_cards(side, self.people[name])
            life.pay_open(side)
        for month in range(LENGTH):
            self.live_month(month)
            self.tell(f"month {month + 1} is over")
        for day in RETRY_DAYS:
            world.set_clocks(begin_of(LENGTH) + FREEZE + day * DAY + 1200)
            world.settle()

    def live_month(self, month: int) -> None:
        """Play a month until its invoices are paid."""
        world, sides, begin, end = self.world, self.world.sides, begin_of(month), begin_of(month + 1)
        world.set_clocks(begin + 12 * DAY)
        for name, side in sides.items():
            life.report_month(side, self.people[name], self.seed, month, begin + (3 + month % 5) * DAY)
        if month % 4 == 0:
            world.start_edges()
            self.requests.update(served=world.send_traffic(self.choose(lambda one: one.asks)))
            for side in sides.values():
                side.keep_observed(month)
            world.end_edges()
        if month == 0:
            world.run_for(life.buy_credits, self.choose(lambda one: one.buys_credits))
            world.run_for(life.sign_in, self.choose(lambda one: one.asks))
            world.run_for(life.trouble_operators, self.people)
        if month == DISPUTES:
            paying = self.choose(lambda one: one.find_charge(self.seed, month, LENGTH) > 0)
            disputing = sum(life.dispute(side, paying[name]) for name, side in sides.items())
        if month == LENGTH - 1:
            world.run_for(life.cancel, self.people)
        world.set_clocks(end + 600)
        world.settle()
        world.set_clocks(end + FREEZE + 600)
        world.settle()
        if month == DISPUTES:
            assert sum(map(life.win_disputes, sides.values())) == disputing
            for name, side in sides.items():
                life.enter_cards(side, self.people[name])
        for side in sides.values():
            if month in (LENGTH // 2, LENGTH - 1):
                side.export("export")
            side.keep_observed(month)

    # ---- the erasure

    def keep_names(self) -> None:
        """Record the pseudonyms and Stripe ids of all people, because they cannot be found after the erasure."""
        for name, side in self.world.sides.items():
            self.pseudonyms |= {person.name: side.find_pseudonym(person.name) for person in self.people[name]}
            self.names_at_stripe |= {one["id"]: one["name"] for one in life.list_at_stripe(side, "/v1/customers")}

    def erase(self) -> dict[str, Path]:
        """Erase people, every other one through the API. Return a backup of each side from before."""
        world, sides = self.world, self.world.sides
        backups = {name: erasure.back_up(side, world.server) for name, side in sides.items()}
        world.run_for(erasure.delete, {name: some[1::2] for name, some in self.erased.items()})
        world.set_clocks(world.now() + GRACE_DAYS * DAY)
        world.run_for(erasure.erase_by_command, {name: some[::2] for name, some in self.erased.items()})
        self.await_erasure()
        world.start_edges()
        for region in RESIDENCIES:
            for person in (person for some in self.erased.values() for person in some):
                until(lambda region=region, one=person: world.ask(region, one) == 401, "no edge serves them any more")
        world.end_edges()
        for side in sides.values():
            side.export("export")
            side.keep_observed(LENGTH)
        return backups

    def await_erasure(self) -> None:
        """Wait until people are erased here and at Stripe."""
        for name, side in self.world.sides.items():
            for one in self.erased[name]:
                who = side, self.pseudonyms[one.name]
                until(lambda who=who: erasure.is_erased(*who), f"{one.name} is erased", seconds=120.0)
        self.world.settle()
        for side in self.world.sides.values():
            until(lambda side=side: not self.find_erased_at_stripe(side), "Stripe forgets them", seconds=120.0)

    def find_erased_at_stripe(self, side: Side) -> set[str]:
        """Return the names of erased people that Stripe still has."""
        there = {self.names_at_stripe[one["id"]] for one in life.list_at_stripe(side, "/v1/customers")}
        return there & self.erased_names

    def restore(self, backups: dict[str, Path]) -> None:
        """Restore the backups, which contain all people, and start the collectors on them."""
        for name, side in self.world.sides.items():
            erasure.restore(side, self.world.server, backups[name])
            backups[name].unlink()
            side.collector.start()
        self.await_erasure()

    @property
    def erased_names(self) -> set[str]:
        return {one.name for some in self.erased.values() for one in some}

    # ---- what must hold

    def check_nothing_left(self) -> None:
        """Require that no byte of erased people remains outside backups and Stripe's invoices."""
        marks = {mark for some in self.erased.values() for one in some for mark in one.marks}
        for side in self.world.sides.values():
            found = self.world.search(side, side.apart)
            left = {mark: places - {f"{side.apart.name}/backup"} for mark, places in found.items() if mark in marks}
            assert {mark: places for mark, places in left.items() if places} == {}

    def check_money(self) -> None:
        """Require that our invoices, Stripe's, and the sums by hand are equal."""
        for name, side in self.world.sides.items():
            names = self.names_at_stripe
            theirs: dict[str, Counter[int]] = {}
            for invoice in life.list_at_stripe(side, "/v1/invoices"):
                if invoice["total"]:
                    assert invoice["status"] == "paid", invoice
                    theirs.setdefault(names[invoice["customer"]], Counter())[invoice["total"]] += 1
            expected = {
                person.name: person.expected(self.seed, LENGTH, self.begins[person.name])
                for person in self.people[name]
            }
            ours = {
                person.name: life.list_own_totals(side, self.pseudonyms[person.name]) for person in self.people[name]
            }
            assert {one: totals for one, totals in expected.items() if totals} == theirs
            assert ours == expected

    def check_sides(self) -> None:
        """Require that the other side has never held a byte of a person."""
        for name, other in (RESIDENCIES, RESIDENCIES[::-1]):
            marks = {mark for person in self.people[other] for mark in person.marks}
            side = self.world.sides[name]
            found = self.world.search(side, side.apart, side.folder.parent / f"{name}-stripe")
            assert {mark: places for mark, places in found.items() if mark in marks} == {}
            own = {person.name for person in self.people[name]}
            assert found.keys() & own, "the search finds who is there"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(clocks.LIBRARY is None, reason="there is no libfaketime on this machine")
@pytest.mark.skipif(PROGRAM is None, reason="there is no SeaweedFS on this machine")
def test_months_of_random_use_keep_invoices_correct_and_residencies_separate(
    upstream: Upstream, postgresql: Postgresql, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.testbed.collector.START", START_SECONDS)
    print(f"{PEOPLE} customers, {LENGTH} months, seed {seed}")
    with ExitStack() as ends:
        world = World(tmp_path, upstream.port, postgresql, ends)
        year = Year(world, seed)
        year.live()
        year.keep_names()
        year.check_money()
        year.tell("invoices are what they should be")
        world.verify()
        year.check_sides()
        year.tell("each side has its own people alone")
        backups = year.erase()
        year.tell("a quarter is erased")
        year.check_money()
        world.verify()
        world.purge_deleted()
        found = search_files(*(file.parent for file in backups.values()))
        assert found.keys() >= year.erased_names, "the search finds who is in the backups"
        year.check_nothing_left()
        year.restore(backups)
        year.tell("backups from before are restored")
        year.check_money()
        world.verify()
        world.purge_deleted()
        year.check_nothing_left()
        year.check_sides()
        year.tell("nothing is left of who was erased")
