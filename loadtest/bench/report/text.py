"""The report on standard output."""

from statistics import median

from loadtest.bench.measure.crowd import parse_crowd
from loadtest.bench.measure.flood import CUSTOMERS, FLOODS, LOADS, QUANTILES
from loadtest.bench.measure.latency import against, undisturbed
from loadtest.bench.peers import REFERENCE
from loadtest.bench.peers.edge import Edge
from loadtest.bench.report.budgets import verdicts
from loadtest.bench.report.comparison import TOLERANCE, compare
from loadtest.bench.report.http2 import format_costs
from loadtest.bench.report.results import Results
from loadtest.bench.report.summary import Cost, costs
from loadtest.bench.report.table import table


def text(results: Results) -> str:
    """All that was found, in Markdown."""
    sections = (
        _head,
        _cpu,
        _many,
        _wrong,
        _workers,
        _comparison,
        _instructions,
        _latency,
        _memory,
        _crowd_memory,
        _tls,
        _http2,
        _floods,
        _decisions,
        _policies,
        _budgets,
    )
    parts = [section(results) for section in sections]
    return "\n\n".join(part for part in parts if part)


def _head(results: Results) -> str:
    machine, options = results.machine, results.options
    lines = [
        f"{machine.cpu}, {machine.cores} cores, Linux {machine.kernel}, load {machine.load} at the start",
        f"{results.python}",
        f"configured with: {results.python.configured or 'unknown'}",
        f"{machine.wrk}; {machine.nginx}",
        f"{options.rounds} rounds of {options.seconds} s, {options.connections} connections,"
        f" proxy on core {options.proxy_core}, load and upstream on core {options.load_core}",
        *(f"{name}: {version}" for name, version in results.versions.items()),
        *(f"left out: {name}: {why}" for name, why in results.left_out.items()),
    ]
    return "\n".join(lines)


def _cpu(results: Results) -> str:
    slices = [each for each in results.slices if parse_crowd(each.scenario) is None]
    found = {(each.peer, each.scenario): each for each in costs(slices, REFERENCE)}
    if not found:
        return ""
    scenarios = list(dict.fromkeys(scenario for _, scenario in found))
    rows = [["µs", *scenarios]]
    for peer in dict.fromkeys(peer for peer, _ in found):
        rows.append([peer, *(_cost(found.get((peer, scenario))) for scenario in scenarios)])
    apart = [each.control for each in found.values() if each.peer == Edge.name]
    lines = [
        f"CPU a request: median (best) ratio to {REFERENCE} in the same round",
        table(rows),
        f"{sum(each.slices for each in found.values())} slices:"
        f" {sum(each.disturbed for each in found.values())} shared their core with others,"
        f" {sum(each.idle for each in found.values())} were not kept busy by the load.",
    ]
    if apart:
        lines.append(f"The supervisor of {Edge.name}, not in the table: {median(apart):.2f} µs a request.")
    return "\n".join(lines)


def _many(results: Results) -> str:
    by_peer = {
        (each.peer, each.scenario): each
        for each in costs(results.slices, REFERENCE)
        if parse_crowd(each.scenario) is not None
    }
    if not by_peer:
        return ""
    peers = list(dict.fromkeys(peer for peer, _ in by_peer))
    rows = [["µs", *peers]]
    for scenario in dict.fromkeys(scenario for _, scenario in by_peer):
        rows.append([scenario, *(_cost(by_peer.get((peer, scenario))) for peer in peers)])
    disturbed = sum(each.disturbed for each in by_peer.values())
    return "\n".join(
        (
            f"CPU a request of many customers: median (best) ratio to {REFERENCE} in the same round",
            table(rows),
            f"{sum(each.slices for each in by_peer.values())} slices: {disturbed} shared their core with others.",
        )
    )


def _wrong(results: Results) -> str:
    return "\n".join(f"wrong: round {s.round}, {s.peer}, {s.scenario}: {s.wrong}" for s in results.slices if s.wrong)


