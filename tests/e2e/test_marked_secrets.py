"""No secret stands in arguments, in the environment of a child, in a log, an error or an output.

These tests are about all that serves, and about wrong URLs. tests/cli/test_every_command.py runs all other commands.
"""

import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml

from edgeproxy.demo.process import has_listener
from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import Collector, sha256
from loadtest.testbed.customers import TIERS
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

MARK = "hush-9c4e"
"""A text in all secrets of these tests. Nothing else has it."""
COMMANDS = (["check"], ["database", "migrate", "-c"])
"""Commands, before the name of the configuration: one reads it, the other also takes an owner's URL."""
URLS = (
    f"postgresql://me:{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:{MARK}@{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:12/{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:{MARK}#{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:%{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:{MARK}@127.0.0.1:port/ledger",
    f"postgresql://me:{MARK}@/ledger",
    f"postgres://me:{MARK}@127.0.0.1:1/ledger",
    f"postgresql://me:{MARK}@127.0.0.1:1/ledger?x=1",
)


def has_mark(*texts: str | bytes) -> bool:
    return any(MARK.encode() in (text if isinstance(text, bytes) else text.encode()) for text in texts)


def write(folder: Path, **settings: object) -> Path:
    file = folder / "collector.yaml"
    token = {"name": "admin", "sha256": "a" * 64, "role": "admin"}
    file.write_text(
        yaml.safe_dump({"listen": f"{HOST}:0", "database": "${DATABASE_URL}", "tokens": [token], **settings})
    )
    return file


def run(folder: Path, command: list[str], url: str) -> tuple[int, str]:
    """Run a command with this URL of the database. Return its exit code and all of its output."""
    environ = {"DATABASE_URL": url, "EDGEPROXY_DATABASE_OWNER": url}
    process = Process([sys.executable, "-m", "edgeproxy", *command], folder / "log", environ=environ)
    return process.wait(120.0), process.output


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1])
def test_command_hides_the_password_of_a_wrong_url(tmp_path: Path, command: list[str], url: str) -> None:
    code, output = run(tmp_path, [*command, str(write(tmp_path))], url)
    assert code in (0, 1, 2)
    assert not has_mark(output), output


@pytest.mark.parametrize("url", URLS)
def test_start_hides_the_password_of_a_wrong_url(tmp_path: Path, url: str) -> None:
    code, output = run(tmp_path, ["collector", "-c", str(write(tmp_path))], url)
    assert code == 2
    assert not has_mark(output), output


def search_proc(process: Process) -> None:
    """Search the arguments of a process and of all its children, and the environment of the children."""
    children = process.family() - {process.pid}
    assert not has_mark(Path(f"/proc/{process.pid}/cmdline").read_bytes())
    for pid in children:
        for name in ("cmdline", "environ"):
            with suppress(OSError):  # It may have ended.
                assert not has_mark(Path(f"/proc/{pid}/{name}").read_bytes()), (pid, name)


def test_processes_of_an_edge_have_no_secret_that_they_do_not_need(tmp_path: Path, upstream: Upstream) -> None:
    """An edge starts workers, and a program for the key of its directory."""
    seen = tmp_path / "program"
    script = tmp_path / "print-key"
    script.write_text(
        f"#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline > {seen}.new\nmv {seen}.new {seen}\necho {'ab' * 32}\n"
    )
    script.chmod(0o755)
    directory_signatures.create_key_file(tmp_path / "directory.key")
    trust = directory_signatures.Signer.load(tmp_path / "directory.key").public_key
    token = f"{MARK}-token"
    collector = Collector(
        tmp_path / "collector",
        f"sqlite:///{tmp_path}/ledger.db",
        tiers=TIERS,
        directory={"key": str(tmp_path / "directory.key")},
    )
    collector.settings["tokens"].append({"name": "marked", "sha256": sha256(token), "role": "edge"})
    with closing(collector):
        collector.start()
        edge = Edge(
            tmp_path / "edge",
            upstream.port,
            usage={"collector": f"http://{HOST}:{collector.port}", "token": "${COLLECTOR_TOKEN}"},
            directory={"from": "collector", "trust": trust},
            cache_key={"command": [str(script)]},
            stamp_secret="${STAMP_SECRET}",
        )
        for name in ("customers", "keys"):
            del edge.settings[name]
        edge.environ = {
            "COLLECTOR_TOKEN": token,
            "STAMP_SECRET": f"{MARK}-of-stamps",
            "STRIPE_SECRET_KEY": f"sk_test_{MARK}",
            "PROGRAM_TOKEN": "of-the-program",
        }
        with closing(edge):
            edge.start()
            environ = seen.read_bytes()
            assert b"PROGRAM_TOKEN=of-the-program" in environ
            assert not has_mark(environ)
            assert len(edge.worker_pids()) == 2
            search_proc(edge.supervisor)
            for path in ("/status", "/metrics", "/readyz"):
                assert not has_mark(ask(edge.admin, path).body)
        assert not has_mark(edge.output)


