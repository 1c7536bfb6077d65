"""The limit report of a customer: the listed policies, and their agreement with the workers' decisions."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from edgeproxy.config.allowance import compute_allowance
from edgeproxy.config.edge.customer_store import NOTHING_MORE, HeldKey, read_terms
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.admission import admit, charge_reported_costs
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.route_limits import LimitTerms, PolicyTables, RouteLimits
from edgeproxy.edge.proxy.routing.flags import has_flag
from edgeproxy.edge.supervisor.limit_report import Policy, find_file_customer, list_policies

KEYS = {"acme": ("one", "two"), "small": ("three",), "plain": ()}

CONFIG = """
meters: {{requests: {{count: requests}}, wins: {{count: requests, when: success}}}}
tiers:
  gold:
    limits:
      - {{rate: 600/min}}
      - {{name: smooth, rate: 10/s, algorithm: token_bucket, burst: 40}}
      - {{name: each-key, rate: 50/h, scope: key}}
      - {{name: each-ip, rate: 100/h, scope: ip}}
      - {{name: each-route, rate: 40/min, scope: customer_route}}
      - {{name: everybody, rate: 1000/min, scope: route, algorithm: hybrid, burst: 30}}
      - {{name: trial, rate: 5/min, mode: shadow}}
      - {{name: dear, rate: 500/h, cost_header: X-Cost}}
    concurrency: 4
    quotas:
      - {{meter: requests, per: month, included: 1000}}
      - {{meter: wins, per: day, included: 20, cap: hard, timezone: Europe/Berlin}}
    burst_credits: {{earn: 1/s, max: 90}}
  free: {{}}
customers:
  acme: {{tier: gold}}
  small: {{tier: gold, limits: [{{name: own, rate: 7/10s}}], concurrency: none, quotas: [], burst_credits: off}}
  plain: {{tier: free}}