def _workers(results: Results) -> str:
    if not results.workers:
        return ""
    rows = [["workers", *map(str, next(iter(results.workers.values())))]]
    rows += [[scenario, *(f"{count:,}" for count in by.values())] for scenario, by in results.workers.items()]
    return f"Instructions of an exchange by number of workers\n{table(rows)}"


def _comparison(results: Results) -> str:
    if results.options.against is None:
        return ""
    other = f"{Edge.name}@{results.options.against}"
    rows = [["CPU", "", "this / other", "95 % interval", "rounds", ""]]
    for each in compare(results.slices, Edge.name, other):
        interval = f"{each.low:.3f} to {each.high:.3f}"
        rows.append([each.scenario, each.part, f"{each.ratio:.3f}", interval, str(each.rounds), each.verdict])
    if len(rows) == 1:
        return f"This version beside {other}: too noisy to tell, each slice of one of them shared its core with others."
    return f"This version beside {other}, in the same rounds; a change below {TOLERANCE:.0%} is none\n{table(rows)}"


def _instructions(results: Results) -> str:
    if not results.instructions:
        return ""
    counts = {(each.peer, each.scenario): each.count for each in results.instructions}
    versions = list(dict.fromkeys(each.peer for each in results.instructions))
    rows = [["", *versions, *(["this / other"] if len(versions) > 1 else [])]]
    for scenario in dict.fromkeys(each.scenario for each in results.instructions):
        known = [counts.get((version, scenario)) for version in versions]
        row = [scenario, *("–" if count is None else f"{count:,}" for count in known)]
        rows.append([*row, f"{known[0] / known[1]:.3f}"] if len(known) > 1 and known[0] and known[1] else row)
    return f"Instructions of an exchange, without system calls and uvloop\n{table(rows)}"


def _floods(results: Results) -> str:
    if not results.floods:
        return ""
    kinds = (f"{kind}: flood, beside" for kind in FLOODS)
    rows = [["peer", "round", "alone", *kinds, "to alone", "to wrong", *(f"{load}, ms" for load in LOADS)]]
    for each in results.floods:
        figures = [f"{each.flood[kind]:.1f}, {each.beside[kind]:.1f}" for kind in FLOODS]
        quantiles = [", ".join(f"{each.latencies[load][quantile]:.2f}" for quantile in QUANTILES) for load in LOADS]
        ratios = (f"{ratio:.3f}" for ratio in (each.to_alone, each.to_wrong))
        rows.append([each.peer, str(each.round), f"{each.alone:.1f}", *figures, *ratios, *quantiles])
    lines = [
        f"{CUSTOMERS:,} customers beside floods of invented keys and of one wrong key: µs of CPU a request, and",
        f"{', '.join(QUANTILES)} of regular requests beside as many of a flood",
        table(rows),
        *(f"{scenario}: {count:,} instructions" for scenario, count in results.flood_instructions.items()),
    ]
    return "\n".join(lines)


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return "–"
    ratio = "" if cost.ratio is None else f" {cost.ratio:.2f}"
    return f"{cost.median:.1f} ({cost.best:.1f}){ratio}"