def list_servers(folder: Path, port: int) -> dict[str, list[str]]:
    """Return the arguments of commands that serve without a database or customers."""
    file = folder / "regions.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "listen": f"{HOST}:{port}",
                "regions": {name: f"http://{name}.example.com/beacon" for name in ("eu", "us")},
                "collector": f"http://{HOST}:1",
                "token": "${BEACON_TOKEN}",
                "secret": "${BEACON_SECRET}",
            }
        )
    )
    return {
        "regions": ["-c", str(file)],
        "quick": ["--to", f"http://{HOST}:1", "--listen", f"{HOST}:{port}"],
        "stripe-sandbox": [
            *("--listen", f"{HOST}:{port}", "--state", str(folder / "sandbox.db")),
            *("--webhook", f"http://{HOST}:1/"),
        ],
    }


@pytest.mark.parametrize("name", ["regions", "quick", "stripe-sandbox"])
def test_processes_of_a_command_that_serves_have_no_secret(name: str, tmp_path: Path) -> None:
    with closing(Ports(1)) as ports:
        (port,) = ports.numbers
        environ = {
            "BEACON_TOKEN": f"{MARK}-token",
            "BEACON_SECRET": f"{MARK}-secret-of-32-characters-and-more",
            "STRIPE_SECRET_KEY": f"sk_test_{MARK}",
            "STRIPE_WEBHOOK_SECRETS": f"whsec_{MARK.replace('-', '_')}",
        }
        command = [sys.executable, "-m", "edgeproxy", name, *list_servers(tmp_path, port)[name]]
        process = Process(command, tmp_path / "log", environ=environ)
        try:
            until(lambda: not process.running or has_listener(port), "the process serves", seconds=60)
            assert process.running, process.output
            search_proc(process)
        finally:
            process.stop()
        assert not has_mark(process.output)


def test_child_process_of_a_collector_inherits_no_secret(postgresql: Postgresql, tmp_path: Path) -> None:
    """The command of a key service has its own variables. Database, Stripe and mail have theirs in the collector."""
    seen = tmp_path / "environ"
    script = tmp_path / "wrap"
    script.write_text(f"#!/bin/sh\ncp /proc/self/environ {seen}.$$\nmv {seen}.$$ {seen}\nexec cat\n")
    script.chmod(0o755)
    secret = tmp_path / "password"
    secret.write_text(f"{MARK}-file\n")
    url = postgresql.database().replace("edgeproxy@", f"edgeproxy:{MARK}-database@")
    channels = {
        "ops": {"smtp": f"smtps://me:${{file:{secret}}}@127.0.0.1:1", "from": "a@example.com", "to": ["b@example.com"]}
    }
    collector = Collector(
        tmp_path / "collector",
        "${DATABASE_URL}",
        encryption={"command": [str(script)]},
        alerts={"channels": channels, "routes": {"page": ["ops"], "warn": ["ops"], "info": ["ops"]}},
    )
    collector.environ = {
        "DATABASE_URL": url,
        "STRIPE_SECRET_KEY": f"sk_test_{MARK}",
        "STRIPE_WEBHOOK_SECRETS": f"whsec_{MARK}",
        "VAULT_TOKEN": "of-the-command",
    }
    with closing(collector):
        collector.start()
        until(seen.exists, "the key service was asked")
        environ = seen.read_bytes()
        assert b"VAULT_TOKEN=of-the-command" in environ
        assert not has_mark(environ)
        assert collector.process is not None
        search_proc(collector.process)
        limits = Path(f"/proc/{collector.process.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4] == "0"
        for path in ("/readyz", "/metrics", "/v1/jobs", "/v1/edges", "/v1/tokens"):
            assert not has_mark(collector.get(path, token="admin-token").body)
        assert not has_mark(collector.output)
    assert not has_mark(collector.output)


def test_core_dumps_are_forbidden() -> None:
    code = (
        "import resource; from edgeproxy.base.core_dumps import forbid_core_dumps; forbid_core_dumps(); "
        "print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0)"
