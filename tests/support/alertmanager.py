"""A real Alertmanager: as config/alertmanager/ has it, with local servers in place of PagerDuty, Slack and mail."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

SERVER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROVIDED = ROOT / "config" / "alertmanager" / "alertmanager.yml"
START_SECONDS = 60.0
PAGERDUTY_KEYS = {"platform": "p" * 32, "billing": "b" * 32}


class Alertmanager:
    """A server with the routes, receivers and inhibitions of `config/alertmanager/`."""

    def __init__(self, folder: Path, web_port: int, mail_port: int) -> None:
        """`web_port` takes what would go to `/pagerduty` and `/slack`, `mail_port` the mail."""
        assert SERVER is not None
        secrets = {
            "slack": f"http://{HOST}:{web_port}/slack",
            "smtp": "p@ss",
            **{f"pagerduty-{team}": key for team, key in PAGERDUTY_KEYS.items()},
        }
        (folder / "secrets").mkdir(parents=True)
        for name, secret in secrets.items():
            (folder / "secrets" / name).write_text(secret)
        shutil.copy(PROVIDED.parent / "edgeproxy.tmpl", folder)
        settings: dict[str, Any] = yaml.safe_load(PROVIDED.read_text().replace("/etc/alertmanager", str(folder)))
        settings["global"] |= {
            "smtp_smarthost": f"{HOST}:{mail_port}",
            "smtp_auth_username": "me",
            "smtp_require_tls": False,
            "pagerduty_url": f"http://{HOST}:{web_port}/pagerduty",
        }
        for route in (settings["route"], *settings["route"]["routes"]):
            route["group_wait"] = "1s"
        file = folder / "alertmanager.yml"
        file.write_text(yaml.safe_dump(settings))
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        listen = [f"--web.listen-address={HOST}:{self.port}", "--cluster.listen-address="]
        storage = f"--storage.path={folder / 'data'}"
        self._process = Process([SERVER, f"--config.file={file}", storage, *listen], folder / "log")
        until(lambda: not self._process.running or self._is_ready(), "Alertmanager is ready", seconds=START_SECONDS)
        assert self._process.running, self._process.output

    def _is_ready(self) -> bool:
        try:
            return ask(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def fetch_states(self) -> dict[str, str]:
        """Return the state of each alert that it has, `active` or `suppressed`, by its name."""
        alerts = ask(self.port, "/api/v2/alerts").json()
        return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in alerts}

    @property
    def output(self) -> str:
        """Its log."""
        return self._process.output

    def close(self) -> None:
        """Kill it."""
        self._process.kill_all()
        self._ports.close()