def _latency(results: Results) -> str:
    if not results.latencies:
        return ""
    quantiles = ("p50", "p99")
    kinds = ("direct ", "", "added ", "× ")
    rows = [["ms", "requests/s", "busy", "waited", *(f"{kind}{q}" for kind in kinds for q in quantiles)]]
    for peer in dict.fromkeys(each.peer for each in results.latencies):
        own = undisturbed(results.latencies, peer)
        rows.append(
            [
                peer,
                f"{median(each.rate for each in own):.0f}",
                f"{median(each.busy for each in own):.0%}",
                f"{median(each.waited for each in own):.1%}",
                *(f"{median(each.direct[q] for each in own):.3f}" for q in quantiles),
                *(f"{median(each.through[q] for each in own):.3f}" for q in quantiles),
                *(f"{median(each.added(q) for each in own):.3f}" for q in quantiles),
                *(_times(against(results.latencies, peer, REFERENCE, q)) for q in quantiles),
            ]
        )
    heading = "Latency at half of each one's own capacity, open loop, from the moment a request was due"
    lines = [f"{heading}; × {REFERENCE} in the same round", table(rows)]
    disturbed = [each.peer for each in results.latencies if each.disturbed]
    if disturbed:
        lines.append(
            f"{len(disturbed)} of {len(results.latencies)} were disturbed ({', '.join(dict.fromkeys(disturbed))});"
            " p99 is of use only where a round was not, and then it is that round's."
        )
    return "\n".join(lines)


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _memory(results: Results) -> str:
    if not results.memory:
        return ""
    rows = [["memory", "RSS MiB", "PSS MiB", "private MiB", "KiB/connection", "control RSS MiB"]]
    for each in results.memory:
        sizes = (each.idle.rss, each.idle.pss, each.idle.private)
        rows.append(
            [
                each.peer,
                *(f"{size / 2**20:.1f}" for size in sizes),
                f"{each.connection / 2**10:.1f}",
                f"{each.control.rss / 2**20:.1f}" if each.control.rss else "–",
            ]
        )
    return f"Memory of what serves, idle, and for each idle connection\n{table(rows)}"


def _crowd_memory(results: Results) -> str:
    if not results.crowd_memory:
        return ""
    rows = [["customers", "peer", "serving: RSS, PSS, private MiB", "control", "together: RSS, PSS"]]
    for each in results.crowd_memory:
        sizes = [
            ", ".join(f"{size / 2**20:.1f}" for size in (of.rss, of.pss, of.private))
            for of in (each.serving, each.control)
        ]
        together = f"{each.together.rss / 2**20:.1f}, {each.together.pss / 2**20:.1f}"
        rows.append([f"{each.customers:,}", each.peer, *sizes, together])
    return f"Memory once each customer has sent a request\n{table(rows)}"


def _tls(results: Results) -> str:
    if not results.tls:
        return ""
    relayed = list(dict.fromkeys(name for each in results.tls for name in each.relay))
    rows = [["TLS 1.3", "full", "resumed", "KiB/connection", *(f"{name}: TLS (plain)" for name in relayed)]]
    for each in results.tls:
        rows.append(
            [
                f"{each.peer}, {each.certificate}",
                f"{each.full:.0f}",
                f"{each.resumed:.0f}",
                f"{each.connection / 2**10:.1f}" if each.connection else "–",
                *("{:.1f} ({:.1f})".format(*each.relay[name]) if name in each.relay else "–" for name in relayed),
            ]
        )
    what = "CPU in µs: a connection with a handshake, one request and its end; then a request of a kept one"
    return f"{what}\n{table(rows)}"


def _http2(results: Results) -> str:
    return format_costs(results.http2)


def _decisions(results: Results) -> str:
    if not results.decisions:
        return ""
    rows = [["decision", "µs"], *([each.what, f"{each.microseconds:.2f}"] for each in results.decisions)]
    return f"Limit decisions, in this process\n{table(rows)}"


def _policies(results: Results) -> str:
    if not results.policies:
        return ""
    rows = [["CPU µs", "alone", "in turns", "refused", "new cell", "new subject"]]
    for each in results.policies:
        figures = (each.alone, each.turns, each.refused, each.new_cell, each.stranger)
        rows.append([each.what, *("–" if figure is None else f"{figure:.2f}" for figure in figures)])
    return f"Policies by kind: check, charge and settlement of one request, 2 workers\n{table(rows)}"


def _budgets(results: Results) -> str:
    found = verdicts(results)
    if not found:
        return ""
    rows = [["budget", "at most", "found", ""]]
    rows += [[each.what, f"{each.budget:g}", f"{each.found:.2f}", "kept" if each.kept else "MISSED"] for each in found]
    return f"edgeproxy's budgets on a {'PGO' if results.python.pgo else 'plain'} build\n{table(rows)}"
