"""SIGTERM ends an edge and a collector within the time that the documentation states, whatever they wait for."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from loadtest.testbed.edge import COMMAND, Edge
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until

DRAIN_SECONDS = 1
BEYOND_DRAIN_SECONDS = 10.0
"""Seconds that whatever stops an edge waits beyond its drain."""


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server((HOST, 0), backlog=100) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


def write_settings(edge: Edge, silent: int) -> None:
    """Have an edge call the silent server for everything that it can call a server for."""
    url = f"http://{HOST}:{silent}"
    edge.settings["drain"] = f"{DRAIN_SECONDS}s"
    edge.settings["usage"] = {"collector": url, "every": "100ms"}
    edge.settings["tracing"] = {"endpoint": url, "sample": "100%"}
    edge.settings["issuers"] = {
        "login": {"issuer": "https://login.example", "jwks": f"{url}/keys", "audiences": ["api"], "customer": "sub"}
    }
    for name, health in {"http": {"path": "/healthz"}, "grpc": {"grpc": ""}}.items():
        protocol = {"protocol": "h2c"} if name == "grpc" else {}
        edge.settings["upstreams"][name] = {"endpoints": [url], "health": {**health, "every": "1s"}, **protocol}
        edge.settings["routes"].insert(0, {"name": name, "path": f"/{name}/*", "upstream": name})
    edge.write()


def list_processes(folder: Path) -> list[str]:
    """List the processes that have a file of a folder open in memory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder) in (process / "maps").read_text():
                found.append(process.name)
    return found


@pytest.mark.parametrize("waits_for", ["hub", "collector", "key service"])
def test_edge_ends_that_waits_for_its_first_customers(waits_for: str, silent: int, tmp_path: Path) -> None:
    edge = Edge(tmp_path / "edge", silent, drain=f"{DRAIN_SECONDS}s")
    if waits_for == "hub":
        edge.settings |= {"hub": f"redis://{HOST}:{silent}/0", "directory": {"from": "hub"}}
    else:
        trust = f"ed25519:{'A' * 43}="
        edge.settings["usage"] = {"collector": f"http://{HOST}:{silent}"}
        edge.settings["directory"] = {"from": "collector", "trust": trust}
    marker = tmp_path / "marker"
    if waits_for == "key service":
        edge.settings["cache_key"] = {"command": ["sh", "-c", f": >{marker}; exec sleep 3600"]}
    with closing(edge):
        process = edge.begin()
        until(lambda: "tending the tables" in edge.output, "the edge starts")
        if waits_for == "key service":
            until(marker.exists, "the key service is asked")
        assert not edge.ready()
        assert process.wait_after(signal.SIGTERM, DRAIN_SECONDS + BEYOND_DRAIN_SECONDS) == 0, edge.output
        until(lambda: not process.family(), "nothing of the edge is left")


@pytest.mark.parametrize("log", ["read", "full", "blocked"])
def test_edge_ends_beside_silent_servers(log: str, silent: int, tmp_path: Path) -> None:
    edge = Edge(tmp_path / "edge", silent)
    write_settings(edge, silent)
    read, write = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    error = {"read": subprocess.DEVNULL, "full": full, "blocked": write}[log]
    with subprocess.Popen([*COMMAND, str(edge.file)], stderr=error) as process:
        try:
            until(edge.ready, "the edge is ready")
            if log == "blocked":
                os.set_blocking(write, False)
                with suppress(BlockingIOError):
                    while True:
                        os.write(write, bytes(4096))
                os.set_blocking(write, True)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert time.monotonic() - began < DRAIN_SECONDS + BEYOND_DRAIN_SECONDS
            until(lambda: not list_processes(tmp_path), "no worker is left", seconds=5)
        finally:
            process.kill()
            for descriptor in (read, write, full):
                os.close(descriptor)
