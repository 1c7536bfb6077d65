"""The first five minutes of the README: its lines, unchanged, lead from nothing to a request with a customer's key.

The usual ports are taken meanwhile, and answer `ready` as the demonstration does.
"""

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgeproxy.cli.starter import USUAL_PORTS
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

README = (ROOT / "README.md").read_text()
SECTION = README.partition("\n## The first five minutes\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PROXIES = ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy")
UNSET = [word for name in PROXIES for word in ("-u", name)]

CUSTOMER = r'HTTP/1\.1 200 OK(?s:.*)RateLimit: "pro";r=\d+;(?s:.*)an order'
LIMITS = r"pro +1 +600 +599 "
USAGE = r'"requests","value":1\b'


class OtherServer(BaseHTTPRequestHandler):
    """A foreign server that answers `ready` to every request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class OtherListener(ThreadingHTTPServer):
    allow_reuse_port = False


@pytest.fixture(autouse=True)
def taken_ports() -> Iterator[None]:
    """Put listeners on all usual ports: these servers, or processes of this machine that hold them already."""
    servers = []
    for port in USUAL_PORTS:
        with suppress(OSError):
            servers.append(OtherListener((HOST, port), OtherServer))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    for server in servers:
        server.shutdown()
        server.server_close()


def paste(folder: Path, *blocks: str, log: str = "log") -> Process:
    """Start a shell that runs these blocks as a reader does, and then waits until it is stopped."""
    script = [f"cd {folder}", *blocks, "trap 'kill $(jobs -p)' TERM", "touch pasted", "wait; wait || :"]
    return Process(["/usr/bin/env", *UNSET, "bash", "-c", "\n".join(script)], folder / log)


@pytest.mark.timeout(300)
def test_the_first_five_minutes_lead_to_a_request_of_a_customer(tmp_path: Path, at_night: bool) -> None:
    """Each night the block is also pasted a second time, which tells what to do."""
    *setup, requests = BLOCK.findall(SECTION)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    keep = "declare -p EDGEPROXY_TOKEN EDGEPROXY_EDGE EDGEPROXY_COLLECTOR KEY > ready"
    shell = paste(tmp_path, *setup, keep)
    try:
        folder = tmp_path / "var/first"
        until(lambda: (folder / "pasted").exists() or not shell.running, "edge, collector and key", seconds=150)
        assert shell.running, shell.output
        first, *others = zip(requests.splitlines(), (CUSTOMER, LIMITS, USAGE), strict=True)
        asked = ask(folder, first[0])
        assert re.search(first[1], asked), "the key is accepted at once"
        for line, shows in others:
            until(lambda line=line, shows=shows: re.search(shows, ask(folder, line)), f"{line}: {shows}", step=0.5)
        if not at_night:
            return
        again = paste(tmp_path, *setup, log="again")
        try:
            until(lambda: "whose secret" in again.output or not again.running, "a second paste", seconds=150)
            assert f"to begin again, end what runs with it and remove it: rm -r {folder}" in again.output
            assert re.search(r"process \d+ has ended\nthe last line of collector\.log: .*9\d\d\d.*in use", again.output)
        finally:
            again.stop(60)
    finally:
        shell.stop(60)


def ask(folder: Path, line: str) -> str:
    """Run a line of the README with the variables of the first shell, and return its output."""
    log = folder / "asked"
    log.unlink(missing_ok=True)
    asked = Process(
        ["/usr/bin/env", *UNSET, "bash", "-c", f"cd {folder}; . ./ready; export EDGEPROXY_TOKEN; {line}"], log
    )
    assert asked.wait(20) == 0, asked.output
    return asked.output


def test_a_process_of_the_five_minutes_that_ended_is_told_at_once(tmp_path: Path) -> None:
    """The log has the reason: here another process holds the edge's port."""
    setup, _, start, _ = BLOCK.findall(SECTION)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with socket.create_server((HOST, 0)) as other:
        taken = f"{HOST}:{other.getsockname()[1]}"
        shell = paste(tmp_path, setup.replace("init .", f"init . --admin {taken}"), start, "touch all")
        try:
            until(lambda: "has ended" in shell.output, "the end of the edge", seconds=60)
            assert re.search(rf"the last line of edge\.log: .*{taken}.*in use", shell.output), shell.output
        finally:
            shell.stop(60)
