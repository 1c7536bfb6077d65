"""Kubernetes's handling of a pod of a rendered StatefulSet, with processes of this host as containers.

Arguments, settings, probes, preStop, signals and times are from the manifest. Only paths and ports differ, because
pods here share a file system and a network.
"""

import asyncio
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.threaded_server import Threaded
from loadtest.testbed.waiting import until

PROPAGATION_SECONDS = 1.0
"""Seconds until nodes know that a pod became ready or unready."""


class Service(Threaded):
    """A Service as clients see it: new connections go in turn to the pods that nodes consider ready."""

    def __init__(self) -> None:
        super().__init__("service")
        self.port = 0
        self.endpoints: list[int] = []
        """Ports of pods."""
        self._turn = 0

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        port = self.endpoints[self._turn % len(self.endpoints)]
        try:
            pod_reader, pod_writer = await asyncio.open_connection(HOST, port)
        except OSError:
            writer.transport.abort()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, pod_writer))
            group.create_task(_copy(pod_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


class Pod:
    """One pod of a StatefulSet and its volume, over all of its containers."""

    def __init__(
        self, folder: Path, stateful_set: dict[str, Any], files: dict[str, str], environ: dict[str, str]
    ) -> None:
        self._spec = stateful_set["spec"]["template"]["spec"]
        (self._container,) = self._spec["containers"]
        self.environ = environ
        """The environment of the container; may be changed between two starts."""
        self._folder = folder
        self._ports = Ports(2)
        self.port, self.admin = self._ports.numbers
        self._names = {"http": self.port, "admin": self.admin}
        places = {
            "0.0.0.0:8080": f"{HOST}:{self.port}",
            "0.0.0.0:9090": f"{HOST}:{self.admin}",
            "/var/lib/edgeproxy": str(folder / "volume"),
        }
        config = folder / "config"
        config.mkdir(parents=True)
        for name, text in files.items():
            (config / name).write_text(reduce(lambda said, place: said.replace(*place), places.items(), text))
        self._arguments = [argument.replace("/etc/edgeproxy", str(config)) for argument in self._container["args"]]
        self.process: Process | None = None

    def start(self) -> None:
        """Run the container until its startup probe passes."""
        command = [sys.executable, "-m", "edgeproxy", *self._arguments]
        self.process = process = Process(command, self._folder / "log", environ=self.environ)
        probe = self._container["startupProbe"]
        seconds = probe["periodSeconds"] * probe["failureThreshold"]
        until(lambda: not process.running or self.passes("startupProbe"), "the startup probe passes", seconds=seconds)
        assert process.running, process.output

    def passes(self, probe: str) -> bool:
        """Return whether this probe of the container passes now."""
        action = self._container[probe]["httpGet"]
        try:
            return 200 <= ask(self._names[action["port"]], action["path"]).status < 400
        except OSError:
            return False

    def terminate(self) -> float:
        """Run preStop, then send SIGTERM; the container must end in time. Returns the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        subprocess.run(self._container["lifecycle"]["preStop"]["exec"]["command"], check=True)
        code = self.process.wait_after(signal.SIGTERM, self._spec["terminationGracePeriodSeconds"])
        took = time.monotonic() - began
        assert code == 0, f"{shlex.join(self._arguments)}: exit code {code}: {self.process.output}"
        assert took < self._spec["terminationGracePeriodSeconds"], "SIGKILL would have come first"
        return took

    def close(self) -> None:
        """Kill all remaining processes."""
        if self.process is not None:
            self.process.kill_all()
            print(self.process.output[-10_000:])
        self._ports.close()


@contextmanager
def ready_pods(service: Service, pods: list[Pod]) -> Iterator[None]:
    """Run these pods in the Service."""
    try:
        for pod in pods:
            pod.start()
            until(lambda pod=pod: pod.passes("readinessProbe"), "the pod is ready")  # type: ignore[misc]
        service.endpoints = [pod.port for pod in pods]
        yield
    finally:
        for pod in pods:
            pod.close()


def roll_out(service: Service, pods: list[Pod]) -> None:
    """Replace each container, the last pod first, as a StatefulSet does: the next once this one is ready again."""
    for pod in reversed(pods):
        others = [port for port in service.endpoints if port != pod.port]
        with told_later(service, others):
            pod.terminate()
        pod.start()
        until(lambda pod=pod: pod.passes("readinessProbe"), "the pod is ready")  # type: ignore[misc]
        with told_later(service, [*others, pod.port]):
            pass


@contextmanager
def told_later(service: Service, endpoints: list[int]) -> Iterator[None]:
    """Tell nodes of these pods after a delay, at the latest at the end."""
    news = threading.Timer(PROPAGATION_SECONDS, setattr, (service, "endpoints", endpoints))
    news.start()
    yield
    news.join()
