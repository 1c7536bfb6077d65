"""No secret of a collector stands in arguments, in the environment of its children, in its log, errors or outputs."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.collector import Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import Process
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


def test_child_of_a_collector_has_none_of_its_secrets(postgresql: Postgresql, tmp_path: Path) -> None:
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
        process = Path(f"/proc/{collector.process.pid}")
        assert not has_mark((process / "cmdline").read_bytes())
        limits = (process / "limits").read_text()
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
