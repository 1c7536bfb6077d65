"""A workload file: its requests, customers and thresholds, checked as the edge checks its configuration.

A check reports all errors at once, each with file and line. Times are in seconds, shares 0 to 1, rates in requests
per second.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgeproxy.config import units
from edgeproxy.config.check import Check, Kind
from edgeproxy.config.edge.timeouts import Duration
from edgeproxy.config.field_types import File, Name, Rate, Share
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.part import Part
from edgeproxy.config.problems import ConfigError, Problem, Steps
from edgeproxy.config.references import Fault, list_members
from edgeproxy.config.source import Source
from edgeproxy.config.tree import Items, Table
from edgeproxy.config.units import Whole, format_value, read_duration, read_share, read_switch, read_text, value_error
from loadtest import replay, schedule
from loadtest.requests import (
    RequestSpec,
    Template,
    fetch_templates,
    find_request_faults,
    list_missing_files,
    list_names,
)

WORKLOADS = Path(__file__).with_name("workloads")
BAD_KEY, SLOW_READER, BURST, DIRECT = "bad_key", "slow_reader", "burst", "direct"
"""Kinds of requests beside the tiers: an unknown key, readers at 32 KiB/s, six requests due at once, and requests to
the upstream without an edge.
"""
KILL, HOLE = "kill", "hole"
"""How a region is lost: its processes die, or its network drops all packets."""
AT_ONCE = 6
BURSTING = 5
"""The number of customers that send in bursts. Their limit is that of the first tier with a limit."""
DISTANCE = "distance"

A_NUMBER = "a number such as 150"
A_MOVED_P95 = "a time such as 150ms, or 80ms + distance: that of the way to another region"
A_LIMIT_ERROR = "LIMITS, or the share above the limit that is accepted, such as 10%"


def read_number(value: object) -> float:
    """Parse a number above zero."""
    if isinstance(value, float):
        return value
    written = read_text(value, A_NUMBER)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", written) or not float(written):
        raise value_error(f"{format_value(written)} is not a number above zero", A_NUMBER)
    return float(written)


NOTHING = units.Rate(0, 1.0)
"""The default of required fields. `REQUIRED` reports a missing one in better words than the models could."""


class MovedP95(NamedTuple):
    """A threshold in seconds, optionally plus the round trip to the region that answered instead."""

    seconds: float
    with_distance: bool

    def at(self, distance: float) -> float:
        """Return the threshold if the other region is this many seconds away (there and back)."""
        return self.seconds + distance * self.with_distance


def read_moved_p95(value: object) -> MovedP95:
    """Parse `150ms`, or `80ms + distance`."""
    if isinstance(value, MovedP95):
        return value
    first, plus, second = read_text(value, A_MOVED_P95).partition("+")
    if plus and second.strip() != DISTANCE:
        raise value_error(f"{format_value(second.strip())} is not known here", A_MOVED_P95)
    return MovedP95(read_duration(first.strip()), bool(plus))


def read_limit_error(value: object) -> float | None:
    """Parse a share. None means the accept column of the algorithm's own targets."""
    if value is None or value == "LIMITS":
        return None
    if isinstance(value, str) and not value.endswith("%"):
        raise value_error(f"{format_value(value)} is not known here", A_LIMIT_ERROR)
    return read_share(value)


def read_exact(value: object) -> bool:
    """Parse `exact`, or `off`, which leaves the ledger unread."""
    if isinstance(value, bool):
        return value
    if value not in ("exact", "off"):
        raise value_error(f"{format_value(str(value))} is not known here", "exact, or off")
    return value == "exact"


def read_how(value: object) -> str:
    """Parse `kill` or `hole`."""
    if value not in (KILL, HOLE):
        raise value_error(f"{format_value(str(value))} is not known here", "kill, or hole")
    return str(value)


def read_word(word: str) -> Any:
    """Return a parser of one word."""

    def read(value: object) -> str:
        if value != word:
            raise value_error(f"{format_value(str(value))} is not known here", f"write {word}")
        return word

    return BeforeValidator(read)


