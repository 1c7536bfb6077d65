"""The demonstration: its lines work, a wheel has it, its data stays, no process does, and two of it share a host."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edgeproxy.config.environment import OWN_SECRETS
from edgeproxy.demo import hub, main, services
from edgeproxy.demo.data import Data
from edgeproxy.demo.ports import HOST, Ports
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.hub_rights import documented, documented_for_loader
from tests.support.visitor import Visitor
from tests.support.wheel import SANDBOX_SOURCES, build_wheel, install_wheels, list_pinned

MARK = "hush-9c4e"
"""All secrets in the environment of a demonstration. It uses none of them."""
DEMO = [sys.executable, "-m", "edgeproxy", "demo"]


@pytest.mark.skipif(hub.SERVER is None, reason="there is no redis-server on this machine")
@pytest.mark.timeout(400)
def test_demo_passes_each_printed_check() -> None:
    tour = subprocess.run([*DEMO, "--check"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=380)
    assert tour.returncode == 0, tour.stdout + tour.stderr
    printed = re.findall(r"^# ", tour.stdout, re.MULTILINE)
    assert len(re.findall(r"^ok ", tour.stdout, re.MULTILINE)) == len(printed) > 15
    assert "one edge without a hub" not in tour.stderr


@contextmanager
def served(python: Path, data: Path) -> Iterator[subprocess.Popen[str]]:
    """A small demonstration with its data there, once it serves; killed at the end, if it still runs."""
    command = [python, "-P", "-m", "edgeproxy", "demo", "--small", "--data", data]
    environ = os.environ | dict.fromkeys(OWN_SECRETS, MARK)
    with subprocess.Popen(command, cwd=data.parent, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert any("Ctrl-C" in line for line in process.stdout or ()), "the process ended before it served"
            yield process
        finally:
            process.kill()


def ask(data: Path, line: str) -> str:
    """Run a line in a shell with the demonstration's variables, and return its output."""
    command = ["bash", "-c", f'source "$1" && {line}', "bash", data / "env"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


SHOWN = {
    "/sign-up": "<form",
    "/account": "LLM tokens",
    "/account/usage": "large",
    "/account/invoices": "Change of a plan",
    "/account/keys": "demo",
    "/account/credits": "Automatic top-up",
    "/account/webhooks": "Bookkeeping",
    "/account/docs": "httpbin",
}
"""A text on pages of a new demonstration, as its customer sees them."""
SHOWN_TO_OPERATORS = {
    "/console": "Latency p95",
    "/console/customers": "Deneb",
    "/console/customers/atlas": "API calls by key",
    "/console/invoices": "Altair",
}
"""The same, as its operator sees them."""


def check_pages(data: Path) -> None:
    """Look at the pages of a new demonstration, as its customer and as its operator, who has a second factor."""
    purchases = 'curl -s -H "Authorization: Bearer $ATLAS_TOKEN" $COLLECTOR/billing/purchases'

    def list_kinds() -> list[bool]:
        return sorted(purchase["is_automatic"] for purchase in json.loads(ask(data, purchases))["purchases"])

    # The API answers 100 of these calls a minute.
    until(lambda: list_kinds() == [False, True], "the credits and their top-up are booked", step=1.0)
    link = ask(data, 'edgeproxy sign-in -c "$CONFIG" --customer atlas').strip()
    visitor = Visitor(link.partition("/sign-in")[0])
    visitor.get(link)
    visitor.send("/sign-in/link")
    status = visitor.client.get("/status").text
    assert ("100.00%" in status, "not answer our checks" in status) == (True, False)
    lacking = {path: text for path, text in SHOWN.items() if text not in visitor.client.get(path).text}
    operator = Visitor(visitor.site)
    operator.get("/sign-in/operator")
    operator.send("", factor="000 000 0")
    assert "This is not the code" in operator.read.text
    operator.send("", factor=json.loads((data / "secrets.json").read_text())["second factor"])
    assert operator.answer.url.path == "/console"
    lacking |= {path: text for path, text in SHOWN_TO_OPERATORS.items() if text not in operator.client.get(path).text}
    assert not lacking
    business = partial(operator.client.get, "/console/business-metrics")
    until(lambda: "Enterprise" in business().text, "the figures of the business are computed", seconds=60)
    assert "nothing to compare with yet" not in business().text
    refusals = partial(operator.client.get, "/console/refusals")
    until(lambda: "Deneb" in refusals().text, "the figures of refusals are computed", seconds=60)
    assert "asks for a second factor" not in operator.client.get("/console/rollout").text


@pytest.mark.timeout(600)
def test_demo_of_the_wheel_fills_its_pages_keeps_its_data_and_ends_its_processes(tmp_path: Path) -> None:
    wheels = build_wheel(tmp_path), build_wheel(tmp_path / "sandbox", SANDBOX_SOURCES, "stripe_sandbox")
    python = install_wheels(tmp_path / "venv", list_pinned("run", "demo"), *wheels)
    data = tmp_path / "with spaces"
    get = 'curl -s -o /dev/null -w "%{http_code}" -H "X-API-Key: $NOVA" $EU/get'
    subscription = 'curl -s -H "Authorization: Bearer $ATLAS_TOKEN" $COLLECTOR/billing/subscription'
    with served(python, data) as process:
        assert ask(data, get) == "200"
        check_pages(data)
        before = ask(data, subscription), ask(data, "echo $NOVA $NOVA_TOKEN")
        edges = [pid for pid in descendants(process.pid) if b"eu-west.yaml" in command_line(pid)]
        (supervisor,) = [pid for pid in edges if parent(pid) == process.pid]
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: supervisor not in descendants(process.pid), "the edge is reaped")
        until(lambda: ask(data, f"{get} || :") == "200", "the edge is started again")
        # The sandbox, the API and its worker, the mailbox, the collector, an edge of three.
        until(lambda: len(descendants(process.pid)) >= 8, "all are there")
        for pid in descendants(process.pid):
            assert MARK.encode() not in command_line(pid) + Path(f"/proc/{pid}/environ").read_bytes(), command_line(pid)
        started = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        process.kill()
        await_ends(started)
    with served(python, data) as process:
        assert ask(data, get) == "200"
        assert (ask(data, subscription), ask(data, "echo $NOVA $NOVA_TOKEN")) == before
        started = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        process.terminate()
        assert process.wait(60) == 0
        await_ends(started)


