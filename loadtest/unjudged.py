"""Limits of a pass: thresholds that a run does not judge, or judges only in part. Pure."""

from collections.abc import Iterator

from loadtest import limits
from loadtest.evidence import MOVED, REFUSED, Evidence, Unjudged, Verdict


def list_unjudged(evidence: Evidence, found: Verdict) -> Iterator[Unjudged]:
    """Yield the thresholds that a pass of this run does not cover."""
    workload = evidence.workload
    if evidence.accounts is None:
        yield Unjudged("conserved", "the ledger of these edges is not read")
    elif not workload.thresholds.conserved:
        yield Unjudged("conserved", "the workload switches it off")
    if not any(place == MOVED for *_, place in found.histograms):
        why = "no region of somebody else's is lost" if evidence.outside else "no region was lost"
        yield Unjudged("moved_p95", why)
    if not workload.limits:
        yield Unjudged("limit_error", "no tier has a limit")
        yield Unjudged("false_429", "no tier has a limit")
        return
    yield from _list_unjudged_limits(evidence, found)
    if not evidence.fresh:
        first = {kind: window * (1 + 1 / limits.CELLS) for kind, (_, window) in workload.limits.items()}
        short = [kind for kind, seconds in first.items() if seconds >= evidence.seconds]
        why = "refusals in the first window, as these customers may have made requests before (--unused: they have not)"
        if short:
            whole = len(short) == len(first)
            yield Unjudged(
                "false_429" if whole else f"false_429 of {', '.join(short)}", f"{why}; it is all there was", whole
            )
        if len(short) < len(first):
            yield Unjudged("false_429", why, whole=False)


def _list_unjudged_limits(evidence: Evidence, found: Verdict) -> Iterator[Unjudged]:
    """Yield limits that no customer reached, so that no excess was possible, and limits that are no number."""
    workload = evidence.workload
    reached = {name.rpartition("-")[0] for name, worst in found.worst.items()
               if worst.admitted >= workload.limits[name.rpartition("-")[0]][0]}  # fmt: skip
    reached |= {kind for _, kind, what, _ in found.histograms if what == REFUSED}
    unreached = [kind for kind in workload.limits if kind not in reached]
    whole = len(unreached) == len(workload.limits)
    if unreached:
        of = "" if whole else f" of {', '.join(unreached)}"
        yield Unjudged(f"limit_error{of}", "nobody asked for more than the limit", whole)
    credited = [name for name, tier in workload.tiers.items() if tier.burst_credits is not None]
    if credited:
        yield Unjudged(f"limit_error of {', '.join(credited)}", "burst credits are no limit of a window", whole=False)
