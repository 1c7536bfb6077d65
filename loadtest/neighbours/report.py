"""Rows as text, Markdown and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.bench.machine import Machine
from loadtest.neighbours.options import Options
from loadtest.neighbours.verdict import MIB, Goal, Row, misses

_PAGE = Path(__file__).with_name("page.md")
COLUMNS = (
    *("neighbour", "peer", "idle p50", "idle p99", "p50", "p99", "longest", "added p99", "errors"),
    *("connections", "MiB", "turn", "after", "verdict"),
)


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def cells(row: Row, goal: Goal) -> list[str]:
    """One row of the table."""
    missed = misses(row, goal)
    waits = (row.idle.p50, row.idle.p99, row.beside.p50, row.beside.p99, row.beside.longest, row.added_p99)
    return [
        row.neighbour,
        row.peer,
        *map(_milliseconds, waits),
        str(len(row.errors)),
        str(row.connections),
        f"{row.growth / MIB:+.0f}",
        "-" if row.turn is None else f"≤ {row.turn:g}",
        "failed" if row.after is None else _milliseconds(row.after),
        "holds" if not missed else "misses: " + ", ".join(missed),
    ]


def line(row: Row, goal: Goal) -> str:
    """One row for a terminal, and below it the first error of the client."""
    widths = (22, 10, *[9] * 6, 6, 11, 6, 8, 8, 0)
    text = "".join(f"{cell:<{width}} " for cell, width in zip(cells(row, goal), widths, strict=True))
    return text + (f"\n    {row.errors[0]}" if row.errors else "")


def heading() -> str:
    """The line above."""
    widths = (22, 10, *[9] * 6, 6, 11, 6, 8, 8, 0)
    return "".join(f"{name:<{width}} " for name, width in zip(COLUMNS, widths, strict=True))


def markdown(rows: Sequence[Row], goal: Goal) -> str:
    """A table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells(row, goal) for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def page(rows: Sequence[Row], goal: Goal, machine: Machine, options: Options, command: str) -> str:
    """The whole page of the documentation."""
    judged = [row for row in rows if row.peer == "edgeproxy"]
    missed = [row.neighbour for row in judged if misses(row, goal)]
    verdict = f"It misses the goal beside {', '.join(missed)}." if missed else "It holds the goal beside each of them."
    return _PAGE.read_text().format(
        command=command,
        date=datetime.now(UTC).date(),
        machine=f"{machine.cpu}, {machine.cores} cores, Linux {machine.kernel}, load average {machine.load}",
        seconds=f"{options.seconds:g}",
        connections=options.connections,
        cores=f"peers on core {options.cores[0]}, everything else on core {options.cores[1]}",
        added=f"{goal.added_p99:g}",
        longest=f"{goal.longest:g}",
        growth=f"{goal.growth:g}",
        count=len({row.neighbour for row in rows}),
        verdict=f"edgeproxy was measured beside {len(judged)} kinds. {verdict}",
        table=markdown(rows, goal),
    )


def as_json(row: Row, goal: Goal) -> dict[str, Any]:
    """A row with its verdict."""
    return {**asdict(row), "misses": misses(row, goal)}