keys: [{keys}]
upstreams: {{api: {{endpoints: [http://127.0.0.1:9]}}}}
flags: {{new: {{customers: [acme]}}}}
routes:
  - {{name: v1, path: /v1/*, upstream: api}}
  - {{name: export, path: /export/*, upstream: api, cost: 3, limits: [
      {{rate: 9/min}}, {{name: lesser, rate: 8/min, scope: customer}}, {{name: looser, rate: 60/h, scope: key}},
      {{name: anyone, rate: 90/h, scope: ip}}]}}
  - {{name: new, path: /new/*, upstream: api, flag: new, limits: [{{rate: 11/h, mode: shadow}}]}}
  - {{name: open, path: /open/*, upstream: api, auth: none, limits: [{{rate: 12/h}}]}}
  - {{name: either, path: /either/*, upstream: api, auth: optional, limits: [{{rate: 2/s, scope: route}}]}}
"""


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Room:
    """A configuration, with tables as seen by a supervisor and by two workers."""

    def __init__(self, folder: Path) -> None:
        lines = [f'{{sha256: "{digest(key)}", customer: {name}}}' for name, keys in KEYS.items() for key in keys]
        self.path = folder / "edge.yaml"
        self.path.write_text(CONFIG.format(keys=", ".join(lines)))
        self.settings: EdgeSettings = load_edge(self.path, {})
        self.store = Store.prepare(folder / "state", workers=2, customers=100, addresses=100)
        self.workers = [Store.join(folder / "state") for _ in range(2)]
        self.now = monotonic() + self.store.offset
        self._tables = [
            PolicyTables(*map(Policies, (w.customers, w.addresses, w.quotas, w.end_users))) for w in self.workers
        ]

    def close(self) -> None:
        for store in (*self.workers, self.store):
            store.close()

    def terms(self, customer: str, route: str, key: str = "one", worker: int = 0) -> LimitSet | None:
        """Return a customer's limits on a route in a worker, or None if the route has no customers."""
        settings = self.settings
        known = settings.customers[customer]
        (on,) = (each for each in settings.routes if each.label == route)
        flagged = on.flag is not None and not has_flag(on.flag, settings.flags[on.flag], known.tier, customer)
        if on.auth == "none" or flagged:
            return None
        plan = compute_allowance(settings.tiers[known.tier], known)
        sha256 = hashlib.sha256(key.encode()).digest()
        terms = LimitTerms(self._tables[worker], on, plan, settings.meters)
        held = RouteLimits(terms, customer.encode(), HeldKey(sha256, customer.encode(), read_terms(NOTHING_MORE)))
        return held.build_limit_set(b"\x7f\0\0\1")

    def limit_report(self, customer: str) -> list[Policy]:
        who = find_file_customer(self.settings, customer)
        assert who is not None
        return list_policies(self.store.limits, self.settings, who, self.now)

    def line(self, customer: str, name: str, **of: Any) -> Policy:
        """Return the only line with this name and these members, for example its route or key."""
        (found,) = (
            line
            for line in self.limit_report(customer)
            if line["name"] == name and all(line.get(what) == which for what, which in of.items())
        )
        return found


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def test_a_line_has_the_documented_fields(room: Room) -> None:
    gold = room.line("acme", "gold")
    assert gold == {
        "name": "gold",
        "scope": "customer",
        "limit": 600,
        "window_s": 60.0,
        "used": 0,
        "remaining": 600,
        "reset_s": 0,
        "mode": "enforce",
        "algorithm": "sliding_window",
    }
    assert room.line("acme", "smooth")["burst"] == room.line("acme", "smooth")["remaining"] == 40
    assert room.line("acme", "everybody", route="v1")["burst"] == 30
    address = room.line("acme", "each-ip")
    assert (address["used"], address["remaining"], address["reset_s"]) == (None, None, None)
    assert (address["limit"], address["window_s"]) == (100, 3600.0)
    month, day = room.line("acme", "requests-month"), room.line("acme", "wins-day")
    assert 28 * 86400 <= month["window_s"] <= 31 * 86400
    assert month["cap"], day["cap"] == ("soft", "hard")
    assert 1 <= month["reset_s"] <= month["window_s"] + 1
    assert day["window_s"] in (82800, 86400, 90000)
    # The limit of credits is the highest balance, and the window is the time to earn it.
    credits = room.line("acme", "burst-credits")
    assert (credits["limit"], credits["window_s"], credits["remaining"]) == (90, 90.0, 90)
    at_once = room.line("acme", "concurrency")
    assert (at_once["limit"], at_once["window_s"], at_once["reset_s"]) == (4, 0, 0)


def test_limits_of_a_customer_replace_the_tiers_but_not_the_routes(room: Room) -> None:
    names = [line["name"] for line in room.limit_report("small")]
    assert names == ["own", "export", "lesser", "looser", "anyone", "either"]
    assert [line["name"] for line in room.limit_report("plain")] == ["export", "lesser", "anyone", "either"]


def test_a_request_counts_only_in_its_listed_limits(room: Room) -> None:
    terms = room.terms("acme", "export", "two")
    assert terms is not None
    assert not admit(terms, room.now)[0]
    two = digest("two")[:8]
    used = {(line["name"], line.get("route"), line.get("key")): line["used"] for line in room.limit_report("acme")}
    assert {of: count for of, count in used.items() if count} == {
        # The cost counts in the plan's limits. The route's limits count requests, one of them in the row of gold.
        ("smooth", None, None): 3,
        ("each-key", None, two): 3,
        ("everybody", "export", None): 3,
        ("trial", None, None): 3,
        ("gold", None, None): 1,
        ("lesser", "export", None): 1,
        ("export", "export", None): 1,
        ("concurrency", None, None): 1,
        ("requests-month", None, None): 1,
        ("wins-day", None, None): 1,
    }
    charge_reported_costs(terms, room.now, [30])
    terms.release()
    assert room.line("acme", "dear")["used"] == 30
    assert room.line("acme", "concurrency")["used"] == 0
