"""`edgeproxy probe --through`: a real edge, and the collector that it ships to or does not."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.probe.money import PURCHASE_MILLICREDITS
from loadtest.testbed.collector import ADMIN, EDGE, Collector, sha256
from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import KEY, Sandbox

TOKEN = "token-of-probe"
GIVEN = 1_000_000
"""Millicredits that the probe's customer was given."""
FREE = ("request", "limits", "usage")
PAID = ("charge", "books", "checkout", "purchase")


class Site(NamedTuple):
    """An edge, its collector, and the Stripe of that."""

    edge: Edge
    collector: Collector
    sandbox: Sandbox

    def arguments(self) -> list[str]:
        """Of a probe of both."""
        ask_for = [f"http://{HOST}:{self.edge.port}/", "--collector", f"http://{HOST}:{self.collector.port}/"]
        return ["probe", "--through", *ask_for, "--within", "20s"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One that is well."""
    folder = tmp_path_factory.mktemp("probe")
    with ExitStack() as ends:
        upstream = Upstream(folder / "upstream")
        ends.callback(upstream.stop)
        sandbox = ends.enter_context(closing(Sandbox(folder / "sandbox"))).start()
        (key := folder / "key").write_text(KEY)
        billing = {
            "plans": str(ROOT / "loadtest/testbed/plans.yaml"),
            "mode": "live",
            "credits": {},
            "stripe": {"base": sandbox.url, "key": str(key), "webhook_secrets": str(folder / "secrets")},
        }
        meters = {"requests": {"count": "requests"}, "cost": {"count": "cost"}}
        made = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", billing=billing, meters=meters)
        collector = ends.enter_context(closing(made))
        collector.settings["tokens"].append({"sha256": sha256(TOKEN), "customer": "probe"})

        secret = sandbox.listen(f"http://{HOST}:{collector.port}/billing/webhooks/stripe")
        (folder / "secrets").write_text(secret)
        edge = ends.enter_context(closing(Edge(folder / "edge", upstream.port, meters=meters, **people(probe="pro"))))
        usage = {"collector": f"http://{HOST}:{collector.port}", "token": EDGE, "every": "200ms"}
        collector.start()
        edge.start(usage=usage)
        assert collector.send("POST", "/v1/customers", {"name": "probe", "tier": "basic"}).status == 201
        gift = {"customer": "probe", "millicredits": GIVEN, "why": "for the probe"}
        assert collector.send("POST", "/billing/credits/adjust", gift).status == 201
        yield Site(edge, collector, sandbox)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_PROBE_KEY", key_of("probe"))
    monkeypatch.setenv("EDGEPROXY_PROBE_TOKEN", TOKEN)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return the samples by name and last label."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, [*sample.labels.values()][-1]): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.usefixtures("secrets")
def test_probe_checks_the_answer_limit_fields_and_usage(site: Site, tmp_path: Path) -> None:
    told = tmp_path / "edge.prom"
    for _ in range(2):
        done = CliRunner().invoke(cli.app, [*site.arguments(), "--textfile", str(told)])
        assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[step, "ok,"] for step in FREE]
    found = samples(told.read_text())
    assert {step: found["edgeproxy_probe_ok", step] for step in FREE} == dict.fromkeys(FREE, 1)
    assert found["edgeproxy_probe_seconds", "usage"] > found["edgeproxy_probe_seconds", "limits"]
    assert told.stat().st_mode & 0o444 == 0o444, "node_exporter reads it as another user"


@pytest.mark.usefixtures("secrets")
def test_probe_measures_request_cost_and_a_booked_purchase(site: Site, tmp_path: Path) -> None:
    told = tmp_path / "edge.prom"

    def booked() -> int:
        balance: int = site.collector.get("/billing/balance", token=TOKEN).json()["balance"]
        return balance

    before = booked()
    done = CliRunner().invoke(cli.app, [*site.arguments(), "--charge", "--checkout", "--textfile", str(told)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[step, "ok,"] for step in (*FREE, *PAID)]
    found = samples(told.read_text())
    assert {step: found["edgeproxy_probe_ok", step] for step in PAID} == dict.fromkeys(PAID, 1)
    assert booked() == before + PURCHASE_MILLICREDITS


@pytest.mark.usefixtures("secrets")
def test_probe_reports_free_requests_a_wrong_balance_and_a_lost_purchase(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_PROBE_KEY", key_of(UNLIMITED))  # Of another customer: its requests cost that one.

    def shift(by: int) -> None:
        with closing(sqlite3.connect(site.collector.database)) as database, database:
            database.execute("UPDATE credit_balances SET balance = balance + ?", (by,))

    site.sandbox.faults({"kind": "webhook_lost", "path": "checkout.session.completed"})
    shift(1)
    try:
        done = CliRunner().invoke(cli.app, [*site.arguments(), "--charge", "--checkout", "--within", "2s"])
    finally:
        site.sandbox.faults()
        shift(-1)
    assert done.exit_code == 1
    said = dict(line.split(maxsplit=1) for line in done.stderr.splitlines())
    assert said.keys() == {"limits", "usage", "charge", "books", "purchase"}
    assert "the request has cost no credits after 2 s" in said["charge"]
    assert "and what is booked comes to" in said["books"]
    assert "is paid, and its credits are not booked after 2 s" in said["purchase"]


@pytest.mark.usefixtures("secrets")
def test_probe_secrets_appear_in_no_log_database_file_or_process_list(site: Site, tmp_path: Path) -> None:
    """From a request by way of its charge to a purchase, and with a Stripe that refuses the key."""
    command = [*site.arguments(), "--charge", "--checkout"]
    site.sandbox.faults({"kind": "refused", "path": "/v1/checkout", "count": 1})
    environ = {"EDGEPROXY_PROBE_KEY": key_of("probe"), "EDGEPROXY_PROBE_TOKEN": TOKEN}
    with closing(Ports(1)) as ports:
        listen = f"{HOST}:{ports.numbers[0]}"
        log = tmp_path / "probe.log"
        probe = Process(
            [sys.executable, "-m", "edgeproxy", *command, "--every", "300ms", "--listen", listen], log, environ=environ
        )
        try:
            until(lambda: "purchase ok" in probe.output, "a purchase is followed to its credits")
            processes = {
                pid: Path(f"/proc/{pid}/cmdline").read_bytes()
                for one in (probe, site.edge.supervisor, site.collector.process, site.sandbox.process)
                if one is not None
                for pid in one.family()
            }
        finally:
            site.sandbox.faults()
            assert probe.stop() == 0, probe.output
    assert "checkout FAILED" in probe.output
    assert len(processes) >= 6, "the probe, the supervisor and two workers, the collector, the sandbox"
    folder = site.collector.database.parent
    secrets = [KEY, (folder / "secrets").read_text(), key_of("probe"), TOKEN, EDGE, ADMIN]
    databases = {file.name: file.read_bytes() for file in folder.glob(f"{site.collector.database.name}*")}
    state = Path(site.edge.settings["state"])
    kept = {str(file): file.read_bytes() for file in state.rglob("*") if file.is_file()}
    assert databases
    assert kept
    logs = {"edge": site.edge.output, "collector": site.collector.output, "probe": probe.output}
    places = {**processes, **databases, **kept, **{name: said.encode() for name, said in logs.items()}}
    found = {(where, secret) for where, content in places.items() for secret in secrets if secret.encode() in content}
    assert not found


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("key", "token", "failed"),
    [
        ("key-of-nobody", TOKEN, {"request": "the request was answered 401"}),
        (
            key_of(UNLIMITED),
            TOKEN,
            {"limits": "the answer has no RateLimit fields", "usage": "is not in the collector"},
        ),
        (key_of("probe"), "unknown", {"usage": "the collector answered 401"}),
    ],
    ids=["its key is not known", "it has no limits, and the token is another customer's", "its token is not known"],
)
def test_a_probe_that_fails_names_the_step_and_why(
    key: str, token: str, failed: dict[str, str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_PROBE_KEY", key)
    monkeypatch.setenv("EDGEPROXY_PROBE_TOKEN", token)
    done = CliRunner().invoke(cli.app, [*site.arguments(), "--within", "500ms"])
    assert done.exit_code == 1
    said = dict(line.split(maxsplit=1) for line in done.stderr.splitlines())
    assert said.keys() == failed.keys()
    for step, why in failed.items():
        assert why in said[step]
    assert key not in done.output
    assert token not in done.output


@pytest.mark.usefixtures("secrets")
def test_probe_fails_without_an_edge_and_for_one_that_does_not_ship(site: Site) -> None:
    well = site.edge.settings["usage"]
    with closing(Ports(1)) as ports:
        nobody = f"http://{HOST}:{ports.numbers[0]}"
        done = CliRunner().invoke(cli.app, ["probe", "--through", nobody])
        assert done.exit_code == 1
        assert done.stderr.startswith(f"request  FAILED: nobody answers at {nobody}")
        try:
            assert site.edge.reload(usage={**well, "collector": nobody}).status == 200
            done = CliRunner().invoke(cli.app, [*site.arguments(), "--within", "1s"])
        finally:
            assert site.edge.reload(usage=well).status == 200
    assert done.exit_code == 1
    assert done.stdout.split()[::4] == ["request", "limits"]
    assert done.stderr == "usage    FAILED: the request is not in the collector's usage after 1 s\n"


def test_probe_runs_and_serves_its_results_until_stopped(site: Site, tmp_path: Path) -> None:
    environ = {"EDGEPROXY_PROBE_KEY": key_of("probe"), "EDGEPROXY_PROBE_TOKEN": TOKEN}
    with closing(Ports(1)) as ports:
        (port,) = ports.numbers
        command = [
            sys.executable,
            "-m",
            "edgeproxy",
            *site.arguments(),
            "--every",
            "300ms",
            "--listen",
            f"{HOST}:{port}",
        ]
        process = Process(command, tmp_path / "log", environ=environ)

        def rounds() -> float:
            try:
                return samples(ask(port, "/metrics").body.decode()).get(("edgeproxy_probe_rounds_total", "ok"), 0)
            except OSError:
                return 0

        try:
            until(lambda: rounds() >= 2, "two rounds went well", seconds=60)
        finally:
            assert process.stop() == 0, process.output


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--through", "edge:8080"], "is no URL"),
        (["--through", "http://edge", "--collector", "collector"], "is no URL"),
        (["--through", "http://edge", "--within", "soon"], "--within"),
        (["--through", "http://edge", "--every", "0s"], "--every"),
        (["--through", "http://edge", "--listen", "127.0.0.1:9"], "goes with --every"),
        (["--through", "http://edge", "--ca", "/nowhere.pem"], "--ca"),
        (["--every", "5s"], "go with --through"),
        (["--charge"], "go with --through"),
        (["--through", "http://edge", "--checkout"], "go with --collector"),
    ],
)
def test_arguments_that_cannot_be_used_end_it_with_2(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(cli.app, ["probe", *arguments])
    assert done.exit_code == 2
    assert why in done.stderr


def test_probe_without_a_key_names_the_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPROXY_PROBE_KEY", raising=False)
    done = CliRunner().invoke(cli.app, ["probe", "--through", "http://edge"])
    assert (done.exit_code, done.stderr) == (2, "set EDGEPROXY_PROBE_KEY in the environment\n")
