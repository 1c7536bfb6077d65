"""A run as figures: figures.json, and a histogram log for each region, kind and place."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from math import isnan
from pathlib import Path
from typing import Any

import orjson

from loadtest import conservation, record
from loadtest.compare import BLOCK
from loadtest.evidence import HOME, LAG, MOVED, REFUSED, RESPONSE, SERVICE, TIMED, Evidence, Verdict, place, total
from loadtest.measured import list_measured
from loadtest.record import Times
from loadtest.workload import DIRECT, Workload

FORMAT = 1
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


def workload_of(workload: Workload) -> dict[str, Any]:
    """A workload as JSON has it, alike for alike ones."""
    body: dict[str, Any] = orjson.loads(orjson.dumps(workload.model_dump(mode="json", by_alias=True)))
    return body


def number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if isnan(value) else round(value, 3)


def percentiles(times: Times) -> dict[str, float | None]:
    """In milliseconds."""
    return {f"p{p:g}": number(1000 * times.percentile(p)) for p in PERCENTILES}


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {name: metadata.version(name) for name in ("edgeproxy", "locust", "gevent", "geventhttpclient")}
    return found | {"python": platform.python_version(), "kernel": platform.release(), "cores": str(os.cpu_count())}


def latency(evidence: Evidence, verdict: Verdict) -> list[dict[str, Any]]:
    """Home and moved clients by region and kind: response and service time, and the histogram of the first."""
    blocks = _blocks(evidence)
    rows = []
    for region, kind, where in sorted({(key[0], key[1], key[3]) for key in verdict.histograms}):

        def all_of(what: tuple[str, ...], its: tuple[str, str, str] = (region, kind, where)) -> Times:
            merged = Times()
            for one in what:
                if times := verdict.histograms.get((its[0], its[1], one, its[2])):
                    merged.merge(times)
            return merged

        response = all_of(TIMED)
        if where not in (HOME, MOVED) or not response.count:
            continue
        rows.append({
            "region": region, "tier": kind, "place": where, "requests": response.count,
            "refused": all_of((REFUSED,)).count, "response_ms": percentiles(response),
            "service_ms": percentiles(all_of((SERVICE,))), "histogram": response.encoded(),
            "blocks_p95_ms": blocks.get((region, kind), []) if where == HOME else [],
        })  # fmt: skip
    return rows


def by_region(evidence: Evidence, verdict: Verdict) -> list[dict[str, Any]]:
    """Response times of each region: at home, moved, and of its upstream itself, beside the accepted ones."""
    thresholds = evidence.workload.thresholds
    rows: list[dict[str, Any]] = []
    moved = 1000 * thresholds.moved_p95.at(evidence.distance)
    controls = dict.fromkeys(evidence.region_of(region, DIRECT) for region in evidence.workload.regions)
    for name, region, where, accepted in (
        *((region, region, HOME, 1000 * thresholds.p95) for region in evidence.workload.regions),
        *((f"{region}, moved", region, MOVED, moved) for region in evidence.workload.regions),
        *((control, control, HOME, None) for control in controls),
    ):
        times = total(verdict.histograms, region, TIMED, where)
        if times.count:
            rows.append({"name": name, "requests": times.count, "accepted_p95_ms": accepted, **percentiles(times)})
    return rows


def _blocks(evidence: Evidence) -> dict[tuple[str, str], list[float]]:
    """p95 of each block of 5 s, of home clients by region and kind."""
    regions, kinds = [*evidence.workload.regions], [*evidence.workload.kinds]
    times: dict[tuple[str, str], dict[int, list[float]]] = {}
    for one in record.unpacked(evidence.rows):
        home, kind = regions[one.home], kinds[one.kind]
        if one.due < evidence.workload.warm_up or place(one, home, evidence.losses) != HOME:
            continue
        if evidence.outcome(one, kind) == "answered":
            key = evidence.region_of(home, kind), kind
            block = int((one.due - evidence.workload.warm_up) // BLOCK)
            times.setdefault(key, {}).setdefault(block, []).append(one.response)
    return {
        key: [round(1000 * record.quantile(found, 95), 3) for _, found in sorted(by_block.items())]
        for key, by_block in times.items()
    }


def series(evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """By second."""
    seconds = range(len(evidence.due))
    found: dict[str, Any] = dict(verdict.series)
    for name, times in sorted(verdict.regions.items()):
        for p in (50.0, 95.0):
            found[f"{name} p{p:g}"] = [number(1000 * times.percentile(second, p)) for second in seconds]
    found["lag p95"] = [number(1000 * verdict.lag.percentile(second, 95)) for second in seconds]
    return found


def of(run: Any, evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """All figures of a run."""
    accounts, p95 = evidence.accounts, max(verdict.p95.values(), default=float("nan"))
    workers = run.told.get("workers", {})
    return {
        "format": FORMAT,
        "verdict": verdict.verdict,
        "findings": [str(finding) for finding in verdict.findings],
        "not_judged": [one._asdict() for one in verdict.unjudged],
        "measured": [{**one._asdict(), "state": one.state} for one in list_measured(evidence, verdict)],
        "by_region": by_region(evidence, verdict),
        "requests": [
            {"name": evidence.names[number - 1], "requests": times.count, "response_ms": percentiles(times),
             "statuses": dict(sorted(statuses.items()))}
            for number, (times, statuses) in sorted(verdict.requests.items())
        ],
        "machine": None if evidence.machine is None else evidence.machine._asdict(),
        "p95_ms": number(1000 * p95),
        "p95_by_region_ms": {region: number(1000 * value) for region, value in verdict.p95.items()},
        "workload": workload_of(evidence.workload),
        "begin": run.begin,
        "seconds": evidence.seconds,
        "injected": run.given.inject,
        "versions": versions(),
        "counts": dict(verdict.counts),
        "latency": latency(evidence, verdict),
        "lag_ms": percentiles(total(verdict.histograms, None, (LAG,))),
        "generator": {
            number_: {"cpu_share": round(worker["cpu"] / max(evidence.seconds, 1), 4),
                      "without_cpu_share": round(worker["ready"] / max(evidence.seconds, 1), 4)}
            for number_, worker in workers.items()
        },
        "series": series(evidence, verdict),
        "samples": run.samples,
        "events": [{"name": name, "at": round(at, 3), "until": round(end, 3)} for name, at, end in run.done],
        "limits": [
            {"customer": name, "limit": evidence.workload.limits[name.rpartition("-")[0]][0], "admitted": one.admitted,
             "accepted": one.accepted, "begin": round(one.begin, 3)}
            for name, one in sorted(verdict.worst.items())
        ],
        "false_429": {kind: {"refused": wrong, "asked": asked} for kind, (wrong, asked) in verdict.false_429.items()},
        "conservation": None if accounts is None else conserved(accounts),
    }  # fmt: skip


def conserved(accounts: conservation.Accounts) -> dict[str, Any]:
    """Totals, and each customer's three numbers."""
    answered, ledger, upstream = conservation.totals(accounts)
    customers = sorted({*accounts.answered, *accounts.ledger, *accounts.upstream})
    rows = [
        [name, accounts.answered.get(name, 0), accounts.ledger.get(name, 0), accounts.upstream.get(name, 0),
         accounts.unanswered.get(name, 0)]
        for name in customers
    ]  # fmt: skip
    breaches = [row._asdict() for row in conservation.breaches(accounts)]
    return {"answered": answered, "ledger": ledger, "upstream": upstream, "rows": rows, "breaches": breaches}


def write(folder: Path, told: Mapping[str, Any], verdict: Verdict, begin: float, seconds: float) -> None:
    """Write figures.json and the histograms."""
    (folder / "histograms").mkdir(exist_ok=True)
    (folder / "figures.json").write_bytes(orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS))
    for (region, kind, what, where), times in verdict.histograms.items():
        if what in (RESPONSE, REFUSED):
            name = f"{region}-{kind}-{what}-{where}.hdr"
            record.write_hdr(folder / "histograms" / name, times, begin, seconds, f"{region} {kind} {what} {where}")
