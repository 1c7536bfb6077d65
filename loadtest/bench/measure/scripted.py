"""The program whose instructions are counted: `python scripted.py FOLDER SCENARIO EXCHANGES`; no network, no clock.

SCENARIO is one of the bench, `http2` with or without one (scripted_http2.py), or that of a crowd (crowd.py). With
`--workers N` the tables have N workers, and each worker has counted in its column. With `--callgrind` it tells
Valgrind's callgrind when to start counting. With `--timed` it prints the µs of CPU of an exchange.

A scripted client and a scripted upstream exchange messages with a worker's own objects, one exchange after another.
Each read of the clock adds 5 µs, so every run does equal work.
"""

import itertools
import socket
import sys
import time

time.monotonic = itertools.count(1000.0, 5e-6).__next__  # Before other modules import it by name.

import argparse  # noqa: E402
import asyncio  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Callable, Iterable, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from edgeproxy.config.edge import load as edge_load  # noqa: E402
from edgeproxy.edge.counters.store import Store  # noqa: E402
from edgeproxy.edge.proxy.connections.prior_knowledge import PlainClient  # noqa: E402
from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection  # noqa: E402
from edgeproxy.edge.proxy.exchange.overload import Overload  # noqa: E402
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration  # noqa: E402
from edgeproxy.edge.proxy.exchange.runtime import Runtime  # noqa: E402
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot  # noqa: E402
from loadtest.bench.measure import scripted_http2  # noqa: E402
from loadtest.bench.measure.crowd import parse_crowd  # noqa: E402
from loadtest.bench.measure.scripted_http2 import KINDS, Kind  # noqa: E402
from loadtest.bench.peers.edge import settings  # noqa: E402
from loadtest.bench.peers.peer import Place  # noqa: E402
from loadtest.bench.scenario import CHANGES, FALLBACK, SCENARIOS, SMALL_ANSWER, STREAMS, Scenario  # noqa: E402

DISTINCT = 5000
"""Different requests in a scenario that changes them: more than an edge caches, so each is new to the edge."""

FAILURE = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
"""The first upstream's answer in a scenario with a fallback to the second."""

WARM_UP = 300
"""Exchanges after which all caches are filled."""


class Transport:
    """One end of a connection; it records the written data."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.writelines = self.written.append
        # The edge may check for readable data. There is never any.
        self._silent = socket.socketpair()

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> "Transport":
        return self

    def fileno(self) -> int:
        return self._silent[0].fileno()

    def setsockopt(self, *option: int) -> None:
        """Ignore a socket option: there is no socket."""

    def pause_reading(self) -> None:
        """Do nothing: no data waits here."""


class Connector:
    """Connects at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.transport: Any = Transport()

    def connect(self, exchange: Any) -> None:
        exchange.waiting_since = time.monotonic()
        upstream = UpstreamConnection(self._runtime, exchange.endpoint)
        upstream.connection_made(self.transport)
        exchange.on_connected(upstream)


def requests(scenario: Scenario, distinct: int = DISTINCT) -> list[str]:
    """Return the requests to send in turn."""
    text = scenario.text()
    if CHANGES not in text:
        return [text]
    chance = random.Random(1)
    return [text.replace(CHANGES, f"{chance.getrandbits(48):012x}") for _ in range(distinct)]


