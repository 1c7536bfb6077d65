"""A real edge: a supervisor and its workers, from a configuration file, on ports of its own."""

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
"""Seconds within which an edge is ready."""
TROUBLE = re.compile(r'.*(?:Traceback|"level": ?"(?:critical|exception)"|task died|never retrieved|never awaited).*')
"""What no edge may ever write, however it is treated."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Edge:
    """An edge and its state directory. It can be ended, or killed in parts, and started again on what is there."""

    def __init__(self, folder: Path, upstream: int, **settings: Any) -> None:
        """`settings` replace those below; `upstream` is the port of `api`, which gets everything by default."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.file = folder / "edge.yaml"
        self._ports = Ports(2)
        self.port, self.admin = self._ports.numbers
        self.supervisors: list[Process] = []
        self.command: tuple[str, ...] = COMMAND
        self.environ: dict[str, str] = {}
        """What starts it, and in which environment; both may be changed between two starts."""
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
            # A machine that runs many tests at once stands still now and then: nobody is to be shed for that.
            "overload": {"lag": "5s"},
            **people(),
            **settings,
        }

    # ---- life

    def start(self, **settings: Any) -> "Edge":
        """Start a supervisor, with these settings changed, beside whatever runs; returns once it is ready."""
        supervisor = self.begin(**settings)
        until(lambda: not supervisor.running or self.ready(), "the edge is ready", seconds=START)
        assert supervisor.running, supervisor.output
        return self

    def begin(self, **settings: Any) -> Process:
        """`start` without waiting."""
        self.write(**settings)
        command: list[str | Path] = [*self.command, self.file]
        supervisor = Process(command, self._folder / "log", family=self.family_name, environ=self.environ)
        self.supervisors.append(supervisor)
        return supervisor

    def write(self, **settings: Any) -> None:
        """Change these settings in the file; nobody is told."""
        self.settings.update(settings)
        self.file.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def reload(self, **settings: Any) -> Answer:
        """`POST /reload` with these settings changed."""
        self.write(**settings)
        return ask(self.admin, "/reload", method="POST")

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            return ask(self.admin, "/readyz").status == 200
        except OSError:
            return False

    @property
    def family_name(self) -> str:
        return f"edge-{self.port}-{self.admin}-{self._folder}"

    @property
    def supervisor(self) -> Process:
        """The one that was started last."""
        return self.supervisors[-1]

    def end(self) -> None:
        """SIGTERM: the supervisor must leave with code 0, and nothing of it may stay behind."""
        code = self.supervisor.wait_after(signal.SIGTERM, 60.0)
        assert code == 0, f"exit code {code}: {self.supervisor.output}"
        until(lambda: not self.supervisor.family(), "nothing of the edge is left")

    def close(self) -> None:
        """`end` where it still runs, and look at what it wrote. Kills what is left, however it went."""
        try:
            if self.supervisors and self.supervisor.running:
                self.end()
            assert not self.trouble(), self.trouble()
        finally:
            if self.supervisors:
                self.supervisor.kill_all()
                print(self.output[-20_000:])  # shown where the test failed
            self._ports.close()

    @property
    def output(self) -> str:
        """All that its processes have written."""
        return self.supervisor.output

    def trouble(self) -> list[str]:
        """Lines of the output that tell of a fault in the edge."""
        return TROUBLE.findall(self.output) if self.supervisors else []

    def worker_pids(self) -> list[int]:
        """The workers that serve and have this supervisor."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def template_pids(self) -> set[int]:
        """The processes that workers are forked from: one for each supervisor, and none where a fork server makes them
        (fork_server.py)."""
        family = self.supervisor.family()
        if sys.executable != EDGE_PYTHON:  # Of an emulated process the command line is the emulator's.
            return {pid for pid in family if not _has_event_loop(pid)}
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family}
        return {pid for pid, line in lines.items() if line.rstrip(b"\0").endswith(b"\0template")}

    # ---- what it knows

    def ask(self, path: str = "/", **how: Any) -> Answer:
        """One request of a client."""
        return ask(self.port, path, **how)

    def _told(self, path: str) -> Answer:
        answer = ask(self.admin, path)
        assert answer.status == 200, answer
        return answer

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self._told("/status").json()
        return told

    def usage(self, name: str = "requests") -> dict[str, int]:
        """The requests that were counted, or the units of another meter, by customer."""
        counted: dict[str, int] = {}
        for customer, meter, _, total in self._told("/usage").json()["rows"]:
            if meter == name:
                counted[customer] = counted.get(customer, 0) + total
        return counted

    def limits(self, customer: str) -> list[dict[str, Any]]:
        """The policies of this customer, as they stand."""
        policies: list[dict[str, Any]] = self._told(f"/limits/{customer}").json()["policies"]
        return policies

    def limit(self, customer: str) -> dict[str, Any]:
        """The only policy of this customer."""
        (policy,) = self.limits(customer)
        return policy

    def metrics(self) -> Samples:
        """Every sample of `/metrics`: by name and sorted labels."""
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
"""The fixture `start_edge`: its keywords are settings, and `port` that of another upstream."""


def total(samples: Samples, name: str, /, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, its), value in samples.items() if found == name and wanted <= set(its))
