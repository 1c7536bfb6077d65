"""The report of what HTTP/2 costs: a table of both ways, and the goals that edgeproxy has."""

from collections.abc import Iterator, Sequence
from statistics import median

from loadtest.bench.measure.http2 import ROWS, Http2Cost
from loadtest.bench.peers.edge import Edge
from loadtest.bench.peers.envoy import Envoy
from loadtest.bench.peers.nginx import Plain
from loadtest.bench.report.table import table

Key = tuple[str, str, bool]
"""A peer, a row, and whether it was over TLS."""

GOALS = (("1 stream", "HTTP/1.1", 6.0), ("10 streams", "HTTP/1.1", 0.0), ("64k, 4 streams", "64k, HTTP/1.1", 10.0))
"""By how many µs a row may be dearer than another one of the same rounds."""

TO_NGINX, TO_ENVOY = 1.6, 1.0


def compute_medians(costs: Sequence[Http2Cost]) -> dict[Key, float]:
    """Return the median over the rounds of each peer and row; of wrong slices none, of disturbed ones where all are."""
    by_key: dict[Key, list[Http2Cost]] = {}
    for cost in costs:
        if not cost.wrong:
            by_key.setdefault((cost.peer, cost.row, cost.secure), []).append(cost)
    calm = {key: [each for each in some if not each.disturbed] or some for key, some in by_key.items()}
    return {key: median(each.cpu for each in some) for key, some in calm.items()}


def find_verdicts(costs: Sequence[Http2Cost]) -> Iterator[tuple[str, float, float]]:
    """Yield each measured goal: its name, the bound, and the figure."""
    for customers, some in group_by_customers(costs).items():
        yield from _find_verdicts(compute_medians(some), "" if customers == 1 else f", {customers:,} customers")


def group_by_customers(costs: Sequence[Http2Cost]) -> dict[int, list[Http2Cost]]:
    """Return the costs by number of customers."""
    groups: dict[int, list[Http2Cost]] = {}
    for cost in costs:
        groups.setdefault(cost.customers, []).append(cost)
    return groups


def _find_verdicts(medians: dict[Key, float], crowd: str) -> Iterator[tuple[str, float, float]]:
    for secure in (False, True):
        way = f"{'TLS' if secure else 'clear'}{crowd}"
        for row, beside, most in GOALS:
            answer, base = medians.get((Edge.name, row, secure)), medians.get((Edge.name, beside, secure))
            if answer is not None and base is not None:
                yield f"HTTP/2, {way}, {row}: µs above {beside}", most, answer - base
        for peer, most in ((Plain.name, TO_NGINX), (Envoy.name, TO_ENVOY)):
            for each in ROWS:
                answer, other = medians.get((Edge.name, each.name, secure)), medians.get((peer, each.name, secure))
                if answer is not None and other is not None and each.streams:
                    yield f"HTTP/2, {way}, {each.name}, × {peer}", most, answer / other


def format_costs(costs: Sequence[Http2Cost]) -> str:
    """Format a table for each number of customers, with a row for each peer and way."""
    tables = [_format_table(some, customers) for customers, some in group_by_customers(costs).items()]
    return "\n\n".join(table for table in tables if table)


def _format_table(costs: Sequence[Http2Cost], customers: int) -> str:
    medians = compute_medians(costs)
    if not medians:
        return ""
    rows = [["µs", *(row.name for row in ROWS)]]
    for peer in dict.fromkeys(cost.peer for cost in costs):
        for secure in (False, True):
            found = [medians.get((peer, row.name, secure)) for row in ROWS]
            cells = ["–" if each is None else f"{each:.1f}" for each in found]
            rows.append([f"{peer}, {'TLS' if secure else 'clear'}", *cells])
    load = "by h2load" if customers == 1 else f"{customers:,} customers, by a client in Python"
    lines = [f"HTTP/2: CPU a request, median over the rounds, {load}", table(rows)]
    lines.append(
        f"{len(costs)} slices, of which {sum(cost.disturbed for cost in costs)} shared their core with others."
    )
    lines += [f"wrong: round {c.round}, {c.peer}, {c.row}: {c.wrong}" for c in costs if c.wrong]
    return "\n".join(lines)
