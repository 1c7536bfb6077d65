"""A real collector: a separate process with its own configuration file and port."""

import hashlib
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.main import check_ledger
from edgeproxy.config.collector.load import load_collector
from edgeproxy.wire.batch import Batch, format_batch, format_headers
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process, kill
from loadtest.testbed.tables_ready import put_tables
from loadtest.testbed.waiting import until

COMMAND = (sys.executable, "-m", "edgeproxy", "collector", "-c")
START = 30.0
"""Seconds within which a collector becomes ready."""
EDGE, READ, ADMIN, SERVICE = "edge-token", "read-token", "admin-token", "service-token"
"""Tokens with these roles."""
NAMED: dict[str, dict[str, Any]] = {ADMIN: {"name": "admin", "sensitive": True}}
"""Further settings of tokens."""
ONE, REGIONAL, OWN = "one-edge-token", "one-region-token", "one-customer-token"
"""Tokens that are bound: to the edge `bound`, the region `eu-bound`, the customer `bound`."""


def sha256(token: str) -> str:
    """Return the hash of a token for a configuration."""
    return hashlib.sha256(token.encode()).hexdigest()


def checked(collector: "Collector") -> tuple[int, str]:
    """Return the result of `check_ledger`, which `edgeproxy verify` prints."""
    return check_ledger(load_collector(collector.file, os.environ))


def verified(collector: "Collector") -> tuple[int, str]:
    """Run `edgeproxy verify`; return its exit code and output."""
    done = CliRunner().invoke(cli.app, ["verify", "-c", str(collector.file)])
    return done.exit_code, done.output


COUPONS = {"LAUNCH20": {"percent_off": "20%", "max_redemptions": 1_000_000}}
PLANS = str(ROOT / "loadtest/testbed/plans.yaml")
SOLD = {name: {"count": "events"} for name in ("llm_tokens", "agent_executions", "api_calls", "storage_gb", "seats")}
"""The meters of these plans."""


