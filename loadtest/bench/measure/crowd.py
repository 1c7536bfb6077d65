"""Requests of many customers: for the program whose instructions are counted, and for the load of the bench.

A scenario is `many-CUSTOMERS` with options in this order:

- `-zipf`: the k-th customer sends 1/k as many requests as the first. Otherwise all send equally.
- `-routes100`: a hundred routes, drawn uniformly.
- `-new`: each path is new, as with ids. Or `-64k`: answers have 64 KiB.
- `-http2`: HTTP/2, and `-http2-10` ten streams in each read of a connection. Only instructions are counted, as h2load
  cannot change fields between requests.
- `-first`: each request is the first of its customer. Or `-again`: each customer has used its route before. Otherwise
  each customer has sent one request before, so with many routes a request is mostly the first of its customer there.
  In the bench `-again` sends the requests of `-first` once more, over as many new connections.
- `-flooded`: before the counted requests others have sent FLOOD requests with invented keys. With `-beside-flood` every
  other counted request has an invented key, too, and with `-flood` each one. Only instructions are counted.
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.edge.settings import EdgeSettings
from loadtest.bench import people
from loadtest.bench.people import ACME

NAME = re.compile(
    r"many-(?P<customers>[1-9]\d{0,6})(?P<zipf>-zipf)?(-routes(?P<routes>[1-9]\d{0,3}))?((?P<new>-new)|(?P<large>-64k))?"
    r"(?P<http2>-http2(-(?P<streams>[1-9]\d{0,2}))?)?((?P<first>-first)|(?P<again>-again))?"
    r"((?P<flooded>-flooded)|(?P<beside>-beside-flood)|(?P<flood>-flood))?"
)
"""The name of such a scenario."""

WARM_UP = 300
"""With `-first`, customers who sent requests before the counted ones: the last ones."""
ROUTE_USES = 20
"""Requests that each route gets from them on average, so that the counted ones are the first of their customers alone:
the first requests of a route fill its caches.
"""

FLOOD = 10_000
"""Requests with invented keys, with `-flooded`: more than a worker remembers of keys that came once."""

EXAMPLES = ("many-1", "many-1000", "many-10000", "many-100000", "many-100000-first")
"""The scenarios that `many` stands for."""

KEY = "ek_bench_c%06d_5d0a7c41e9b26f38"
"""The keys, for Python and Lua."""

SIZES = (1, 1000, 10_000, 100_000)
"""The numbers of customers that the bench measures."""


@dataclass(frozen=True)
class Crowd:
    """The customers and paths of a scenario."""

    customers: int
    routes: int = 1
    is_zipf: bool = False
    has_new_paths: bool = False
    is_first: bool = False
    is_again: bool = False
    is_flooded: bool = False
    is_beside_flood: bool = False
    is_flood: bool = False
    has_large_answers: bool = False
    streams: int = 0
    """Streams of HTTP/2 in each read; 0: HTTP/1.1."""

    def add_to(self, settings: EdgeSettings) -> EdgeSettings:
        """Return the settings with these customers instead of all others, each with the bench's own tier."""
        names = [f"c{number}" for number in range(self.customers)]
        customer = Customer(tier=ACME.tier)
        keys = [
            Key.model_construct(sha256=sha256(format_key(number).encode()).hexdigest(), customer=name)
            for number, name in enumerate(names)
        ]
        return settings.model_copy(update={"customers": dict.fromkeys(names, customer), "keys": tuple(keys)})

    @property
    def name(self) -> str:
        """The scenario's name."""
        routes = "" if self.routes == 1 else f"-routes{self.routes}"
        http2 = "" if self.streams == 0 else "-http2" if self.streams == 1 else f"-http2-{self.streams}"
        parts = (
            ("-zipf", self.is_zipf),
            (routes, True),
            ("-new", self.has_new_paths),
            ("-64k", self.has_large_answers),
            (http2, True),
            ("-first", self.is_first),
            ("-again", self.is_again),
            ("-flooded", self.is_flooded),
            ("-beside-flood", self.is_beside_flood),
            ("-flood", self.is_flood),
        )
        return f"many-{self.customers}" + "".join(part for part, is_so in parts if is_so)

    @property
    def is_in_turn(self) -> bool:
        """True if each customer sends one request in the bench, one after the other."""
        return self.is_first or self.is_again

    @property
    def kind(self) -> str:
        """The scenario of one customer with equal answers."""
        return "64k" if self.has_large_answers else "small"

    def list_customers(self) -> Iterator[people.Customer]:
        """Yield each customer for the peers."""
        return (replace(ACME, name=f"c{number}", key=format_key(number)) for number in range(self.customers))

    def list_route_names(self) -> tuple[str, ...]:
        """Return the names of the routes. Each is its path, too."""
        return tuple(path[1:] for path in self._list_paths())

    def list_routes(self) -> list[dict[str, str]]:
        """Return the routes in the form of settings."""
        return [{"path": f"{path}/*", "upstream": "api"} for path in self._list_paths()]

    def count_rows(self, times: int) -> int:
        """Return the rows that tables need for this many requests, with half as many to spare: of limits two for each
        customer, and of usage one for each pair of a customer and a route.
        """
        pairs = min(self.customers * self.routes, self.customers + times)
        return 1000 + max(2 * self.customers, pairs) * 3 // 2

    def warm_up(self, customers: int | None = None) -> Iterator[bytes]:
        """Yield a request of each customer, or of `customers` of them: of the last ones, if all others are counted at
        their first request.
        """
        numbers: Iterable[int] = range(self.customers)[:customers]
        if self.is_first:
            numbers = [*range(self.customers)[-WARM_UP:]] * self.warm_up_rounds
        paths, chance = self._list_paths(), random.Random(2)
        return (format_request(number, f"{chance.choice(paths)}/{self.kind}") for number in numbers)

    @property
    def warm_up_rounds(self) -> int:
        """The requests of each customer before the counted ones, with `-first`."""
        return max(1, ROUTE_USES * self.routes // WARM_UP)

    def use_routes(self, times: int) -> list[bytes]:
        """Return the requests before these `ask` returns if each customer has used its route: the same ones with known
        paths.
        """
        return replace(self, has_new_paths=False).ask(times) if self.is_again else []

    def flood(self) -> Iterator[bytes]:
        """Yield requests with keys that no customer has, each with another one."""
        is_flooded = self.is_flooded or self.is_beside_flood or self.is_flood
        return self._invent(0, FLOOD if is_flooded else 0)

    def _invent(self, begin: int, end: int) -> Iterator[bytes]:
        numbers = range(self.customers + begin, self.customers + end)
        return (format_request(number, f"{self._list_paths()[0]}/{self.kind}") for number in numbers)

    def _list_paths(self) -> list[str]:
        return [f"/r{number}" for number in range(self.routes)]

    def count_requests(self, most: int) -> int:
        """Return the number of requests to count, at most `most`: each first request needs a customer of its own."""
        return max(1, min(most, self.customers - WARM_UP)) if self.is_first else most

    def ask(self, times: int) -> list[bytes]:
        """Return this many requests."""
        if self.is_flood:
            return [*self._invent(FLOOD, FLOOD + times)]
        if self.is_beside_flood:
            pairs = zip(
                replace(self, is_beside_flood=False).ask(times), self._invent(FLOOD, FLOOD + times), strict=True
            )
            return [*itertools.chain.from_iterable(pairs)][:times]
        chance, numbers, paths = random.Random(1), range(self.customers), self._list_paths()
        if self.is_first:
            who = list(itertools.islice(itertools.cycle(numbers), times))
        elif self.is_zipf:
            who = chance.choices(numbers, cum_weights=[*itertools.accumulate(1 / (1 + k) for k in numbers)], k=times)
        else:
            who = chance.choices(numbers, k=times)
        tails = (f"orders/{1000 + each}" if self.has_new_paths else self.kind for each in range(times))
        return [
            format_request(number, f"{chance.choice(paths)}/{tail}") for number, tail in zip(who, tails, strict=True)
        ]


def parse_crowd(name: str) -> Crowd | None:
    """Return the crowd of a scenario's name, or None for another scenario."""
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
        is_again=bool(given["again"]),
        is_flooded=bool(given["flooded"]),
        is_beside_flood=bool(given["beside"]),
        is_flood=bool(given["flood"]),
        has_large_answers=bool(given["large"]),
        streams=int(given["streams"] or 1) if given["http2"] else 0,
    )


def list_crowds(sizes: Iterable[int]) -> list[Crowd]:
    """Return the crowds of these sizes that the bench measures: with each number of routes the first requests, which
    fill caches, then later ones.
    """
    kinds: list[dict[str, bool]] = [
        {"is_first": True},
        {"is_again": True},
        {},
        {"has_new_paths": True},
        {"is_zipf": True},
    ]
    of_routes = {1: [*kinds, {"has_large_answers": True}], 100: kinds}
    return [Crowd(size, routes, **kind) for size in sizes for routes in of_routes for kind in of_routes[routes]]


def format_key(number: int) -> str:
    """Return a customer's key."""
    return KEY % number


def format_request(number: int, path: str) -> bytes:
    """Return a customer's request: the scenario `small` with another key and path."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {format_key(number)}\r\n\r\n"
    ).encode()
