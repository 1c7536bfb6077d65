"""A real edge: a supervisor and its workers, with their own configuration file and ports."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from loadtest.testbed.customers import people
from loadtest.testbed.fork_server import EDGE_PYTHON
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.slow_edge import edge_command
from loadtest.testbed.waiting import stretched, until

COMMAND = edge_command("edgeproxy", "edge", "-c")
START = 60.0
"""Seconds within which an edge becomes ready."""
TROUBLE = re.compile(r'.*(?:Traceback|"level": ?"(?:critical|exception)"|task died|never retrieved|never awaited).*')
"""Log lines that no edge may ever write, whatever happens to it."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Edge:
    """An edge and its state directory. It can be stopped, or killed in parts, and started again on its state."""

    def __init__(self, folder: Path, upstream: int, **settings: Any) -> None:
        """`settings` replace the defaults below. `upstream` is the port of `api`, which gets all requests by
        default.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.file = folder / "edge.yaml"
        self._ports = Ports(2)
        self.port, self.admin = self._ports.numbers
        self.supervisors: list[Process] = []
        self.command: tuple[str, ...] = COMMAND
        self.environ: dict[str, str] = {}
        """The command and environment of the next start. Both may be changed between two starts."""
        self.settings: dict[str, Any] = {
            "region": "eu-test",
            "listen": f"{HOST}:{self.port}",
            "admin": f"{HOST}:{self.admin}",
            "workers": 2,
            "state": str(folder / "state"),
            "meters": {"requests": {"count": "requests"}},
            "upstreams": {
                "api": {"endpoints": [f"http://{HOST}:{upstream}"], "timeouts": {"response_head": stretched(60)}}
            },
            "routes": [{"name": "all", "path": "/*", "upstream": "api"}],
            "tables": {"customers": 2000, "addresses": 2000},
            "drain": "5s",
            # A machine that runs many tests at once stalls now and then. The edge must not shed requests for that.
            "overload": {"lag": "5s"},
            **people(),
            **settings,
        }

    # ---- life

    def start(self, **settings: Any) -> "Edge":
        """Start a supervisor, with these settings changed, beside running ones. Returns once it is ready."""
        supervisor = self.begin(**settings)
        until(lambda: not supervisor.running or self.ready(), "the edge is ready", seconds=START)
        assert supervisor.running, supervisor.output
        return self

    def begin(self, **settings: Any) -> Process:
        """Start a supervisor without waiting."""
        self.write(**settings)
        command: list[str | Path] = [*self.command, self.file]
        supervisor = Process(command, self._folder / "log", family=self.family_name, environ=self.environ)
        self.supervisors.append(supervisor)
        return supervisor

    def write(self, **settings: Any) -> None:
        """Change these settings in the file, without a reload."""
        self.settings.update(settings)
        self.file.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def reload(self, **settings: Any) -> Answer:
        """Change these settings and send `POST /reload`."""
        self.write(**settings)
        return ask(self.admin, "/reload", method="POST")

    def ready(self) -> bool:
        """Return whether `/readyz` answers 200."""
        try:
            return ask(self.admin, "/readyz").status == 200
        except OSError:
            return False

    @property
    def family_name(self) -> str:
        return f"edge-{self.port}-{self.admin}-{self._folder}"

    @property
    def supervisor(self) -> Process:
        """The last started supervisor."""
        return self.supervisors[-1]

    def end(self) -> None:
        """Send SIGTERM and require exit code 0 and the end of all processes."""
        code = self.supervisor.wait_after(signal.SIGTERM, 60.0)
        assert code == 0, f"exit code {code}: {self.supervisor.output}"
        until(lambda: not self.supervisor.family(), "nothing of the edge is left")

    def close(self) -> None:
        """Stop the edge if it still runs, and check its output. Kills all remaining processes in any case."""
        try:
            if self.supervisors and self.supervisor.running:
                self.end()
            assert not self.trouble(), self.trouble()
        finally:
            if self.supervisors:
                self.supervisor.kill_all()
                print(self.output[-20_000:])  # pytest shows it if the test failed
            self._ports.close()

    @property
    def output(self) -> str:
        """The output of all its processes."""
        return self.supervisor.output

    def trouble(self) -> list[str]:
        """Return the lines of the output that report a fault in the edge."""
        return TROUBLE.findall(self.output) if self.supervisors else []

    def worker_pids(self) -> list[int]:
        """Return the pids of the current supervisor's serving workers."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def template_pids(self) -> set[int]:
        """Return the template processes that workers are forked from: one per supervisor, or none with a fork server
        (fork_server.py).
        """
        family = self.supervisor.family()
        if sys.executable != EDGE_PYTHON:  # The command line of an emulated process is the emulator's.
            return {pid for pid in family if not _has_event_loop(pid)}
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family}
        return {pid for pid, line in lines.items() if line.rstrip(b"\0").endswith(b"\0template")}

    # ---- state

    def ask(self, path: str = "/", **how: Any) -> Answer:
        """Send one request as a client."""
        return ask(self.port, path, **how)

    def _told(self, path: str) -> Answer:
        answer = ask(self.admin, path)
        assert answer.status == 200, answer
        return answer

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = self._told("/status").json()
        return body

    def usage(self, name: str = "requests") -> dict[str, int]:
        """Return the counted requests, or units of another meter, by customer."""
        counted: dict[str, int] = {}
        for customer, meter, _, total in self._told("/usage").json()["rows"]:
            if meter == name:
                counted[customer] = counted.get(customer, 0) + total
        return counted

    def limits(self, customer: str) -> list[dict[str, Any]]:
        """Return the current state of this customer's policies."""
        policies: list[dict[str, Any]] = self._told(f"/limits/{customer}").json()["policies"]
        return policies

    def limit(self, customer: str) -> dict[str, Any]:
        """Return the only policy of this customer."""
        (policy,) = self.limits(customer)
        return policy

    def metrics(self) -> Samples:
        """Return every sample of `/metrics`, by name and sorted labels."""
        families = text_string_to_metric_families(self._told("/metrics").body.decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def _has_event_loop(pid: int) -> bool:
    """Return whether a process waits for descriptors, as supervisors and workers do and templates do not."""
    files = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(file) == "anon_inode:[eventpoll]" for file in files.iterdir())
    except OSError:  # It has ended.
        return True


StartEdge = Callable[..., Edge]
"""The type of the fixture `start_edge`: keywords are settings; `port` is the port of another upstream."""


def total(samples: Samples, name: str, /, **labels: str) -> float:
    """Return the sum of all samples of this name that have these labels."""
    expected = set(labels.items())
    return sum(value for (found, its), value in samples.items() if found == name and expected <= set(its))
