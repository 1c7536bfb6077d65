"""The processes of a demonstration: started in the order of their dependencies, and restarted when they die."""

import hashlib
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from edgeproxy.demo.callers import Callers
from edgeproxy.demo.company import ATLAS, Company, register_webhooks
from edgeproxy.demo.data import Data
from edgeproxy.demo.process import Process, find_dead, has_listener
from edgeproxy.demo.services import EDGEPROXY, Services
from edgeproxy.demo.web import send

START_SECONDS = 120.0
"""Seconds until each service must be ready, on a busy machine."""
POLL_SECONDS = 0.1
RESTART_SECONDS = 5.0
"""A process that has been restarted before is restarted again only if it lived for this many seconds."""


class NotReadyError(Exception):
    """The demonstration cannot be served; the message gives the reason."""


class Stage:
    """The processes of a demonstration, stopped in the reverse order of their start."""

    def __init__(self, services: Services, data: Data, ends: ExitStack) -> None:
        self._services = services
        self._data = data
        self._ends = ends
        self._processes: list[Process] = []
        self.admin_token = data.secret("admin token")
        self.company = Company(services, data, self.admin_token)

    def start(self) -> None:
        """Start everything, and return once it serves; raises NotReadyError."""
        services = self._services
        token_hash = hashlib.sha256(self.admin_token.encode()).hexdigest()
        self._add(services.start_stripe())
        history = self._start_history(token_hash) if self._data.is_new else None
        if services.hub is not None:
            self._add(services.start_hub())
        self._add(services.start_api())
        self._add(services.start_mailbox())
        if services.prometheus is not None:
            self._add(services.start_prometheus())
        trust = self._create_signing_key()
        if services.hub is not None:
            self._run(services.start_hub_loader())
        for region in services.regions:  # They wait for the collector.
            self._add(services.start_edge(region, trust))
        self._await(f"{services.stripe}/_sandbox/ready")
        if history is not None:
            self._await_history(history)
            self.company.record_checks()
        services.configure_collector(register_webhooks(services), token_hash)
        self._add(services.start_collector())
        self._await(f"{services.collector}/readyz")
        self.company.create_customers()
        self.company.report_usage()
        self.company.create_webhook()
        self.company.buy_credits()
        self._await_edges()
        self._data.complete()
        callers = Callers(services, self.company)
        self._ends.callback(callers.end)
        callers.start()

    def supervise(self) -> None:
        """Restart dead processes for ever; raises NotReadyError if that does not help."""
        restarted: set[Process] = set()
        while (dead := find_dead(self._processes)) is not None:
            end = dead.describe_end()
            # The first death is always followed by a restart, because the process has served.
            if dead in restarted and time.monotonic() - dead.started_at < RESTART_SECONDS:
                raise NotReadyError(end)
            restarted.add(dead)
            print(f"demo: {end}; it is started again", file=sys.stderr, flush=True)
            dead.restart()

    def _await_edges(self) -> None:
        """Wait for the upstreams, and for the directory on each edge."""
        services = self._services
        for url in (f"{services.api}/status/200", f"{services.mailbox}/mails"):
            self._await(url)
        for region in services.regions:
            self._await(f"{services.admin(region)}/readyz")
            # The directory has reached the edge once it knows the customer who was created last.
            self._await(f"{services.edge(region)}/get", {"X-API-Key": self.company.key(ATLAS)})
        self._await_status()

    def _await_status(self) -> None:
        """Wait until the status page knows that the edges answer."""
        deadline = time.monotonic() + START_SECONDS
        url = f"{self._services.collector}/status.json"
        while not all(one["is_well"] for one in send(url).json["regions"]):
            if time.monotonic() > deadline:
                raise NotReadyError("the status page does not see the edges")
            time.sleep(POLL_SECONDS)

    def _add(self, process: Process) -> None:
        self._processes.append(process)
        self._ends.callback(process.end)

    def _run(self, process: Process) -> None:
        """Wait for a process that ends by itself."""
        find_dead([process], START_SECONDS)
        end = process.describe_end() if find_dead([process], 0) else f"{process.name} does not end"
        process.end(0)
        if "with exit code 0" not in end:
            raise NotReadyError(end)

    def _start_history(self, token_hash: str) -> subprocess.Popen[bytes]:
        self._services.configure_collector("whsec_none", token_hash)
        history = self._services.start_history()
        self._ends.callback(history.wait)
        self._ends.callback(history.kill)
        return history

    def _await_history(self, history: subprocess.Popen[bytes]) -> None:
        """Wait for the months before the first start; raises NotReadyError."""
        output, _ = history.communicate()
        if history.returncode:
            raise NotReadyError(f"the history ended with exit code {history.returncode}: see logs/history.log")
        for customer, keys in json.loads(output).items():
            for name, secret in keys.items():
                self.company.add_key(customer, name, secret)

    def _await(self, url: str, headers: dict[str, str] | None = None) -> None:
        """Return once a URL of ours answers 200; raises NotReadyError when a process dies first, or it takes too long.

        Another process may have taken the port since it was claimed: then that process answers, and ours dies.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if send(url, headers=headers, seconds=2).status == 200 and has_listener(urlsplit(url).port or 0):
                    return
            except OSError:
                pass
            if dead := find_dead(self._processes, POLL_SECONDS):
                raise NotReadyError(dead.describe_end())
        raise NotReadyError(f"{url} was not ready within {START_SECONDS:.0f} s")

    def _create_signing_key(self) -> str:
        """Create the key that signs the directory, at the first start; return its public half."""

        def create() -> str:
            file = self._data.path("directory.key")
            file.unlink(missing_ok=True)
            command = [*EDGEPROXY, "directory", "keygen", str(file)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

        return self._data.secret("directory trust", create)
