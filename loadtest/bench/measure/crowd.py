"""Requests of many customers, for the program whose instructions are counted: who is served, and who asks.

A scenario is `many-CUSTOMERS`, and may go on with `-zipf` (the k-th customer asks 1/k as often as the first; else all
alike), `-routes100`, `-new` (each path is new, as with ids) and `-first` (each customer asks for the first time;
else each has asked before).
"""

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.edge.settings import EdgeSettings
from loadtest.bench.people import ACME

NAME = re.compile(
    r"many-(?P<customers>[1-9]\d{0,6})(?P<zipf>-zipf)?(-routes(?P<routes>[1-9]\d{0,3}))?(?P<new>-new)?(?P<first>-first)?"
)
"""The name of such a scenario."""

WARM_UP = 300
"""Customers who have asked before those who are counted, where these ask for the first time."""

EXAMPLES = ("many-1", "many-1000", "many-10000", "many-100000", "many-100000-first")
"""Those that are counted where `many` is asked for."""


@dataclass(frozen=True)
class Crowd:
    """Who asks, and for which paths."""

    customers: int
    routes: int = 1
    is_zipf: bool = False
    has_new_paths: bool = False
    is_first: bool = False

    def add_to(self, settings: EdgeSettings) -> EdgeSettings:
        """Return the settings with these customers, each of the tier of the bench's own, in the place of all others."""
        names = [f"c{number}" for number in range(self.customers)]
        customer = Customer(tier=ACME.tier)
        keys = [
            Key.model_construct(sha256=sha256(format_key(number).encode()).hexdigest(), customer=name)
            for number, name in enumerate(names)
        ]
        return settings.model_copy(update={"customers": dict.fromkeys(names, customer), "keys": tuple(keys)})

    def list_routes(self) -> list[dict[str, str]]:
        """Return the routes, as settings have them."""
        return [{"path": f"{path}/*", "upstream": "api"} for path in self._list_paths()]

    def count_rows(self, times: int) -> int:
        """Count the rows that a table needs before so many requests: some to spare."""
        bindings = self.customers if self.routes == 1 else self.customers + times
        return 1000 + 3 * bindings

    def warm_up(self, customers: int | None = None) -> Iterator[bytes]:
        """Yield a request of each customer, or of the first `customers`: of the last ones where all others ask for the
        first time.
        """
        numbers = range(self.customers)
        chosen = numbers[-WARM_UP:] if self.is_first else numbers[:customers]
        paths, chance = self._list_paths(), random.Random(2)
        return (format_request(number, f"{chance.choice(paths)}/small") for number in chosen)

    def _list_paths(self) -> list[str]:
        return [f"/r{number}" for number in range(self.routes)]

    def ask(self, times: int) -> list[bytes]:
        """Return so many requests."""
        chance, numbers, paths = random.Random(1), range(self.customers), self._list_paths()
        if self.is_first:
            who = list(itertools.islice(itertools.cycle(numbers), times))
        elif self.is_zipf:
            who = chance.choices(numbers, cum_weights=[*itertools.accumulate(1 / (1 + k) for k in numbers)], k=times)
        else:
            who = chance.choices(numbers, k=times)
        tails = (f"orders/{1000 + each}" if self.has_new_paths else "small" for each in range(times))
        return [
            format_request(number, f"{chance.choice(paths)}/{tail}") for number, tail in zip(who, tails, strict=True)
        ]


def parse_crowd(name: str) -> Crowd | None:
    """Return what a scenario of this name is about; None where it is none of these."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    given = found.groupdict()
    return Crowd(
        int(given["customers"]),
        int(given["routes"] or 1),
        is_zipf=bool(given["zipf"]),
        has_new_paths=bool(given["new"]),
        is_first=bool(given["first"]),
    )


def format_key(number: int) -> str:
    """Return a customer's key."""
    return f"ek_bench_c{number:06}_5d0a7c41e9b26f38"


def format_request(number: int, path: str) -> bytes:
    """Return a customer's request: `small` of the scenarios, with another key."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {format_key(number)}\r\n\r\n"
    ).encode()
