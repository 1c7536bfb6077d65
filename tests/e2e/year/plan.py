"""The plan of a year: the customers, their purchases and usage, and the people erased at its end. Pure."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from loadtest.testbed.process import ROOT
from tests.support.invoiced import at
from tests.support.second_rater import fee, usage_charges

RESIDENCIES = ("eu", "us")
FIRST = (2027, 1)
PLANS = yaml.safe_load((ROOT / "loadtest/testbed/plans.yaml").read_text())["plans"]
SOLD_AS = {"free": 50, "standard": 35, "enterprise": 15}
"""Plans, with their weights."""
DISPUTED_EVERY, CREDITED_EVERY, ASKING_EVERY = 10, 8, 5
"""One in this many customers disputes a payment, buys credits, or sends requests to edges."""
ADDRESS_LETTERS = {"eu": "e", "us": "a"}


def begin_of(month: int) -> int:
    """Return the Unix second of the start of a month of the year, from month 0 on."""
    year, number = divmod(FIRST[0] * 12 + FIRST[1] - 1 + month, 12)
    return at(year, number + 1, 1)


class Person(NamedTuple):
    """A customer, who is a person: each text about it has its mark."""

    residency: str
    number: int
    plan: str

    @property
    def name(self) -> str:
        """The name, which is the mark. No other name begins with it."""
        return f"planted-{self.residency}-{self.number:03}"

    @property
    def email(self) -> str:
        return f"ada@{self.name}.example"

    @property
    def address(self) -> str:
        """The person's client address."""
        return f"2001:db8:77:{self.address_mark}::{self.number:x}"

    @property
    def address_mark(self) -> str:
        """The part of the address that is unique to the person."""
        return f"{ADDRESS_LETTERS[self.residency]}{self.number:03}"

    @property
    def marks(self) -> frozenset[str]:
        """The marks to search for."""
        return frozenset((self.name, f"2001:db8:77:{self.address_mark}"))

    @property
    def disputes(self) -> bool:
        return self.plan != "free" and self.number % DISPUTED_EVERY == 1

    @property
    def buys_credits(self) -> bool:
        return self.number % CREDITED_EVERY == 2

    @property
    def asks(self) -> bool:
        """Return whether the person's programs send requests to edges, and the person signs in."""
        return self.number % ASKING_EVERY == 0

    def use(self, seed: int, month: int) -> dict[str, int]:
        """Return a month's usage of each meter on sale, below and above the included amounts."""
        chance = random.Random(f"{seed} {self.name} {month}")
        used = {}
        for meter, meter_plan in PLANS[f"{self.plan}@1"]["meters"].items():
            included = meter_plan["included"]
            used[meter] = chance.randint(1, 400 if included == "unlimited" else max(2, 5 * int(included) // 4))
        return used if self.plan != "free" else {"llm_tokens": used["llm_tokens"] // 2}

    def find_charge(self, seed: int, month: int, months: int) -> int:
        """Return the total of the invoice of a month's end, in cents: its usage and the next fee."""
        plan = PLANS[f"{self.plan}@1"]
        usage = {meter: {"": quantity} for meter, quantity in self.use(seed, month).items()}
        charges = sum(cents for _, cents in usage_charges(plan, usage).values())
        return charges + (fee(plan, seconds=1, of=1) if month < months - 1 else 0)

    def expected(self, seed: int, months: int, begins: int) -> Counter[int]:
        """Return the totals of the year's invoices in cents.

        The first is the fee for the first month from the Unix second `begins` on. At each month's end there is its
        usage and the next fee; after the last month there is no further fee.
        """
        plan = PLANS[f"{self.plan}@1"]
        month = begin_of(1) - begin_of(0)
        totals = [fee(plan, seconds=begin_of(1) - begins, of=month)]
        totals += [self.find_charge(seed, number, months) for number in range(months)]
        return Counter(total for total in totals if total)


def draw_people(seed: int, count: int) -> Mapping[str, Sequence[Person]]:
    """Return the customers of each residency."""
    chance = random.Random(seed)
    plans, weights = list(SOLD_AS), list(SOLD_AS.values())
    return {
        residency: [Person(residency, number, chance.choices(plans, weights)[0]) for number in range(count // 2)]
        for residency in RESIDENCIES
    }


def choose_erased(seed: int, people: Sequence[Person]) -> list[Person]:
    """Return a quarter of the people of a residency, at least one; the first makes requests and signs in."""
    return [people[0], *random.Random(seed).sample(people[1:], max(0, len(people) // 4 - 1))]


def make_events(person: Person, seed: int, month: int, second: int) -> list[dict[str, Any]]:
    """Return a service's events of a month: usage of the sold meters, and usage of the person's own users."""
    # Ids of events and dimensions are never erased, so they contain no name.
    text = f"{person.residency}-{person.number}-{month}"
    common = {"source": "year", "customer": person.name, "time": second}
    events = [
        common | {"id": f"{text}-{meter}", "meter": meter, "value": value}
        for meter, value in person.use(seed, month).items()
    ]
    user = f"user-{month % 3}-of-{person.name}"
    events.append(common | {"id": f"{text}-people", "meter": "people", "value": user})
    chat = {"id": f"{text}-chats", "meter": "chats", "value": 1, "request_id": f"request-{user}"}
    events.append(common | chat | {"dimensions": {"user": text}})
    return events
