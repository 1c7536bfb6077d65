"""Compute the verdict from the measurements. Pure. If the generator spoilt a run, it is invalid in any case."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan

from loadtest import conservation, limits, record
from loadtest.evidence import (
    FAIL,
    HOME,
    IN_GRACE,
    INVALID,
    JUDGED,
    LAG,
    MEASURED,
    MOVED,
    PASS,
    REFUSED,
    SERVICE,
    TIMED,
    Evidence,
    Finding,
    Key,
    Verdict,
    place,
    total,
)
from loadtest.record import PerSecond, Request, Times
from loadtest.schedule import Arrival
from loadtest.unjudged import list_unjudged
from loadtest.workload import BAD_KEY, BURST, DIRECT

LAG_SHARE = 1 / 8
"""The generator's lag may be this share of a latency threshold, at the threshold's percentile."""
AFTER_CUT = 11.0
"""Seconds that edges keep to their share of a limit after the hub is back, plus a margin."""
MOSTLY = 0.5
"""A share of a region's time: above it, the upstream takes longer than the edge."""


def judge(evidence: Evidence) -> Verdict:
    """Judge a run."""
    found = _measure(evidence)
    invalid = list(_of_generator(evidence, found))
    timed = [*_of_latency(evidence, found), *_of_achieved(evidence, found)]
    silent = (f"p95 {region}: nothing was answered" for region, p95 in found.p95.items() if isnan(p95))
    failed = [*silent, *timed, *_of_errors(evidence, found), *_of_limits(evidence, found)]
    failed += [*_of_promises(evidence), *_of_conservation(evidence), *evidence.trouble]
    if (invalid or timed) and evidence.machine is not None and evidence.machine.is_unfit:
        invalid.append(f"machine: unfit, {evidence.machine}")
    found.findings = [Finding(INVALID, text) for text in invalid] + [Finding(FAIL, text) for text in failed]
    found.unjudged = list(list_unjudged(evidence, found))
    found.verdict = INVALID if invalid else FAIL if failed else PASS
    return found


# ---- what became of each request


def _measure(evidence: Evidence) -> Verdict:
    """Measure all requests in one pass."""
    workload = evidence.workload
    regions, kinds = [*workload.regions], [*workload.kinds]
    histograms: defaultdict[Key, Times] = defaultdict(Times)
    per_region: defaultdict[str, PerSecond] = defaultdict(PerSecond)
    lag, counts = PerSecond(), Counter[str]()
    requests: dict[int, tuple[Times, Counter[int]]] = {}
    length = len(evidence.due)
    series = {name: [0] * length for name in ("started", "answered", "refused", "failed")}
    series["due"] = list(evidence.due)
    for one in record.unpacked(evidence.rows):
        home, kind = regions[one.home], kinds[one.kind]
        what, where = evidence.outcome(one, kind), place(one, home, evidence.losses)
        second = min(int(one.due), length - 1)
        series["started"][second] += 1
        series["answered" if what == "answered" else "refused" if what == "refused" else "failed"][second] += 1
        if one.due < workload.warm_up:
            continue
        counts["started"] += 1
        counts[what if where != IN_GRACE else f"{what} in grace"] += 1
        region = evidence.region_of(home, kind)
        if one.request and kind != DIRECT:
            times, statuses = requests.setdefault(one.request, (Times(), Counter()))
            statuses[one.status] += 1
            if what != "refused":
                times.add(one.response)
        histograms[region, kind, LAG, where].add(one.lag)
        lag.add(one.due, one.lag)
        if what == "refused":
            histograms[region, kind, REFUSED, where].add(one.response)
            continue
        histograms[region, kind, MEASURED[what], where].add(one.response)
        histograms[region, kind, SERVICE, where].add(one.service)
        if where == HOME and kind != BAD_KEY and what != "failed":
            per_region[region].add(one.due, one.response)
    counts["due"] = evidence.due_judged
    return Verdict(PASS, [], {}, dict(histograms), counts, dict(per_region), lag, series, requests=requests)


# ---- thresholds


def ms(seconds: float) -> str:
    """Format milliseconds for findings."""
    return (
        "nothing answered"
        if isnan(seconds)
        else f"{1000 * seconds:.3g} ms"
        if seconds < 0.1
        else f"{1000 * seconds:.0f} ms"
    )


def percent(share: float) -> str:
    """Format a share for findings."""
    return f"{100 * share:.3g} %"