Number = Annotated[float, BeforeValidator(read_number)]
People = Annotated[int, BeforeValidator(Whole(1, 250))]
Count = Annotated[int, BeforeValidator(Whole(0, 1_000_000))]
Seed = Annotated[int, BeforeValidator(Whole(0, 2**53))]


class Ramp(Part):
    """A rate that changes evenly."""

    begin: Annotated[Rate, Field(alias="from")] = NOTHING
    to: Rate = NOTHING


class Spike(Part):
    """Another rate for a short while."""

    to: Rate = NOTHING
    lasts: Annotated[Duration, Field(alias="for")] = 0.0


class Replay(Part):
    """An access log in common or combined format, gzipped or not."""

    log: File = Path()
    speed: Number = 1.0
    paths: Annotated[bool, BeforeValidator(read_switch)] = False
    """Send the logged requests instead of usual requests whose responses have the logged sizes."""
    longest_gap: Duration = 2.0


class Step(Part):
    """One phase of the shape: exactly one of its fields, with `for` beside `steady` and `ramp`."""

    warm_up: Duration | None = None
    """A phase before the judged phases, at the rate of the first of them."""
    steady: Rate | None = None
    ramp: Ramp | None = None
    spike: Spike | None = None
    replay: Replay | None = None
    lasts: Annotated[Duration | None, Field(alias="for")] = None


class BurstCredits(Part):
    """Burst credits, as in a tier of the edge."""

    earn: Rate = NOTHING
    max: Count = 0


class Tier(Part):
    """A share of the requests and the number of their customers or addresses. `limit` applies to each of these."""

    share: Share = 0.0
    customers: People | None = None
    addresses: People | None = None
    limit: Rate | None = None
    burst_credits: BurstCredits | None = None

    @property
    def people(self) -> int:
        """The number of customers or addresses."""
        return self.customers or self.addresses or 1


class Misbehaving(Part):
    """Shares of requests with faults that clients should not have."""

    bad_key: Share = 0.0
    slow_reader: Share = 0.0
    burst: Share = 0.0


class Event(Part):
    """An event during the run, from `at` on, for `for`; both are shares of the judged time."""

    at: Share = 0.0
    lasts: Annotated[Share, Field(alias="for")] = 0.0
    lose: Name | None = None
    how: Annotated[str, BeforeValidator(read_how)] = KILL
    cut: Annotated[str | None, read_word("hub")] = None
    slow: Annotated[str | None, read_word("upstream")] = None
    by: Duration = 0.1
    """The added delay."""


class Thresholds(Part):
    """The thresholds of a pass."""

    p95: Duration = 0.080
    """The latency of home clients, region by region, from the intended start."""
    moved_p95: Annotated[MovedP95, BeforeValidator(read_moved_p95)] = MovedP95(0.080, True)
    error_rate: Share = 0.001
    lost: Count = 0
    """Requests sent and never answered, beyond the requests under way when a region was lost and for a second after."""
    started: Share = 0.99
    """The share of due requests that started."""
    achieved: Share = 0.99
    """The share of due requests that were answered."""
    false_429: Share = 0.01
    """The share of a tier's requests that were refused although the window held less than the limit."""
    limit_error: Annotated[float | None, BeforeValidator(read_limit_error)] = None
    conserved: Annotated[bool, BeforeValidator(read_exact)] = True


