"""The report of a soak, in Markdown."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from loadtest.soak.account import HOW
from loadtest.soak.fault import FaultKind
from loadtest.soak.kinds import KINDS
from loadtest.soak.verdict import DESCRIPTORS, MEMORY, Outcome
from loadtest.soak.watch import EXEMPT, trend


def report(outcome: Outcome) -> str:
    """Return the whole report."""
    complaints, last = outcome.complaints(), outcome.sums[-1]
    parts = [
        f"Seed {outcome.seed}, {outcome.seconds:.0f} s of load. "
        + ("Everything held." if not complaints else f"{len(complaints)} complaints."),
        *[f"- {complaint}" for complaint in complaints[:20]],
        "",
        "### Traffic and sums",
        "",
        sums(outcome),
        "",
        "answered ≤ counted ≤ answered + lost, counted ≤ given ≤ answered + lost (+ sent again, for what may be), and "
        f"counted = batches = ledger. The edge sent {last.retries:.0f} requests again. `/metrics` and `/usage` say "
        f"{last.metered:.0f}, the batches {sum(last.sealed.values())}, the ledger {sum(last.ledger.values())}. So it "
        f"was at each of {len(outcome.sums)} moments at which nothing was sent.",
        "",
        *[f"- `{command}`: {said.strip()}" for command, (_, said) in last.verdicts.items()],
        "",
        "### What was done",
        "",
        format_faults(outcome),
        "",
        table(["what became of a request to the collector", "times"], sorted(outcome.met.items())),
        "",
        "### What clients noticed",
        "",
        troubles(outcome),
        "",
        "### Counters",
        "",
        f"{outcome.watch.series} series, {outcome.watch.readings} looks, {len(outcome.watch.falls)} falls. Exempt, as "
        f"they begin anew with each supervisor: {', '.join(sorted(EXEMPT))}.",
        "",
        "### Memory and descriptors",
        "",
        held(outcome),
        "",
        "While processes lived on (reloads and lost endpoints only), by a line through all that was seen. A process "
        f"may grow by {MEMORY >> 10} MiB, and all of a kind by {DESCRIPTORS} descriptors that are no connections:",
        "",
        calm(outcome),
        "",
    ]
    return "\n".join(parts)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def sums(outcome: Outcome) -> str:
    """A line for each kind of traffic."""
    account, last = outcome.account, outcome.sums[-1]
    heads = [
        "traffic",
        "asked",
        "connections",
        "whole",
        "refused",
        "lost",
        "unbilled",
        "answered",
        "counted",
        "ledger",
        "given",
    ]
    rows = [
        [
            kind.what,
            *(each[name] for each in (account.asked, account.connections, account.whole, account.refused)),
            account.lost(name),
            account.unbilled[name],
            account.answered[name],
            last.counted.get(name, 0),
            last.ledger.get(name, 0),
            last.given[name],
        ]
        for name, kind in KINDS.items()
    ]
    return table(heads, rows)


def format_faults(outcome: Outcome) -> str:
    """Return the number and durations of each kind of fault."""
    rows = []
    for kind in FaultKind:
        took = [fault.ended - fault.began for fault in outcome.faults if fault.kind is kind]
        if took:
            rows.append([kind, len(took), f"{median(took):.2f}", f"{max(took):.2f}"])
    return table(["fault", "times", "median s", "longest s"], rows)


def troubles(outcome: Outcome) -> str:
    """Return the explained troubles by cause, and the number of unexplained ones."""
    rows = [[kind, how, status, HOW[how], count] for (kind, how, status), count in sorted(outcome.explained().items())]
    rows.append(["no fault", "", "", "unexplained", len(outcome.unexplained())])
    return table(["because of", "how", "status", "which is", "times"], rows)


def held(outcome: Outcome) -> str:
    """Medians over all processes at the beginning, in the middle and at the end."""
    looks = [
        (held.at, outcome.watch.roles[pid], held) for pid, several in outcome.watch.vitals.items() for held in several
    ]
    first, last = min(at for at, _, _ in looks), max(at for at, _, _ in looks)
    counts = Counter(role for role in outcome.watch.roles.values())
    rows = []
    for role in ("worker", "supervisor"):
        for number, third in enumerate(("beginning", "middle", "end")):
            within = [
                held
                for at, whose, held in looks
                if whose == role and int((at - first) / (last - first + 1) * 3) == number
            ]
            memory, descriptors = [each.memory / 1024 for each in within], [each.descriptors for each in within]
            rows.append(
                [
                    *(role, counts[role], third),
                    *(f"{figure(memory):.1f}" for figure in (median, max)),
                    *(f"{figure(descriptors):.0f}" for figure in (median, max)),
                ]
            )
    return table(["process", "of them", "third", "median MiB", "most MiB", "median descriptors", "most"], rows)


def calm(outcome: Outcome) -> str:
    """Return the growth of processes that lived throughout the calm phase."""
    rows = []
    for pid, several in outcome.in_calm().items():
        memory = trend([(held.at, held.memory / 1024) for held in several])
        descriptors = trend([(held.at, held.descriptors) for held in several])
        seconds = several[-1].at - several[0].at
        both = [f"{line.begin:.1f} → {line.end:.1f}" for line in (memory, descriptors)]
        rows.append([outcome.watch.roles[pid], f"{seconds:.0f}", *both])
    lines = [
        f"Of all {role}s together, descriptors that are no connections: {line.begin:.0f} → {line.end:.0f}."
        for role in ("worker", "supervisor")
        if len(several_open := outcome.beside(role)) > 1 and (line := trend(several_open))
    ]
    return "\n".join([table(["process", "s", "MiB", "descriptors"], rows), "", *lines])