def _of_generator(evidence: Evidence, found: Verdict) -> Iterator[str]:
    """Yield the reasons that make a run invalid."""
    for number, at in evidence.lost_workers:
        yield f"generator: worker {number} was lost, {at:.0f} s after the beginning"
    for name in evidence.missed:
        yield f"events: {name} was planned and did not happen"
    for number in evidence.gave_up:
        yield f"generator: worker {number} was too late to go on"
    threshold = evidence.workload.thresholds.p95 * LAG_SHARE
    by_worker: defaultdict[int, PerSecond] = defaultdict(PerSecond)
    for one in record.unpacked(evidence.rows):
        if one.due >= evidence.workload.warm_up:
            by_worker[one.worker].add(one.due, one.lag)
    for number, lag in sorted(by_worker.items()):
        late = record.quantile(lag.between(0, len(evidence.due)), JUDGED)
        if late > threshold:
            begin, end = lag.above(JUDGED, threshold) or (0, 0)
            yield f"generator: late, p95 {ms(late)}, worker {number}, {begin} s to {end} s"
    due, started = found.counts["due"], found.counts["started"]
    if started < evidence.workload.thresholds.started * due:
        yield f"generator: started {started} of {due} requests, {percent(started / due)}"


def _of_latency(evidence: Evidence, found: Verdict) -> Iterator[str]:
    """Yield findings on the p95 of home clients by region, and of moved clients."""
    thresholds = evidence.workload.thresholds
    for region in evidence.workload.regions:
        p95 = found.p95[region] = total(found.histograms, region, TIMED, HOME).percentile(JUDGED)
        if p95 > thresholds.p95:
            when = _when(found, region, evidence.region_of(region, DIRECT), thresholds.p95)
            yield f"p95 {region} {ms(p95)} > {ms(thresholds.p95)}{when}"
        moved = total(found.histograms, region, TIMED, MOVED).percentile(JUDGED)
        may = thresholds.moved_p95.at(evidence.distance)
        if moved > may:
            yield f"p95 of clients moved from {region} {ms(moved)} > {ms(may)}"


def _when(found: Verdict, region: str, control: str, threshold: float) -> str:
    """Return the seconds with response times above the threshold, and the upstream's own time then."""
    span = found.regions[region].above(JUDGED, threshold)
    if span is None:
        return ""
    said = f", {span[0]} s to {span[1]} s"
    if control in found.regions:
        direct = record.quantile(found.regions[control].between(*span), JUDGED)
        if not isnan(direct):
            here = record.quantile(found.regions[region].between(*span), JUDGED)
            blame = "so" if direct > threshold else "so mostly" if direct > here * MOSTLY else "so not"
            said += f"; {control} {ms(direct)}, {blame} the upstream"
    return said


def _of_errors(evidence: Evidence, found: Verdict) -> Iterator[str]:
    """Yield findings on errors and lost requests."""
    thresholds, counts = evidence.workload.thresholds, found.counts
    due = max(counts["due"], 1)
    errors = counts["failed"] + counts["lost"]
    if errors > thresholds.error_rate * due:
        yield f"error_rate {percent(errors / due)} > {percent(thresholds.error_rate)}: {_statuses(evidence)}"
    if counts["lost"] > thresholds.lost:
        yield f"lost {counts['lost']} > {thresholds.lost}: sent and never answered{_where_lost(evidence)}"


def _of_achieved(evidence: Evidence, found: Verdict) -> Iterator[str]:
    """Yield a finding if too few due requests were answered."""
    thresholds, due = evidence.workload.thresholds, max(found.counts["due"], 1)
    if found.achieved < thresholds.achieved * due:
        yield f"achieved {percent(found.achieved / due)} < {percent(thresholds.achieved)} of what was due was answered"


NO_STATUS = {
    record.UNREACHABLE: "not connected",
    record.BROKEN: "broken off",
    record.TIMED_OUT: "timed out",
    record.UNFINISHED: "unfinished",
}


def _wrong(evidence: Evidence, wanted: Sequence[str]) -> Iterator[tuple[Request, str, str]]:
    """Yield judged requests with these outcomes outside any grace time, with their region and kind."""
    workload = evidence.workload
    regions, kinds = [*workload.regions], [*workload.kinds]
    for one in record.unpacked(evidence.rows):
        home, kind = regions[one.home], kinds[one.kind]
        if one.due < workload.warm_up or place(one, home, evidence.losses) == IN_GRACE:
            continue
        if evidence.outcome(one, kind) in wanted:
            yield one, home, kind


def _statuses(evidence: Evidence) -> str:
    """Return the most frequent errors, with status, kind and region."""
    answer = Counter(
        f"{NO_STATUS.get(one.status, one.status)} {kind} {home}"
        for one, home, kind in _wrong(evidence, ("failed", "lost"))
    )
    return ", ".join(f"{count} × {what}" for what, count in answer.most_common(3))


def _where_lost(evidence: Evidence) -> str:
    found = [(one.due, home) for one, home, _ in _wrong(evidence, ("lost",))]
    regions = sorted({home for _, home in found})
    return f" in {', '.join(regions)}, due {min(found)[0]:.1f} s to {max(found)[0]:.1f} s" if found else ""