def answer(scenario: Scenario) -> tuple[bytes, ...]:
    """Return the pieces of the bench upstream's answer: one piece, or for a stream the head and each chunk."""
    some = SMALL_ANSWER if scenario.answer == len(SMALL_ANSWER) else b"x" * scenario.answer
    pieces = scenario.content or (some,)
    is_stream = len(pieces) > 1
    length = "Transfer-Encoding: chunked" if is_stream else f"Content-Length: {len(pieces[0])}"
    head = (
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 09:00:00 GMT\r\n"
        f"Content-Type: {scenario.media}\r\n{length}\r\nConnection: keep-alive\r\n\r\n"
    ).encode()
    if not is_stream:
        return (head + pieces[0],)
    return (head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n")


def join_workers(state: Path, workers: int) -> list[Store]:
    """Join this many workers. Each counts in a column of its own."""
    stores = [Store.join(state)]
    with ThreadPoolExecutor(1) as joining:
        while len(stores) < workers:
            joined = joining.submit(Store.join, state)
            while not joined.done():  # A join waits until all other workers know its column.
                for store in stores:
                    store.refresh_columns()
            stores.append(joined.result())
    for store in stores:
        store.refresh_columns()
    return stores


class Stand:
    """A worker's own objects between a scripted client and a scripted upstream."""

    def __init__(self, store: Store, dumped: bytes, attempts: Sequence[tuple[bytes, ...]]) -> None:
        self.runtime = runtime = Runtime(store)
        runtime.serve_snapshot(Snapshot(PreparedConfiguration(dumped), store, runtime.metrics))
        runtime.overload = Overload(lambda: 1, lambda: 1, lambda most: None, lambda: None, lambda late: None)
        self.connector = runtime.connector = Connector(runtime)
        self.transport: Any = Transport()
        self._attempts = attempts

    def connect(self) -> Callable[[Iterable[bytes]], None]:
        """Connect a client. Returns a function that does an exchange for each given request."""
        runtime, attempts, sent = self.runtime, self._attempts, self.transport.written
        client: Any = PlainClient(runtime, "127.0.0.1", runtime.snapshot.addresses.compute_subject("127.0.0.1"))
        client.connection_made(self.transport)
        forwarded = self.connector.transport.written

        def run(asked: Iterable[bytes]) -> None:
            for data in asked:
                client.data_received(data)
                if client.exchange is not None:
                    for pieces in attempts:
                        server = client.exchange.server
                        for piece in pieces:
                            server.data_received(piece)
                    forwarded.clear()
                sent.clear()

        return run


def exchanges(folder: Path, name: str, times: int, workers: int = 1) -> Callable[[], None]:
    """Set up an edge as the bench does and warm it up. Returns a function that does this many exchanges."""
    http2, crowd = KINDS.get(name), parse_crowd(name)
    if crowd is not None:
        scenario = SCENARIOS[crowd.kind]
        if crowd.streams:
            http2 = Kind(scenario, crowd.streams, has_crowd=True)
    else:
        scenario = {**SCENARIOS, **STREAMS, FALLBACK.name: FALLBACK}[name] if http2 is None else http2.scenario
    configuration: dict[str, Any] = settings(Place(folder, 0, (7001, 7002), Path(sys.executable)), 7003, 7004, 7005)
    attempts = [answer(scenario)]
    if scenario is FALLBACK:
        configuration["upstreams"]["api"]["eject"] = "off"  # After some failures it would not be asked any more.
        configuration["upstreams"]["spare"] = {"endpoints": ["http://127.0.0.1:7006"]}
        for route in configuration["routes"]:
            route["fallback"] = "spare"
        attempts.insert(0, (FAILURE,))
    if crowd is not None:
        configuration["routes"] = crowd.list_routes()
    file = folder / "edge.yaml"
    file.write_text(json.dumps(configuration))
    loaded = edge_load.load_edge(file, {})
    dumped = edge_load.dump_settings(loaded if crowd is None else crowd.add_to(loaded))
    rows = 1000 if crowd is None else crowd.count_rows(times)
    Store.prepare(folder / "state", workers=workers, customers=rows, addresses=1000)
    first, *others = join_workers(folder / "state", workers)
    distinct = scripted_http2.DISTINCT if http2 is not None else DISTINCT
    warm_up = WARM_UP + (DISTINCT if name.endswith("vary") else 0)
    texts = requests(scenario, distinct)
    for store in others:
        Stand(store, dumped, attempts).connect()(crowd.warm_up(1) if crowd is not None else [texts[0].encode()])
    stand = Stand(first, dumped, attempts)
    if crowd is not None:
        before, response = [*crowd.warm_up(), *crowd.use_routes(times), *crowd.flood()], crowd.ask(times)
        if not crowd.streams:
            run = stand.connect()
            run(before)
            return lambda: run(response)
        warm_up, texts = len(before), [each.decode() for each in before + response]
    if http2 is not None:
        exchange = scripted_http2.exchanges(
            stand.runtime, http2, texts, attempts[0][0], stand.connector, stand.transport
        )
        exchange(warm_up)
        return lambda: exchange(times)
    run, again = stand.connect(), itertools.cycle([text.encode() for text in texts])
    run(itertools.islice(again, warm_up))
    return lambda: run(itertools.islice(again, times))


def switch_counting(state: str) -> None:
    """Switch callgrind's counting `on` or `off`. Callgrind reacts only while this process runs, so waiting counts."""
    command = ["callgrind_control", f"--instr={state}", str(os.getpid())]
    asking = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while asking.poll() is None:
        time.sleep(0.1)  # Each waking is counted, and on a busy machine the command takes seconds.
    if asking.returncode:
        sys.exit("callgrind_control: callgrind does not listen")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("scenario")
    parser.add_argument("exchanges", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--callgrind", action="store_true")
    parser.add_argument("--timed", action="store_true")
    given = parser.parse_args()
    run = exchanges(given.folder, given.scenario, given.exchanges, given.workers)
    gc.collect()
    gc.freeze()
    gc.disable()
    if given.callgrind:
        switch_counting("on")
    began = time.process_time()
    run()
    if given.timed:
        print((time.process_time() - began) * 1e6 / given.exchanges)
    if given.callgrind:
        switch_counting("off")


if __name__ == "__main__":
    asyncio.run(main())  # A connection of HTTP/2 asks for the loop that it is in.
