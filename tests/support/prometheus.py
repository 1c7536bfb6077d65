"""A real Prometheus: as config/prometheus/ has it, scraping servers of a test each second."""

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

SERVER = shutil.which("prometheus")
PROVIDED = ROOT / "config" / "prometheus" / "prometheus.yml"
START = 60.0
"""Seconds within which it is ready, and its targets were scraped."""


class Prometheus:
    """A server with the rules and jobs of `config/prometheus/`."""

    def __init__(
        self, folder: Path, targets: Mapping[str, int | str], *, alertmanager: int | None = None, runbooks: str = ""
    ) -> None:
        """`targets` gives the port or HOST:PORT of each job. Its labels stay. Jobs without a target are left out."""
        assert SERVER is not None
        folder.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_load(PROVIDED.read_text())
        settings["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["global"]["external_labels"]["runbooks"] = runbooks
        addresses = [] if alertmanager is None else [f"{HOST}:{alertmanager}"]
        settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = addresses
        settings["rule_files"] = [str(PROVIDED.parent / name) for name in settings["rule_files"]]
        settings["scrape_configs"] = [job for job in settings["scrape_configs"] if job["job_name"] in targets]
        for job in settings["scrape_configs"]:
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(
                    PROVIDED.parent / job["authorization"]["credentials_file"]
                )
            target = targets[job["job_name"]]
            job["static_configs"][0]["targets"] = [target if isinstance(target, str) else f"{HOST}:{target}"]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(settings))
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        storage, listen = f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={HOST}:{self.port}"
        # An alert that fires before Alertmanager is known is sent a minute later by default.
        resend = "--rules.alert.resend-delay=1s"
        self._process = Process([SERVER, f"--config.file={file}", storage, listen, resend], folder / "log")
        self._jobs = set(targets)
        until(lambda: not self._process.running or self._ready(), "Prometheus is ready", seconds=START)
        assert self._process.running, self._process.output

    def _ready(self) -> bool:
        try:
            return (
                ask(self.port, "/-/ready").status == 200
                and {sample["metric"]["job"] for sample in self.asked("up == 1")} == self._jobs
            )
        except OSError:
            return False

    def asked(self, expression: str) -> list[dict[str, Any]]:
        """Return the current samples of an expression. Fails if the expression is invalid."""
        answer = ask(self.port, "/api/v1/query?" + urlencode({"query": expression}))
        assert answer.status == 200, f"{expression}: {answer.body.decode()}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def list_alerts(self, since: datetime) -> list[dict[str, str]] | None:
        """List the labels of the pending and firing alerts, or return None if a rule was not evaluated since a time."""
        groups = ask(self.port, "/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert all(rule["health"] != "err" for rule in rules), rules
        if any(datetime.fromisoformat(rule["lastEvaluation"]) < since for rule in rules):
            return None
        return [alert["labels"] for rule in rules for alert in rule.get("alerts", ())]

    def close(self) -> None:
        """Kill it."""
        self._process.kill_all()
        self._ports.close()
