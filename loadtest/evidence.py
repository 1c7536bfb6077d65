"""What is known of a run, and what came of it: the words of the judge and of reports."""

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
"""Seconds, of a region whose clients notice at once; where packets vanish they need a second more."""
JUDGED = 95.0
"""The percentile of all latency thresholds."""

HOME, MOVED, IN_GRACE = "home", "moved", "grace"
RESPONSE, SERVICE, LAG, REFUSED, FAILED, LOST = "response", "service", "lag", "refused", "failed", "lost"

MEASURED = {"answered": RESPONSE, "failed": FAILED, "lost": LOST}
TIMED = (RESPONSE, LOST)
"""What latency is judged by: what was never answered, for as long as it was waited for, too."""

Key = tuple[str, str, str, str]
"""Of a histogram: region, kind of requests, what was measured, home or moved."""


class Loss(NamedTuple):
    """A region that was lost from one moment to another, in seconds after the beginning of the run."""

    region: str
    begin: float
    end: float
    grace: float = GRACE
    """Seconds after its begin in which what is lost there has an account of its own."""


class Finding(NamedTuple):
    """Why a run did not pass: the verdict that it makes, and what to say."""

    verdict: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text}" if self.verdict == FAIL else self.text


class Unjudged(NamedTuple):
    """A threshold of which a run says nothing, or nothing of a part; why."""

    threshold: str
    why: str
    whole: bool = True

    def __str__(self) -> str:
        return f"not judged: {self.threshold}: {self.why}"


@dataclass
class Evidence:
    """All that is known of a run. Times are seconds after its beginning, warm-up included."""

    workload: Workload
    seconds: float
    """Of the whole schedule."""
    rows: bytes
    """Of `record`."""
    due: Sequence[int]
    """Requests of the schedule, by second."""
    due_judged: int
    """Those of them that are due after the warm-up."""
    workers: int = 1
    lost_workers: Sequence[tuple[int, float]] = ()
    """Numbers of those that fell silent, and when."""
    gave_up: Sequence[int] = ()
    """Numbers of those that were too late to go on."""
    losses: Sequence[Loss] = ()
    cuts: Sequence[limits.Span] = ()
    """When the hub was away."""
    distance: float = 0.0
    """Seconds to another region and back."""
    accounts: conservation.Accounts | None = None
    """None where the ledger cannot be asked."""
    missed: Sequence[str] = ()
    """What should have happened meanwhile and did not."""
    trouble: Sequence[str] = ()
    """What edges wrote that none may ever write, or how they ended."""
    fresh: bool = True
    """Whether nobody had used any limit before."""
    outside: bool = False
    """Whether the edges are somebody else's, to which nothing can be done, and whose ledger is not read."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """What times of the upstream itself are called, by the region that it is behind; DIRECT where one is behind all."""
    promised: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What an edge says of a tier's limits where it differs from the workload, by region and tier."""
    expected: Mapping[int, Collection[int]] = field(default_factory=dict)
    """Statuses that are right, by the number of a request's name; 200 to 399 of all others."""
    names: Sequence[str] = ()
    """Of the workload's own requests, from number 1 on."""
    machine: Machine | None = None

    def outcome(self, one: Request, kind: str) -> str:
        """What became of a request: answered, refused, lost or failed."""
        return outcome(kind, one.status, kind in self.workload.limits, self.expected.get(one.request, ()))

    def region_of(self, home: str, kind: str) -> str:
        """The region whose time a request's is: of `direct` that of the control."""
        return self.controls.get(home, DIRECT) if kind == DIRECT else home


@dataclass
class Verdict:
    """What came of a run: the findings, and the figures that the report shows."""

    verdict: str
    findings: list[Finding]
    p95: dict[str, float]
    """Of home clients by region, in seconds."""
    histograms: dict[Key, Times]
    counts: Counter[str]
    regions: dict[str, PerSecond]
    """Response times of home clients, also those of `direct` under that name."""
    lag: PerSecond
    series: dict[str, list[int]]
    """By second: due, started, answered, refused, failed."""
    unjudged: "list[Unjudged]" = field(default_factory=list)
    requests: dict[int, tuple[Times, Counter[int]]] = field(default_factory=dict)
    """Response times but of refusals, and all statuses, by the number of a request's name; home and moved."""
    worst: dict[str, limits.Worst] = field(default_factory=dict)
    """By customer of a limited tier."""
    false_429: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By tier: refused although there was room, and all its requests."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def achieved(self) -> int:
        """Requests that were answered, with those whose region was being lost."""
        answered = self.counts["answered"] + self.counts["refused"] + self.counts["failed"]
        return answered + sum(self.counts[f"{what} in grace"] for what in ("answered", "refused", "failed", "lost"))


def name_controls(direct: Mapping[str, str]) -> dict[str, str]:
    """What times of each region's upstream are called, by the URLs of the upstreams."""
    if len(set(direct.values())) < 2:
        return {}
    first: dict[str, str] = {}
    for region, url in direct.items():
        first.setdefault(url, region)
    return {region: f"{DIRECT} {first[url]}" for region, url in direct.items()}


def names_and_expectations(workload: Workload, shape: Sequence[Phase | Recorded]) -> dict[str, Any]:
    """The names of a workload's own requests, and by their numbers the statuses that are right."""
    names = workload.request_names(shape)
    expected: defaultdict[int, set[int]] = defaultdict(set)
    for one in workload.templates():
        if one.name in names:
            expected[names.index(one.name) + 1].update(one.expected)
    return {"names": names, "expected": {number: statuses for number, statuses in expected.items() if statuses}}


def outcome(kind: str, status: int, limited: bool, expected: Collection[int] = ()) -> str:
    """answered, refused (a 429 of a limit), lost (sent, and no answer) or failed."""
    if status < 100:
        return "failed" if status == record.UNREACHABLE else "lost"
    if kind == BAD_KEY:
        return "answered" if status == 401 else "failed"
    if status == 429 and limited:
        return "refused"
    return "answered" if (status in expected if expected else 200 <= status < 400) else "failed"


def place(one: Request, home: str, losses: Sequence[Loss]) -> str:
    """home, moved, or grace: due while its region was being lost, or under way then."""
    if one.asked == NO_REGION:
        return HOME
    for loss in losses:
        if home == loss.region and one.due <= loss.begin + loss.grace and one.end >= loss.begin:
            return IN_GRACE
    return HOME if one.asked == one.home else MOVED


def total(histograms: Mapping[Key, Times], region: str | None, what: Sequence[str], where: str | None = None) -> Times:
    """All histograms of a region (None: of any but `direct`) in one. Answers to bad keys are left out."""
    merged = Times()
    for (its_region, kind, its_what, its_place), times in histograms.items():
        wanted = its_region == region or (region is None and kind != DIRECT)
        if wanted and its_what in what and kind != BAD_KEY and where in (None, its_place):
            merged.merge(times)
    return merged
