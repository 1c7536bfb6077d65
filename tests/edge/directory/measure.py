"""Measure how fast the directory and revocations spread: `python -m tests.edge.directory.measure [customers]`.

First part: a collector process has this number of customers with one key each in SQLite. An empty edge reads them all,
then one more is added. Second part: three edges follow a hub 150 ms away, and a collector with a few customers revokes
keys one after the other. At the end it publishes nothing, so the edges have to poll.
"""

import argparse
import asyncio
import hashlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Thread
from typing import Any

import sqlalchemy as sa

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.hub.redis import Link
from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.redis import Redis
from loadtest.testbed.upstream import Upstream

AWAY_SECONDS = 0.075
"""Seconds of latency to the hub, in one direction."""
TIMES = 20


def within(url: str, work: Callable[[Any], Any]) -> None:
    """Do this in a transaction on a database."""

    async def do() -> None:
        database = await Database.connect(url)
        try:
            async with database.writing() as connection:
                await work(connection)
        finally:
            await database.close()

    asyncio.run(do())


def adds(url: str, names: list[str]) -> None:
    """Create customers with one key each, and publish them."""

    async def add(connection: Any) -> None:
        for at in range(0, len(names), 1000):
            some = names[at : at + 1000]
            own = {"tier": "own", "settings": json.dumps({"tier": "own"}), "metadata": "{}", "created_at": 1}
            rows: list[Any] = [{"id": f"i{name}", "name": name, "version": 1, **own} for name in some]
            await connection.execute(sa.insert(customers), rows)
            made = {"start": "x", "created_at": 1, "version": 1}
            digests = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in some}
            given: list[Any] = [{"id": f"k{n}", "customer": f"i{n}", "sha256": d, **made} for n, d in digests.items()]
            await connection.execute(sa.insert(keys), given)
        await documents.enqueue_changes(connection, "customer", names)

    within(url, add)


def waiting(url: str) -> int:
    """Return the number of unpublished changes."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as db:
        rows: int = db.execute("SELECT COUNT(*) FROM directory_outbox").fetchone()[0]
    return rows


def revokes(url: str, name: str) -> None:
    """Revoke a customer's key."""

    async def revoke(connection: Any) -> None:
        own = sa.update(keys).where(keys.c.customer == f"i{name}")
        await connection.execute(own.values(revoked_at=1))
        await documents.enqueue_changes(connection, "customer", [name])

    within(url, revoke)


def asks(edge: Edge, name: str) -> int:
    return edge.ask(fields={"Authorization": f"Bearer {key_of(name)}"}).status


def until(is_so: Callable[[], bool], pause: float = 0.01) -> float:
    """Return the seconds until the condition holds."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 300
        time.sleep(pause)
    return time.monotonic() - began


class Distance:
    """A relay to a port, in a separate thread. It delays every byte by AWAY_SECONDS."""

    def __init__(self, port: int) -> None:
        self.port = Ports(1).numbers[0]
        self._to = port
        Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass, HOST, self.port)
        await server.serve_forever()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._to)
        await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer), return_exceptions=True)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(AWAY_SECONDS, writer.write, data)
        loop.call_later(AWAY_SECONDS, writer.close)


def resident(pid: int) -> int:
    """Return the peak memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def many(folder: Path, count: int, ends: ExitStack, port: int, signer: directory_signatures.Signer) -> None:
    """Measure a directory with this number of customers."""
    url = f"sqlite:///{folder}/many.db"
    directory = {"key": str(folder / "directory.key")}
    collector = ends.enter_context(closing(Collector(folder / "many", url, directory=directory)))
    collector.start()
    adds(url, [f"c{n}" for n in range(count)])
    print(f"{count} customers: published within {until(lambda: waiting(url) == 0, 0.1):.1f} s")
    began = time.monotonic()
    usage = {"collector": f"http://{HOST}:{collector.port}", "token": EDGE}
    follows = {"from": "collector", "trust": signer.public_key}
    edge = ends.enter_context(closing(Edge(folder / "reader", port, workers=1, usage=usage, directory=follows)))
    edge.begin()
    until(lambda: edge.ready() and {asks(edge, "c0"), asks(edge, f"c{count - 1}")} == {200}, 0.05)
    print(f"a new edge starts, reads them all and serves within {time.monotonic() - began:.1f} s")
    adds(url, ["one-more"])
    print(f"one more: served after {until(lambda: asks(edge, 'one-more') == 200):.2f} s")
    assert collector.process is not None
    print(f"collector: {resident(collector.process.pid)} MiB at most")


def regions(folder: Path, ends: ExitStack, port: int, signer: directory_signatures.Signer) -> None:
    """Measure revocations with three edges and a distant hub."""
    redis = Redis(folder)
    ends.callback(redis.kill)
    far = Distance(redis.port)
    url = f"sqlite:///{folder}/few.db"
    directory = {"key": str(folder / "directory.key"), "hub": redis.url}
    collector = ends.enter_context(closing(Collector(folder / "few", url, directory=directory)))
    collector.start()
    names = [f"r{n}" for n in range(2 * TIMES)]
    adds(url, names)
    hub = f"redis://{HOST}:{far.port}/0"
    follows = {"from": "hub", "trust": signer.public_key}
    edges = [
        ends.enter_context(closing(Edge(folder / f"edge{n}", port, workers=1, hub=hub, directory=follows)))
        for n in range(3)
    ]
    for edge in edges:
        edge.start()
    for what, some in (("published", names[:TIMES]), ("nothing published", names[TIMES:])):
        if what != "published":
            asyncio.run(mute(redis.url))
        taken = []
        for name in some:
            for edge in edges:
                until(lambda edge=edge, name=name: asks(edge, name) == 200)  # type: ignore[misc]
            revokes(url, name)
            began, open_at = time.monotonic(), list(edges)
            while open_at:
                open_at = [edge for edge in open_at if asks(edge, name) != 401]
            taken.append(time.monotonic() - began)
        taken.sort()
        half, last = taken[len(taken) // 2], taken[-1]
        print(f"revoked, {what}: refused by three edges after {half:.2f} s (median), {last:.2f} s (most of {TIMES})")


async def mute(url: str) -> None:
    """Revoke the right to publish from all users."""
    link = await Link.open(url)
    try:
        await link.ask("ACL", "SETUSER", "default", "-publish")
    finally:
        await link.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("customers", type=int, nargs="?", default=100_000)
    options.add_argument("--alone", action="store_true", help="without the three edges")
    given = options.parse_args()
    count = given.customers
    with tempfile.TemporaryDirectory() as created, ExitStack() as ends:
        folder = Path(created)
        directory_signatures.create_key_file(folder / "directory.key")
        signer = directory_signatures.Signer.load(folder / "directory.key")
        upstream = Upstream(folder / "upstream")
        ends.callback(upstream.stop)
        if not given.alone:
            regions(folder, ends, upstream.port, signer)
        many(folder, count, ends, upstream.port, signer)


if __name__ == "__main__":
    main()
