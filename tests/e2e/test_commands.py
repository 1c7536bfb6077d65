"""The commands as people type them."""

import json
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from edgeproxy import cli
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import START, Edge, StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.services import answers
from tests.support.structured import parse_list


def edgeproxy(*arguments: str) -> Result:
    """Run a command to its end."""
    return CliRunner().invoke(cli.app, arguments)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])  # The last one: its terminal closes.
def test_quick_serves_an_upstream_without_a_file(tmp_path: Path, upstream: Upstream, end: signal.Signals) -> None:
    ports = Ports(2)
    listen, admin = ports.numbers
    command = [sys.executable, "-m", "edgeproxy", "quick", "--to", f"http://{HOST}:{upstream.port}"]
    command += ["--listen", f"{HOST}:{listen}", "--admin", f"{HOST}:{admin}", "--rate", "20/min"]
    quick = Process(command, tmp_path / "log")
    try:
        until(lambda: not quick.running or answers(admin, "/readyz"), "the edge is ready", seconds=START)
        answer = ask(listen, "/some/path?echo=1")
        assert answer.json()["target"] == "/some/path?echo=1"
        (policy,) = parse_list(answer["ratelimit-policy"])
        assert policy.parameters == {"q": 20, "w": 60}
        statuses = [ask(listen).status for _ in range(25)]
        assert statuses.count(200) == 19
        assert set(statuses) == {200, 429}
        assert ask(admin, "/usage").json()["rows"] == [["-", "requests", "/*", 20]]
        quick.send_signal(end)
        assert quick.wait(20) == 0
        until(lambda: not quick.family(), "nothing of it is left", seconds=5)
    finally:
        quick.stop()
        ports.close()
        print(quick.output)


def test_a_new_key_can_be_used_as_the_command_says(start_edge: StartEdge) -> None:
    created = edgeproxy("key", "add", "--customer", "acme")
    assert created.exit_code == 0
    key, line = created.stdout.strip().splitlines()
    described: dict[str, Any] = people(acme="pro")
    (described["keys"],) = [[*described["keys"][:-1], *yaml.safe_load(line)]]
    edge = start_edge(**described)
    assert edge.ask(key=key).status == 200
    assert edge.ask(key=key_of("acme")).status == 401
    assert edge.usage() == {"acme": 1}


def test_status_and_limits_ask_a_running_edge(start_edge: StartEdge) -> None:
    edge = start_edge(**people(acme="basic"))
    for _ in range(3):
        edge.ask(key=key_of("acme"))
    admin = f"{HOST}:{edge.admin}"
    status = edgeproxy("status", "--admin", admin)
    assert (status.exit_code, status.stdout.count(" MiB ")) == (0, 2)
    limits = edgeproxy("limits", "acme", "--admin", admin)
    assert limits.exit_code == 0
    assert [line.split()[:4] for line in limits.stdout.splitlines()] == [
        ["policy", "used", "limit", "left"],
        ["basic", "3", "60", "57"],
    ]
    told = edgeproxy("limits", "acme", "--json", "--admin", admin)
    assert [policy["used"] for policy in json.loads(told.stdout)["policies"]] == [3]
    unknown = edgeproxy("limits", "nobody", "--admin", admin)
    assert (unknown.exit_code, unknown.stderr) == (1, "no customer is called 'nobody' here\n")
    edge.end()
    for command in (["status"], ["limits", "acme"]):
        asked = edgeproxy(*command, "--admin", admin)
        assert asked.exit_code == 1
        assert asked.stderr.startswith(f"nobody answers at http://{admin}")


@pytest.mark.parametrize(
    ("command", "hostile"),
    [
        ([Path(sys.executable).parent / "edgeproxy"], ["ssl.py", "orjson.py", "edgeproxy/__init__.py"]),
        ([sys.executable, "-m", "edgeproxy"], ["ssl.py", "orjson.py"]),
    ],
)
def test_edge_imports_no_module_from_its_working_directory(
    tmp_path: Path, upstream: Upstream, command: list[str | Path], hostile: list[str]
) -> None:
    theirs = tmp_path / "theirs"
    for name in hostile:
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text(f"raise SystemExit('{name} was imported')")
    edge = Edge(tmp_path / "edge", upstream.port)
    edge.command = ("/usr/bin/env", f"--chdir={theirs}", *map(str, command), "edge", "-c")
    with closing(edge.start()):
        assert edge.ask().status == 401
        assert "was imported" not in edge.output