def _of_limits(evidence: Evidence, found: Verdict) -> Iterator[str]:
    """Yield findings on limits as clients saw them, and on wrong 429s."""
    workload = evidence.workload
    kinds, hosts = [*workload.kinds], len(workload.regions)
    people: defaultdict[tuple[str, int], limits.CustomerRequests] = defaultdict(
        lambda: limits.CustomerRequests([], [], [])
    )
    asked, regions = Counter[str](), [*workload.regions]
    refused_at: dict[tuple[str, int], list[str]] = defaultdict(list)
    for one in record.unpacked(evidence.rows):
        kind = kinds[one.kind]
        if kind not in workload.limits:
            continue
        asked[kind] += 1
        its = people[kind, one.person]
        if one.status == 429:
            its.refused.append((one.sent, one.end))
            refused_at[kind, one.person].append(regions[one.asked] if one.asked < len(regions) else DIRECT)
        elif one.status >= 100:
            its.admitted.append((one.sent, one.end))
        elif one.status != record.UNREACHABLE:
            its.unsure.append((one.sent, one.end))
    moved = [(loss.begin, loss.end + loss.grace) for loss in evidence.losses]
    false: Counter[str] = Counter()
    falsely_at: defaultdict[str, Counter[str]] = defaultdict(Counter)
    over: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (kind, person), its in sorted(people.items()):
        limit, window = workload.limits[kind]
        wrong = set(limits.find_false_refusals(its, limit, window))
        # While the hub is away a host has its share of a limit, whatever others leave of theirs.
        wrong = {span for span in wrong if not limits.overlaps(span[0] - AFTER_CUT, span[1], evidence.cuts)}
        if not evidence.fresh:
            wrong = {span for span in wrong if span[0] > window * (1 + 1 / limits.CELLS)}
        false[kind] += sum(span in wrong for span in its.refused)
        falsely_at[kind].update(
            at for at, span in zip(refused_at[kind, person], its.refused, strict=True) if span in wrong
        )
        worst = limits.find_worst_window(
            its,
            limit,
            window,
            hosts,
            seconds=evidence.seconds,
            share=workload.thresholds.limit_error,
            bursts=kind == BURST,
            moved=moved,
            cut=evidence.cuts,
        )
        if worst is not None:
            name = f"{kind}-{person}"
            found.worst[name] = worst
            if worst.admitted > worst.accepted:
                text = f"{name} {worst.admitted} of {limit}, {worst.accepted:g} may, from {worst.begin:.1f} s on"
                over[kind].append((worst.excess, text))
    for kind, several in over.items():
        yield f"limit_error {max(several)[1]}; {len(several)} {kind} customers above what is accepted"
    for kind, count in asked.items():
        found.false_429[kind] = false[kind], count
        if false[kind] > max(1, workload.thresholds.false_429 * count):
            where = ", ".join(f"{number} in {region}" for region, number in falsely_at[kind].most_common())
            share, may = percent(false[kind] / count), percent(workload.thresholds.false_429)
            yield f"false_429 {kind} {share} > {may} were refused although there was room: {where}"


def _of_conservation(evidence: Evidence) -> Iterator[str]:
    if evidence.accounts is None or not evidence.workload.thresholds.conserved:
        return
    rows = list(conservation.breaches(evidence.accounts))
    if rows:
        answered, ledger, upstream = conservation.totals(evidence.accounts)
        most = max(rows, key=lambda row: abs(row.answered - row.ledger) + abs(row.upstream - row.ledger))
        yield (
            f"conserved: {len(rows)} customers differ, such as {most.customer}: {most.why}; "
            f"answered {answered}, ledger {ledger}, upstream {upstream}"
        )


def _of_promises(evidence: Evidence) -> Iterator[str]:
    """Yield the limits whose values differ between an edge and the workload."""
    for (region, tier), said in sorted(evidence.promised.items()):
        limit, window = evidence.workload.limits[tier]
        yield f"limit {tier} {region}: the edge says {said}, the workload {limit} in {window:g} s"


def accounted(evidence: Evidence, names: Mapping[str, str]) -> tuple[Counter[str], Counter[str]]:
    """Count billable answers that clients got, and requests sent without an answer, by customer.

    `names` holds the kinds that always have one customer.
    """
    answered: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    kinds = [*evidence.workload.kinds]
    for one in record.unpacked(evidence.rows):
        kind = kinds[one.kind]
        if kind in (DIRECT, BAD_KEY):
            continue
        name = names.get(kind) or f"{kind}-{one.person}"
        if 200 <= one.status < 400:
            answered[name] += 1
        elif record.UNREACHABLE < one.status < 100:
            unanswered[name] += 1
    return answered, unanswered


def due_by_second(schedule: Iterable[Arrival], warm_up: float) -> tuple[list[int], int]:
    """Return arrivals by the second of their due time, and the number of judged arrivals."""
    seconds: Counter[int] = Counter()
    judged = 0
    for arrival in schedule:
        seconds[int(arrival.due)] += 1
        judged += arrival.due >= warm_up
    return [seconds[second] for second in range(max(seconds, default=0) + 1)], judged