class Workload(Part):
    """A whole workload."""

    seed: Seed = 7
    regions: dict[Name, Share] = Field(default_factory=lambda: {"eu-west": 1.0})
    shape: tuple[Step, ...] = ()
    tiers: dict[Name, Tier] = Field(default_factory=dict)
    misbehaving: Misbehaving = Misbehaving()
    direct: Share = 0.0
    requests: tuple[RequestSpec, ...] = ()
    """The requests to send; by default `GET /v1/x`."""
    events: tuple[Event, ...] = ()
    thresholds: Thresholds = Thresholds()

    @property
    def warm_up(self) -> float:
        """Seconds at the beginning that are not judged."""
        return sum(step.warm_up or 0.0 for step in self.shape)

    @property
    def kinds(self) -> dict[str, schedule.Kind]:
        """All kinds of requests, tiers first."""
        kinds = {name: schedule.Kind(tier.share, tier.people) for name, tier in self.tiers.items()}
        others = {
            BAD_KEY: schedule.Kind(self.misbehaving.bad_key, 1),
            SLOW_READER: schedule.Kind(self.misbehaving.slow_reader, 1),
            BURST: schedule.Kind(self.misbehaving.burst, BURSTING, AT_ONCE),
            DIRECT: schedule.Kind(self.direct, 1),
        }
        return {name: kind for name, kind in (kinds | others).items() if kind.share > 0}

    @property
    def limits(self) -> dict[str, tuple[int, float]]:
        """By kind, the requests that each customer or address may make, and the window in seconds."""
        limits = {
            name: (tier.limit.count, tier.limit.seconds)
            for name, tier in self.tiers.items()
            if tier.limit is not None and tier.burst_credits is None
        }
        if limits and self.misbehaving.burst:
            limits[BURST] = next(iter(limits.values()))
        return limits

    def phases(self, lines: Mapping[Path, list[str]] | None = None) -> list[schedule.Phase | schedule.Recorded]:
        """Return the shape as phases. `lines` are the lines of replayed logs; logs missing there are read from disk."""
        made: list[schedule.Phase | schedule.Recorded] = []
        for step in self.shape:
            if step.steady is not None:
                made.append(schedule.Phase(step.lasts or 0.0, per_second(step.steady), per_second(step.steady)))
            elif step.ramp is not None:
                begin, end = per_second(step.ramp.begin), per_second(step.ramp.to)
                made.append(schedule.Phase(step.lasts or 0.0, begin, end))
            elif step.spike is not None:
                rate = per_second(step.spike.to)
                made.append(schedule.Phase(step.spike.lasts, rate, rate))
            elif step.replay is not None:
                log = step.replay.log
                its = (lines or {}).get(log) or replay.read(log)
                terms = {"speed": step.replay.speed, "longest_gap": step.replay.longest_gap}
                made.append(replay.recorded(its, self.seed, paths=step.replay.paths, **terms))
        if self.warm_up:
            first = made[0]
            rate = first.rate if isinstance(first, schedule.Phase) else len(first.requests) / first.seconds
            made.insert(0, schedule.Phase(self.warm_up, rate, rate))
        return made

    def templates(self) -> list[Template]:
        """Return the templates that replace the usual request. Raises OSError."""
        return fetch_templates(self.requests)

    def request_names(self, phases: Iterable[schedule.Phase | schedule.Recorded]) -> list[str]:
        """Return the names that reports use for requests other than the usual one, in a stable order."""
        paths = (
            (method, path)
            for phase in phases
            if isinstance(phase, schedule.Recorded)
            for _, _, method, _, path in phase.requests
            if path
        )
        return list_names(self.templates(), paths)

    def without_direct(self) -> "Workload":
        """Return a copy without the control, whose share goes to the tiers, for an upstream that cannot be reached
        directly.
        """
        part = 1 - self.direct
        tiers = {name: tier.model_copy(update={"share": tier.share / part}) for name, tier in self.tiers.items()}
        return self.model_copy(update={"direct": 0.0, "tiers": tiers})

    def scaled(self, seconds: float) -> "Workload":
        """Return a copy whose judged time is this many seconds. A replay speeds up accordingly."""
        factor = seconds / (schedule.length(self.phases()) - self.warm_up)

        def scale(step: Step) -> Step:
            change: dict[str, Any] = {}
            if step.lasts is not None:
                change["lasts"] = step.lasts * factor
            if step.spike is not None:
                change["spike"] = step.spike.model_copy(update={"lasts": step.spike.lasts * factor})
            if step.replay is not None:
                its = {"speed": step.replay.speed / factor, "longest_gap": step.replay.longest_gap * factor}
                change["replay"] = step.replay.model_copy(update=its)
            return step.model_copy(update=change)

        return self.model_copy(update={"shape": tuple(map(scale, self.shape))})

    def at_rate(self, rate: float) -> "Workload":
        """Return a copy whose first rate is this many requests per second. All other rates change by the factor of the
        first.
        """
        first = self.phases()[0]
        factor = rate / (first.rate if isinstance(first, schedule.Phase) else len(first.requests) / first.seconds)

        def faster(one: units.Rate) -> units.Rate:
            return units.Rate(one.count, one.seconds / factor)

        def scale(step: Step) -> Step:
            change: dict[str, Any] = {}
            if step.steady is not None:
                change["steady"] = faster(step.steady)
            if step.ramp is not None:
                change["ramp"] = step.ramp.model_copy(
                    update={"begin": faster(step.ramp.begin), "to": faster(step.ramp.to)}
                )
            if step.spike is not None:
                change["spike"] = step.spike.model_copy(update={"to": faster(step.spike.to)})
            return step.model_copy(update=change)

        return self.model_copy(update={"shape": tuple(map(scale, self.shape))})


