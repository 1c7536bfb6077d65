"""Run rows on several proxies and print the results as a table."""

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until
from tests.contract.beside.observe import expected_of, observe_answered, observe_asked
from tests.contract.beside.peers import PEERS
from tests.contract.case import Answered, Asked
from tests.contract.upstream import Endpoint, Recorder

BATCH = 150
"""Rows per proxy process. Each row keeps two sockets open."""

AT_ONCE = 16
"""The number of rows observed concurrently."""

Row = Asked | Answered
Cells = dict[str, dict[str, str]]
"""row -> proxy -> description of its behaviour."""


def observe(rows: Sequence[tuple[str, Row]], names: Iterable[str]) -> Cells:
    """Run each row on each of these proxies. Rows are named `family-name`."""
    cells: Cells = {f"{family}-{row.name}": {} for family, row in rows}
    for name in names:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            with tempfile.TemporaryDirectory(prefix="edgeproxy-beside-") as folder:
                seen = asyncio.run(_observe_some(name, [row for _, row in batch], Path(folder)))
            for (family, row), words in zip(batch, seen, strict=True):
                cells[f"{family}-{row.name}"][name] = words
    return cells


async def _observe_some(name: str, rows: Sequence[Row], folder: Path) -> list[str]:
    with ExitStack() as ends:
        ports = Ports(len(rows))
        ends.callback(ports.close)
        endpoints = [Endpoint() for _ in rows]
        for endpoint in endpoints:
            ends.callback(endpoint.closes)
        process = PEERS[name](folder, dict(zip(ports.numbers, (endpoint.port for endpoint in endpoints), strict=True)))
        ends.callback(process.stop)
        until(lambda: all(map(_listens, ports.numbers)) or not process.running, f"{name} listens")
        assert process.running, process.output
        gate = asyncio.Semaphore(AT_ONCE)
        work = [
            _observe(row, port, endpoint, gate)
            for row, port, endpoint in zip(rows, ports.numbers, endpoints, strict=True)
        ]
        return list(await asyncio.gather(*work))


async def _observe(row: Row, port: int, endpoint: Endpoint, gate: asyncio.Semaphore) -> str:
    async with gate:
        if isinstance(row, Answered):
            return await observe_answered(row, port, endpoint)
        recorder = Recorder(endpoint)
        recorder.begins()
        try:
            return await observe_asked(row, port, recorder)
        finally:
            await recorder.ends()


def _listens(port: int) -> bool:
    with socket.socket() as end:
        return end.connect_ex((HOST, port)) == 0


def lay_out(rows: Sequence[tuple[str, Row]], cells: Cells, *, all_: bool, say: Callable[[str], None] = print) -> int:
    """Print the table, without `all_` only rows with a difference. Return the number of rows with a difference."""
    differing = 0
    for family, row in rows:
        own, others = expected_of(row), cells[f"{family}-{row.name}"]
        differs = any(words != own for words in others.values())
        differing += differs
        if differs or all_:
            say(f"{family}: {row.name}  ({row.rule})")
            for name, words in {"here": own, **others}.items():
                mark = " " if words == own else "*"
                say(f"    {mark} {name:6} {words}")
    return differing