def await_ends(processes: list[int]) -> None:
    """Wait until these are gone, by their descriptors."""
    for process in processes:
        until(lambda process=process: is_dead(process), "all processes end", seconds=40)  # type: ignore[misc]
        os.close(process)


def is_dead(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)  # type: ignore[arg-type]
    except ProcessLookupError:
        return True
    return False


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(pid: int) -> set[int]:
    """The children of a process, theirs, and so on."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return set(children).union(*map(descendants, children))


def test_two_demonstrations_claim_different_ports_and_folders(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        usual = other.getsockname()[1]
        first, second = Ports(), Ports()
        ports = [each.claim("edge", usual) for each in (first, second, first)]
        assert usual not in ports
        assert len(set(ports)) == 3
        assert [(taken.usual, taken.instead) for taken in first.taken] == [(usual, ports[0]), (usual, ports[2])]
        for each in (first, second):
            each.close()
    folders = [Data(tmp_path / "demo") for _ in range(2)]
    assert [data.folder.name for data in folders] == ["demo", "demo-2"]
    for data in folders:
        data.close()


def test_folder_of_a_first_start_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    def open_folder() -> tuple[bool, list[str]]:
        data = Data(tmp_path / "demo")
        names = sorted(path.name for path in data.folder.iterdir())
        data.secret("token")
        data.write("redis/data", "")
        if len(opened) == 1:
            data.complete()
        data.close()
        return data.is_new, names

    opened: list[tuple[bool, list[str]]] = []
    for _ in range(3):
        opened.append(open_folder())
    assert opened == [(True, ["starting"]), (True, ["starting"]), (False, ["redis", "secrets.json"])]


def test_folder_with_other_files_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for _ in range(2):
        Data(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.fixture
def same_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, does in before.items():
        signal.signal(number, does)


@pytest.mark.usefixtures("same_signals")
def test_demo_reports_a_process_that_fails_to_start_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$4" != stripe-sandbox ] || { echo one; echo two; exit 2; }\nexec sleep 60\n')
    python.chmod(0o755)
    monkeypatch.setattr(services, "PYTHON", (str(python), "-P", "-m"))
    monkeypatch.setattr(services, "EDGEPROXY", (str(python), "-P", "-m", "edgeproxy"))
    assert main.run(tmp_path / "data", check=False, small=True) == 1
    notes = ("is taken", "without a checkout")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not any(note in line for note in notes)]
    assert line.startswith("demo: the Stripe sandbox ended with exit code 2: two (all that it wrote: ")


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        (None, "apt-get install redis-server"),
        ("v=6.0.16", "older than Redis 7: Redis server v=6.0.16"),
        ("v=8.2", None),
    ],
)
def test_demo_reports_a_missing_or_old_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, missing: str | None
) -> None:
    server = tmp_path / "redis-server"
    server.write_text(f"#!/bin/sh\necho Redis server {version}\n")
    server.chmod(0o755)
    monkeypatch.setattr(hub, "SERVER", None if version is None else str(server))
    why = hub.explain_missing()
    assert why is None if missing is None else missing in str(why)


def test_the_hub_has_the_users_of_the_documentation() -> None:
    assert hub.EDGE_RIGHTS.split() == documented()
    assert hub.LOADER_RIGHTS.split() == documented_for_loader()