def per_second(rate: units.Rate) -> float:
    """Return requests per second."""
    return rate.count / rate.seconds


def load(path: Path, environ: Mapping[str, str]) -> Workload:
    """Load a workload file. Raises ConfigError with every problem."""
    source = Source(path, environ)
    written = Check(source, KIND, files=False).run()
    problems = list(source.problems)
    if written is not None:
        for field, file in list_missing_files(written.requests):
            problems.append(
                Problem(str(path), 1, field, f"{file} is not there", "name a file, relative to where you are")
            )
        for index, step in enumerate(written.shape):
            if step.replay is not None and not step.replay.log.is_file():
                what, hint = f"{step.replay.log} is not there", "name an access log, relative to where this is started"
                problems.append(Problem(str(path), 1, f"shape.{index}.replay.log", what, hint))
    if problems or written is None:
        raise ConfigError(problems)
    return written


# ---- rules across sections


def faults(tree: Table) -> Iterator[Fault]:
    """Yield the faults that concern more than one section."""
    yield from _missing((), tree, ("shape", "tiers"))
    for path, step in list_members(tree, "shape"):
        for name, fields in (("ramp", ("from", "to")), ("spike", ("to", "for")), ("replay", ("log",))):
            yield from _missing((*path, name), step.get(name), fields)
    for path, tier in list_members(tree, "tiers"):
        yield from _missing(path, tier, ("share",))
        yield from _missing((*path, "burst_credits"), tier.get("burst_credits"), ("earn", "max"))
    for path, event in list_members(tree, "events"):
        yield from _missing(path, event, ("at", "for"))
    yield from _faults_of_shape(tree)
    yield from _faults_of_shares(tree)
    yield from _faults_of_tiers(tree)
    yield from _faults_of_events(tree)
    yield from find_request_faults(tree, _whole)


REQUIRED = {
    "shape": "shape: [{warm_up: 5s}, {steady: 600/s, for: 3min}]",
    "tiers": "tiers: {basic: {share: 100%, customers: 10, limit: 60/min}}",
    "from": "from: 100/s",
    "to": "to: 600/s",
    "for": "for: 20%, of the time that is judged; a spike's is a time such as 5s",
    "at": "at: 40%, of the time that is judged",
    "log": "log: access.log.gz",
    "share": "share: 30%",
    "earn": "earn: 10/s",
    "max": "max: 600",
}
"""Required fields, each with an example."""


def _missing(path: Steps, part: object, fields: tuple[str, ...]) -> Iterator[Fault]:
    if isinstance(part, Table):
        for field in fields:
            if field not in part:
                yield Fault(path, f"{field} is missing", f"write {REQUIRED[field]}")