class Collector:
    """A collector on a database. It can be stopped or killed, and started again on its data."""

    def __init__(self, folder: Path, database: str, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.file = folder / "collector.yaml"
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self.process: Process | None = None
        self.command: tuple[str, ...] = COMMAND
        self.environ: dict[str, str] = {}
        """The command and environment of the next start. Both may be changed between two starts."""
        roles = {EDGE: "edge", READ: "read", ADMIN: "admin", SERVICE: "service"}
        self.settings: dict[str, Any] = {
            "listen": f"{HOST}:{self.port}",
            "database": database,
            "tokens": [
                *({"sha256": sha256(token), "role": role, **NAMED.get(token, {})} for token, role in roles.items()),
                {"sha256": sha256(ONE), "role": "edge", "edge": "bound"},
                {"name": "regional", "sha256": sha256(REGIONAL), "role": "edge", "region": "eu-bound"},
                {"sha256": sha256(OWN), "customer": "bound"},
            ],
            "tiers": {name: {} for name in ("basic", "free", "standard", "enterprise")},
            # Plans name tiers, so a test with tiers of its own gets no plans.
            **({} if "tiers" in settings else {"billing": {"plans": PLANS, "credits": {}, "coupons": COUPONS}}),
            "customers": {name: {"tier": "basic"} for name in ("acme", "bolt", "bound")},
            "retention": {"minutes": "forever"},  # Tests query minutes of any time.
            # Tests share a collector: each ships as edges of its own and changes its own customers.
            "edges": {"per_token": 1_000_000},
            "changes_per_minute": {"customers": 1_000_000, "operators": 1_000_000},
            **settings,
        }

    # ---- life

    def start(self) -> "Collector":
        """Start the collector and return once it is ready."""
        process = self.begin()
        until(lambda: not process.running or self.ready(), "the collector is ready", seconds=START)
        assert process.running, process.output
        return self

    def begin(self) -> Process:
        """Start the collector without waiting."""
        self.write()
        put_tables(self.settings["database"])
        self.process = Process([*self.command, self.file], self._folder / "log", environ=self.environ)
        return self.process

    def write(self) -> None:
        """Write its configuration. If it sells the plans, it has their meters too."""
        said = self.settings
        if "meters" in said and said.get("billing", {}).get("plans") == PLANS:
            said = {**said, "meters": {**SOLD, **said["meters"]}}
        self.file.write_text(yaml.safe_dump(said, sort_keys=False))

    def ready(self) -> bool:
        """Return whether `/readyz` answers 200."""
        try:
            return ask(self.port, "/readyz").status == 200
        except OSError:
            return False

    def end(self) -> None:
        """Send SIGTERM and require exit code 0."""
        assert self.process is not None
        code = self.process.wait_after(signal.SIGTERM, 60.0)
        assert code == 0, f"exit code {code}: {self.process.output}"
        assert '"task died"' not in self.output, self.output
        # An end by the deadline has code 0 too, but leaves connections open, and rows in SQLite's write-ahead log.
        assert "the process is ended" not in self.output, self.output

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        kill(self.process.pid)
        self.process.wait(10.0)

    def close(self) -> None:
        """Stop the collector if it still runs."""
        try:
            if self.process is not None and self.process.running:
                self.end()
        finally:
            if self.process is not None:
                self.process.kill_all()
                print(self.process.output[-20_000:])  # pytest shows it if the test failed
            self._ports.close()

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def database(self) -> Path:
        """Return the file of its SQLite database."""
        return Path(self.settings["database"].removeprefix("sqlite:///"))

    def execute(self, statement: str, *rows: Sequence[object]) -> list[Any]:
        """Run a statement on its SQLite database, with each row of values if there are any. Return its last rows."""
        with closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            return [database.execute(statement, row).fetchall() for row in rows or [()]][-1]

    @property
    def output(self) -> str:
        """Its output."""
        assert self.process is not None
        return self.process.output

    # ---- requests

    def post(
        self, batch: Batch | bytes, *, token: str | None = EDGE, fields: Mapping[str, str] | None = None
    ) -> Answer:
        """Ship a batch, or any bytes; `fields` replace its headers."""
        sent = batch if isinstance(batch, bytes) else format_batch(batch)
        said = {} if isinstance(batch, bytes) else format_headers(batch, sent)
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        return ask(self.port, "/v1/batches", method="POST", fields={**said, **(fields or {})}, body=sent)

    def get(self, path: str, *, token: str | None = READ, **query: str) -> Answer:
        """Send a GET."""
        fields = {} if token is None else {"Authorization": f"Bearer {token}"}
        return ask(self.port, f"{path}?{urlencode(query)}" if query else path, fields=fields)

    def patch(self, path: str, content: bytes, token: str = ADMIN) -> Answer:
        """Send a PATCH."""
        fields = {"Authorization": f"Bearer {token}"}
        return ask(self.port, path, method="PATCH", fields=fields, body=content)

    def send(
        self, method: str, path: str, content: object = None, *, token: str | None = ADMIN, **fields: str
    ) -> Answer:
        """Send a change as JSON or raw bytes. In names of `fields`, _ stands for -."""
        said = {name.replace("_", "-"): value for name, value in fields.items()}
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        body = content if isinstance(content, bytes) else b"" if content is None else orjson.dumps(content)
        return ask(self.port, path, method=method, fields=said, body=body)

    def usage(self, *, token: str = READ, **query: str) -> dict[str, Any]:
        """Return the usage in the ledger, by default of all times."""
        answer = self.get("/v1/usage", token=token, **{"from": "1970-01-01", **query})
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.json()
        return body

    def counted(self, *chains: Chain) -> int:
        """Return the usage that the ledger holds for the regions of these chains."""
        rows = self.usage(by="region")["rows"]
        return sum(row["value"] for row in rows if row["region"] in {chain.region for chain in chains})

    def edges(self) -> dict[str, dict[str, Any]]:
        """Return the status of all edges, by name."""
        answer = self.get("/v1/edges")
        assert answer.status == 200, answer
        return {edge["edge"]: edge for edge in answer.json()["edges"]}

    def metric(self, name: str, /, **labels: str) -> float:
        """Return the value of a sample of `/metrics`."""
        families = text_string_to_metric_families(ask(self.port, "/metrics").body.decode())
        (value,) = [s.value for family in families for s in family.samples if s.name == name and s.labels == labels]
        return value
