"""The evidence of a run and the verdict on it: types that the judge and the reports share."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loadtest import conservation, limits, record
from loadtest.machine import Machine
from loadtest.record import NO_REGION, PerSecond, Request, Times
from loadtest.schedule import Phase, Recorded
from loadtest.workload import BAD_KEY, DIRECT, Workload

PASS, FAIL, INVALID = "pass", "fail", "invalid"
EXIT_CODES = {PASS: 0, FAIL: 1, INVALID: 3}
GRACE = 1.0
"""Seconds after the loss of a region, if its clients notice at once. If packets vanish, clients need a second more."""
JUDGED = 95.0
"""The percentile of all latency thresholds."""

HOME, MOVED, IN_GRACE = "home", "moved", "grace"
RESPONSE, SERVICE, LAG, REFUSED, FAILED, LOST = "response", "service", "lag", "refused", "failed", "lost"

MEASURED = {"answered": RESPONSE, "failed": FAILED, "lost": LOST}
TIMED = (RESPONSE, LOST)
"""Latency covers lost requests too: each counts with the time for which its client waited."""

Key = tuple[str, str, str, str]
"""The key of a histogram: region, kind of requests, measurement, home or moved."""


class Loss(NamedTuple):
    """The loss of a region, from `begin` to `end` in seconds after the beginning of the run."""

    region: str
    begin: float
    end: float
    grace: float = GRACE
    """Seconds after `begin` within which lost requests of the region are counted separately."""


class Finding(NamedTuple):
    """A reason why a run did not pass: the resulting verdict and a sentence."""

    verdict: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text}" if self.verdict == FAIL else self.text


class Unjudged(NamedTuple):
    """A threshold that a run does not judge, or (not `whole`) judges only in part, and the reason."""

    threshold: str
    why: str
    whole: bool = True

    def __str__(self) -> str:
        return f"not judged: {self.threshold}: {self.why}"


@dataclass
class Evidence:
    """All evidence of a run. Times are seconds after its beginning, warm-up included."""

    workload: Workload
    seconds: float
    """The length of the whole schedule."""
    rows: bytes
    """Rows as `record` packs them."""
    due: Sequence[int]
    """Requests of the schedule, by second."""
    due_judged: int
    """Requests that are due after the warm-up."""
    workers: int = 1
    lost_workers: Sequence[tuple[int, float]] = ()
    """Numbers of the workers that fell silent, and when."""
    gave_up: Sequence[int] = ()
    """Numbers of the workers that stopped because they were too late."""
    losses: Sequence[Loss] = ()
    cuts: Sequence[limits.Span] = ()
    """When the hub was down."""
    distance: float = 0.0
    """Seconds of a round trip to another region."""
    accounts: conservation.Accounts | None = None
    """None if the ledger cannot be read."""
    missed: Sequence[str] = ()
    """Events that should have happened during the run and did not."""
    trouble: Sequence[str] = ()
    """Log lines that no edge may ever write, or wrong exits of edges."""
    fresh: bool = True
    """No limit had been used before the run."""
    outside: bool = False
    """The edges belong to another party. The run can cause no faults in them and does not read their ledger."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Names of the times of the upstream itself, by the region in front of it; DIRECT if one upstream serves all
    regions.
    """
    promised: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """An edge's own description of a tier's limits if it differs from the workload, by region and tier."""
    expected: Mapping[int, Collection[int]] = field(default_factory=dict)
    """Expected statuses by the number of a request's name; 200 to 399 for all others."""
    names: Sequence[str] = ()
    """Names of the workload's own requests, from number 1 on."""
    machine: Machine | None = None

    def outcome(self, one: Request, kind: str) -> str:
        """Return the outcome of a request: answered, refused, lost or failed."""
        return outcome(kind, one.status, kind in self.workload.limits, self.expected.get(one.request, ()))

    def region_of(self, home: str, kind: str) -> str:
        """Return the region that a request's time belongs to; for `direct`, the name of the control."""
        return self.controls.get(home, DIRECT) if kind == DIRECT else home


@dataclass
class Verdict:
    """The verdict on a run: the findings, and the figures that the report shows."""

    verdict: str
    findings: list[Finding]
    p95: dict[str, float]
    """The latency of home clients by region, in seconds."""
    histograms: dict[Key, Times]
    counts: Counter[str]
    regions: dict[str, PerSecond]
    """Response times of home clients; times of `direct` are under that name."""
    lag: PerSecond
    series: dict[str, list[int]]
    """By second: due, started, answered, refused, failed."""
    unjudged: "list[Unjudged]" = field(default_factory=list)
    requests: dict[int, tuple[Times, Counter[int]]] = field(default_factory=dict)
    """Response times except refusals, and all statuses, by the number of a request's name; home and moved."""
    worst: dict[str, limits.WorstWindow] = field(default_factory=dict)
    """The fullest window by customer of a limited tier."""
    false_429: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By tier: requests refused although the window had room, and all its requests."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def achieved(self) -> int:
        """Answered requests, including requests whose region was being lost."""
        answered = self.counts["answered"] + self.counts["refused"] + self.counts["failed"]
        return answered + sum(self.counts[f"{what} in grace"] for what in ("answered", "refused", "failed", "lost"))


def name_controls(direct: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the times of each region's upstream, from the URLs of the upstreams."""
    if len(set(direct.values())) < 2:
        return {}
    first: dict[str, str] = {}
    for region, url in direct.items():
        first.setdefault(url, region)
    return {region: f"{DIRECT} {first[url]}" for region, url in direct.items()}


def names_and_expectations(workload: Workload, shape: Sequence[Phase | Recorded]) -> dict[str, Any]:
    """Return the names of a workload's own requests, and the expected statuses by their numbers."""
    names = workload.request_names(shape)
    expected: defaultdict[int, set[int]] = defaultdict(set)
    for template in workload.templates():
        if template.name in names:
            expected[names.index(template.name) + 1].update(template.expected)
    return {"names": names, "expected": {number: statuses for number, statuses in expected.items() if statuses}}


def outcome(kind: str, status: int, limited: bool, expected: Collection[int] = ()) -> str:
    """Return answered, refused (a 429 of a limit), lost (sent without an answer) or failed."""
    if status < 100:
        return "failed" if status == record.UNREACHABLE else "lost"
    if kind == BAD_KEY:
        return "answered" if status == 401 else "failed"
    if status == 429 and limited:
        return "refused"
    return "answered" if (status in expected if expected else 200 <= status < 400) else "failed"


def place(one: Request, home: str, losses: Sequence[Loss]) -> str:
    """Return home, moved, or grace (due or under way while its region was being lost)."""
    if one.asked == NO_REGION:
        return HOME
    for loss in losses:
        if home == loss.region and one.due <= loss.begin + loss.grace and one.end >= loss.begin:
            return IN_GRACE
    return HOME if one.asked == one.home else MOVED


def total(histograms: Mapping[Key, Times], region: str | None, what: Sequence[str], where: str | None = None) -> Times:
    """Merge all histograms of a region (None: of all except `direct`). Answers to bad keys are left out."""
    merged = Times()
    for (its_region, kind, its_what, its_place), times in histograms.items():
        expected = its_region == region or (region is None and kind != DIRECT)
        if expected and its_what in what and kind != BAD_KEY and where in (None, its_place):
            merged.merge(times)
    return merged