SHAPES = ("warm_up", "steady", "ramp", "spike", "replay")


def _faults_of_shape(tree: Table) -> Iterator[Fault]:
    judged = False
    for path, step in list_members(tree, "shape"):
        given = [name for name in SHAPES if name in step]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "has no rate"
            yield Fault(path, what, f"write exactly one of {', '.join(SHAPES)}")
        elif given[0] in ("steady", "ramp") and "for" not in step:
            yield Fault(path, f"{given[0]} has no end", f"write for: 3min beside {given[0]}")
        elif given[0] not in ("steady", "ramp") and "for" in step:
            yield Fault((*path, "for"), f"is not for {given[0]}", "leave it out")
        if given == ["warm_up"] and judged:
            yield Fault(path, "comes after what is judged", "write warm_up first")
        judged = judged or given != ["warm_up"]
    if isinstance(tree.get("shape"), Items) and not judged:
        yield Fault(("shape",), "has nothing that is judged", "write {steady: 600/s, for: 3min} in it")


def _percent(value: object) -> float | None:
    """Return a share in percent; None if it is invalid, because the model reports that."""
    try:
        return 0.0 if value is None else 100 * read_share(value)
    except PydanticCustomError:
        return None


def _faults_of_shares(tree: Table) -> Iterator[Fault]:
    """Yield a fault if shares of a whole do not make 100 %."""
    regions = tree.get("regions")
    if isinstance(regions, Table):
        yield from _whole(("regions",), regions.values())
    tiers, misbehaving = tree.get("tiers"), tree.get("misbehaving")
    if isinstance(tiers, Table):
        its = [tier.get("share") for tier in tiers.values() if isinstance(tier, Table)]
        others = list(misbehaving.values()) if isinstance(misbehaving, Table) else []
        yield from _whole(("tiers",), [*its, *others, tree.get("direct")], " with misbehaving and direct")


def _whole(path: tuple[str, ...], shares: Any, also: str = "") -> Iterator[Fault]:
    read = [_percent(share) for share in shares]
    known = [share for share in read if share is not None]
    if len(known) == len(read) and abs(sum(known) - 100) > 1e-6:
        yield Fault(path, f"makes {sum(known):g}%{also}", "let the shares make 100%")


def _faults_of_tiers(tree: Table) -> Iterator[Fault]:
    for path, tier in list_members(tree, "tiers"):
        if path[1] in (BAD_KEY, SLOW_READER, BURST, DIRECT):
            yield Fault(path, "is the name of another kind of requests", "call the tier something else")
        if ("customers" in tier) == ("addresses" in tier):
            what = "has customers and addresses" if "customers" in tier else "comes from nobody"
            yield Fault(path, what, "write customers: 10, or addresses: 20 for requests without a key")


def _faults_of_events(tree: Table) -> Iterator[Fault]:
    regions = tree.get("regions")
    names = list(regions) if isinstance(regions, Table) else ["eu-west"]
    for path, event in list_members(tree, "events"):
        given = [name for name in ("lose", "cut", "slow") if name in event]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "is nothing that happens"
            yield Fault(path, what, "write exactly one of lose: REGION, cut: hub, slow: upstream")
        lost = event.get("lose")
        if isinstance(lost, str) and lost not in names:
            yield Fault(
                (*path, "lose"), f"there is no region {lost}", format_suggestion(lost, names, "define it in regions")
            )
        elif lost is not None and len(names) < 2:
            yield Fault((*path, "lose"), "is the only region", "define others, to which its clients can go")
        ends = [_percent(event.get("at")), _percent(event.get("for"))]
        if None not in ends and sum(end or 0.0 for end in ends) > 100:
            yield Fault((*path, "for"), "goes on after the end", "let at and for make 100% at most")


KIND = Kind(Workload, faults)
"""The model and the cross-section rules, for the edge's configuration checks."""
