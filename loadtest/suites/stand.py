"""The proxy between a suite's clients and its servers: none, nginx, or edges.

A suite starts its servers one after another, each on its own port. So the proxy has slots. Each slot has a public
port for the proxy and a hidden port for the suite's server. An edge does not route by its
listening port, so each of its slots is an edge.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import yaml

from loadtest.bench import nginx
from loadtest.bench.ports import free
from loadtest.testbed.process import Process

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Slot(NamedTuple):
    """The port that a proxy listens on, and the port that it forwards to."""

    public: int
    hidden: int


def slots(count: int, fixed: tuple[int, ...]) -> tuple[list[Slot], list[Slot]]:
    """Return `count` slots for servers that accept any port, and one for each port that the suite requires."""
    ports = free(2 * count + len(fixed))
    any_port = [Slot(*ports[2 * index : 2 * index + 2]) for index in range(count)]
    return any_port, [Slot(port, ports[2 * count + index]) for index, port in enumerate(fixed)]


@contextmanager
def direct(folder: Path, places: list[Slot]) -> Iterator[None]:
    """Run no proxy; a slot's two ports must be equal."""
    yield


LOCATION = """
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
proxy_http_version 1.1;
proxy_buffering off;
proxy_request_buffering off;
proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
{servers}
"""
SERVER = "server {{ {listen} location / {{ proxy_pass http://127.0.0.1:{hidden}; }} }}"


@contextmanager
def behind_nginx(folder: Path, places: list[Slot]) -> Iterator[None]:
    """Run one nginx without buffering, with a server for each slot."""
    servers = [
        SERVER.format(listen=" ".join(f"listen {host}:{slot.public};" for host in hosts()), hidden=slot.hidden)
        for slot in places
    ]
    child = nginx.start(folder, LOCATION.format(servers="\n".join(servers)), core=(os.cpu_count() or 1) - 1)
    try:
        child.wait_until(lambda: all(accepts(slot.public) for slot in places), START_SECONDS, "listens")
        yield
    finally:
        child.stop()


@contextmanager
def behind_edges(folder: Path, places: list[Slot]) -> Iterator[None]:
    """Run an edge for each slot, with defaults for all settings that are not stated here."""
    running: list[Process] = []
    try:
        for slot in places:
            own = folder / str(slot.public)
            own.mkdir(parents=True)
            file = own / "edge.yaml"
            file.write_text(yaml.safe_dump(settings(own, slot)))
            running.append(Process([sys.executable, "-m", "edgeproxy", "edge", "-c", file], own / "log"))
        wait_for(running, places)
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):  # A process that does not stop in time is killed.
                process.stop(STOP_SECONDS)
        for slot in places:
            shutil.rmtree(folder / str(slot.public) / "state", ignore_errors=True)


def settings(folder: Path, slot: Slot) -> dict[str, object]:
    """Return settings with an open route to the slot's server.

    Clients are trusted proxies, because nginx trusts every client too. The route names the protocol that a test
    needs. Tables are small, and a machine that is busy with tests causes no shedding.
    """
    return {
        "listen": [f"{host}:{slot.public}" for host in hosts()],
        "workers": 1,
        "state": str(folder / "state"),
        "tables": {"customers": 1000, "addresses": 1000},
        "overload": {"lag": "10s"},
        "drain": "1s",
        "upstreams": {"suite": {"endpoints": [f"http://127.0.0.1:{slot.hidden}"], "forward_key": True}},
        "routes": [{"path": "/*", "upstream": "suite", "auth": "none", "upgrade": ["websocket", "foo"]}],
        "trusted_proxies": ["127.0.0.0/8", "::1/128"],
    }


def wait_for(running: list[Process], places: list[Slot]) -> None:
    """Return once all edges serve. Raises RuntimeError if one ends or is late."""
    late = time.monotonic() + START_SECONDS + len(places)
    for process, slot in zip(running, places, strict=True):
        while not accepts(slot.public):
            if not process.running or time.monotonic() > late:
                raise RuntimeError(process.output[-1000:])
            time.sleep(0.05)


def hosts() -> tuple[str, ...]:
    """Return the loopback addresses of this machine, as listeners write them."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return ("127.0.0.1",)
    return ("127.0.0.1", "[::1]")


def accepts(port: int) -> bool:
    """Return whether a server listens on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


WAYS = {"direct": direct, "nginx": behind_nginx, "edge": behind_edges}
"""All kinds of proxies, in the order of the runs."""
