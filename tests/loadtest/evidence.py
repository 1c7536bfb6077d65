"""A run of two regions that went well, as evidence, and ways to change single requests of it."""

from collections.abc import Callable
from typing import Any

from loadtest.evidence import Evidence
from loadtest.record import NO_REGION, Request
from loadtest.schedule import arrivals, length
from loadtest.workload import Workload

WORKLOAD = Workload.model_validate(
    {
        "regions": {"eu": "60%", "us": "40%"},
        "shape": [{"warm_up": "1s"}, {"steady": "200/s", "for": "10s"}],
        "tiers": {
            "basic": {"share": "20%", "customers": "2", "limit": "60/min"},
            "pro": {"share": "70%", "customers": "10", "limit": "600/min"},
        },
        "misbehaving": {"bad_key": "5%"},
        "direct": "5%",
    }
)
Change = Callable[[Request, str, str], dict[str, Any] | None]
"""A function of a request, its region and kind. It returns the changed fields, or None for a request never started."""


def evidence(change: Change = lambda one, region, kind: {}, **settings: Any) -> Evidence:
    """Return the evidence of a run in which each request was answered after 20 ms, with the expected status.

    60 requests of each basic customer pass, and its others get 429. `change` changes single requests, `settings` whole
    fields of the evidence.
    """
    regions, kinds = [*WORKLOAD.regions], [*WORKLOAD.kinds]
    schedule = list(arrivals(WORKLOAD.phases(), WORKLOAD.regions, WORKLOAD.kinds, WORKLOAD.seed))
    rows, counts, due = [], dict.fromkeys(range(2), 0), [0] * 11
    for one in schedule:
        due[int(one.due)] += 1
        home, status = regions.index(one.region), 401 if one.kind == "bad_key" else 200
        if one.kind == "basic":
            counts[one.person] += 1
            status = 200 if counts[one.person] <= 60 else 429
        named = NO_REGION if one.kind == "direct" else home
        row = Request(one.due, 0.02, 0.0195, 0.0005, 0, home, named, kinds.index(one.kind), one.person, status)
        changed = change(row, one.region, one.kind)
        if changed is not None:
            rows.append(row._replace(**changed))
    judged = sum(arrival.due >= WORKLOAD.warm_up for arrival in schedule)
    packed = b"".join(row.packed() for row in rows)
    fields: dict[str, Any] = {
        "workload": WORKLOAD, "seconds": length(WORKLOAD.phases()), "rows": packed, "due": due, "due_judged": judged,
    }  # fmt: skip
    return Evidence(**fields | settings)
