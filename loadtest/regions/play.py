"""Play scenarios on a world and measure each: the upstream's requests are the admitted requests."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from loadtest.regions.load import Account, Clients, Load, sleep_until
from loadtest.regions.scenarios import BURST_SECONDS, CUT, Part
from loadtest.regions.world import WORKERS, World
from loadtest.testbed.edge import total
from loadtest.testbed.windows import most_in_a_window

SETTLED = 2.0
"""Seconds until the clients have started."""
BETWEEN = 1.0
"""Seconds between two bursts."""
LEAD = 2.0
"""Seconds of load beyond a window before the hub is cut, if there is time."""
WINDOWS = 1.4
"""The most windows for which other parts last if the hub is cut afterwards."""
CELLS = 28
"""Cells of a window: a refusal may be wrong by one cell."""


@dataclass(frozen=True)
class Found:
    """The result of a part. `worst` is the most requests admitted in any window."""

    part: Part
    accept: float | None
    worst: int
    asked: int
    seconds: float
    passed: int
    arrived: int
    """Requests at the upstream: equal to the admitted ones, or the measurement is wrong."""
    lost: dict[str, int]
    """Requests without an answer, or with one that is neither 200 nor 429, by status."""
    refused_wrongly: int
    """Refusals although the last window and a cell held less than the limit."""
    waited: int
    longest: float
    """The most seconds until an answer, with all waits."""
    calls: int
    """Calls to the hub, of all hosts."""

    @property
    def faults(self) -> list[str]:
        """The faults of this result."""
        said = []
        if self.accept is not None and self.worst > self.accept:
            said.append(f"{self.worst} passed in a window, {self.accept:g} may")
        allowed = self.part.played.false_denials
        # In mode `strict` a request may wait in vain, and a share below one request is not measurable.
        if allowed is not None and self.part.mode != "strict" and self.refused_wrongly > max(1, allowed * self.asked):
            said.append(f"{self.refused_wrongly} of {self.asked} were refused although there was room")
        if self.arrived != self.passed:
            said.append(f"clients had {self.passed} answers, the upstream {self.arrived} requests")
        if self.lost:
            said.append(f"not answered, or wrongly: {self.lost}")
        return said

    def row(self) -> dict[str, Any]:
        """Return the result as a row for a file."""
        return asdict(self) | {"faults": self.faults}


def wrongly(refused_at: Sequence[float], passed: Sequence[float], limit: int, window: float) -> int:
    """Return the number of refusals while the last window and a cell held less than the limit."""
    span = window * (1 + 1 / CELLS)
    return sum(bisect_right(passed, at) - bisect_left(passed, at - span) < limit for at in refused_at)


def play(
    world: World,
    together: Sequence[Part],
    seconds: float,
    *,
    seed: object,
    cut: str = "hole",
    cut_at: float | None = None,
    cut_seconds: float = CUT,
    burst_seconds: float = BURST_SECONDS,
) -> list[Found]:
    """Play parts at once. Bursts follow each other, each for at least `burst_seconds`.

    If one part cuts the hub, it is cut for all parts, as `cut` says (cut or hole), after `cut_at` seconds. The
    default is a window and LEAD seconds. The other parts are over by then.
    """
    edges = [region.edge for region in world]
    if cut_at is None:
        cut_at = max(part.window for part in together) + LEAD
    is_cut = any(part.played.cut for part in together)
    loads: list[Load] = []
    turn = 0.0
    for part in together:
        later, lasts = 0.0, seconds
        if part.played.brief:
            later, lasts = turn, burst_seconds
        elif part.played.cut:
            later = max(0.0, cut_at - part.window - LEAD)
            lasts = seconds - later
        elif is_cut:
            lasts = min(cut_at, WINDOWS * part.window)
        asked = [
            Load(part.customer, edges[load.host].port, later + load.begin, later + load.end, load.rate)
            for load in part.loads(len(edges), lasts)
        ]
        loads += asked
        if part.played.brief:
            turn = max(load.end for load in asked) + BETWEEN
    assert not is_cut or turn <= cut_at, f"bursts take {turn:g} s, and the hub is cut off after {cut_at:g}"
    closely = [part.customer for part in together if part.played.false_denials is not None]
    before = calls(world)
    begin = monotonic() + SETTLED
    clients = Clients(world.folder, loads, begin, closely, seed)
    if is_cut:
        sleep_until(begin + cut_at)
        for region in world:
            getattr(region.link, cut)()
        sleep_until(begin + cut_at + cut_seconds)
        for region in world:
            region.link.heal()
    accounts = clients.accounts()
    arrivals = world.upstream.arrivals()
    told = calls(world)
    samples = [edge.metrics() for edge in edges]
    found = []
    for part in together:
        name = part.customer
        of_it = [load for load in loads if load.customer == name]
        lasted = max(load.end for load in of_it) - min(load.begin for load in of_it)
        waited = sum(total(sample, "edge_limit_waits_total", policy=name) for sample in samples)
        passed = sorted(arrivals.get(name, []))
        found.append(_found(part, len(edges), accounts[name], passed, int(waited), told[name] - before[name], lasted))
    return found


def notes(world: World) -> list[str]:
    """Return events at the edges that explain a figure: for example, a stalled machine loses its hub."""
    said = []
    for region in world:
        samples = region.edge.metrics()
        for metric, what in (
            ("edge_hub_errors_total", "lost the hub, did not reach it, or was refused by it"),
            ("edge_table_full_total", "counted without a row of the table"),
            ("edge_worker_restarts_total", "started a worker anew"),
        ):
            if times := total(samples, metric):
                said.append(f"{region.name} {what}, times: {times:.0f}")
        if (at := region.edge.output.find("Traceback")) >= 0:
            said.append(f"{region.name} wrote: {region.edge.output[at : at + 3000]}")
    return said


def calls(world: World) -> Counter[str]:
    """Return all calls to the hub so far, by customer."""
    return sum((region.link.calls for region in world), Counter())


def _found(
    part: Part, hosts: int, account: Account, passed: list[float], waited: int, calls: int, lasted: float
) -> Found:
    answers = account.answers
    lost = {status: count for status, count in answers.items() if status not in ("200", "429")}
    if account.lost:
        lost["none"] = account.lost
    return Found(
        part,
        part.accept(hosts, WORKERS),
        most_in_a_window(passed, part.window),
        account.asked,
        lasted,
        answers.get("200", 0),
        len(passed),
        lost,
        wrongly(account.refused_at, passed, part.limit, part.window),
        waited,
        account.longest,
        calls,
    )


HEAD = (
    f"{'scenario':31} {'mode':8} {'L':>6} {'asked/s':>8} {'worst/L':>8} {'accept':>7} {'':6} "
    f"{'waited':>7} {'longest':>8} {'calls/s':>8}"
)


def line(found: Found) -> str:
    """Return a row of the table."""
    part = found.part
    limit = part.limit
    accept = "" if found.accept is None else f"{found.accept / limit:.3f}"
    verdict = "MISSED" if found.faults else "" if found.accept is None else "ok"
    return (
        f"{part.played.name:31} {part.mode:8} {limit:6} {found.asked / found.seconds:8.1f} "
        f"{found.worst / limit:8.3f} {accept:>7} {verdict:6} {100 * found.waited / max(1, found.asked):5.1f} % "
        f"{1000 * found.longest:5.0f} ms {found.calls / found.seconds:8.1f}"
    )
