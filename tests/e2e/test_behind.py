"""The page *Behind edgeproxy*: its configurations pass their checks, and what runs here works as it says."""

import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.warnings import list_edge_warnings
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

PAGE = (ROOT / "docs/edge/behind.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
YAML, PYTHON = re.compile(r"```yaml\n(.*?)```", re.DOTALL), re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_lines_of_an_application_pass_without_a_warning(name: str, tmp_path: Path) -> None:
    (text,) = YAML.findall(SECTIONS[name])
    file = tmp_path / "edge.yaml"
    file.write_text(text)
    assert list(list_edge_warnings(load_edge(file, {}))) == []


def test_flask_links_contain_the_prefix(start_edge: StartEdge, tmp_path: Path) -> None:
    (text,) = YAML.findall(SECTIONS["Flask"])
    (program,) = PYTHON.findall(SECTIONS["Flask"])
    (tmp_path / "shop.py").write_text(program)
    ports = Ports(1)
    (port,) = ports.numbers
    command = [sys.executable, "-m", "flask", "--app", tmp_path / "shop.py", "run", "--port", str(port)]
    service = Process(command, tmp_path / "flask.log")
    try:
        until(lambda: is_listening(port) or not service.running, "Flask")
        settings = yaml.safe_load(text.replace("127.0.0.1:5000", f"{HOST}:{port}"))
        edge = start_edge(upstreams=settings["upstreams"], routes=settings["routes"])
        answer = ask(edge.port, "/shop/orders", fields={"Host": "shop.example.com"})
        assert (answer.status, answer.body) == (200, b"http://shop.example.com/shop/orders")
    finally:
        service.stop(10)
        ports.close()


def test_git_and_pip_send_a_key_as_password(start_edge: StartEdge, tmp_path: Path) -> None:
    """One server of files is both: git reads a repository over plain HTTP, and pip a folder with relative links."""
    files, home = tmp_path / "files", tmp_path / "home"
    (files / "simple" / "shelf").mkdir(parents=True)
    home.mkdir()
    with zipfile.ZipFile(files / "shelf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shelf.py", "")
        wheel.writestr("shelf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
        wheel.writestr("shelf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("shelf-1.0.dist-info/RECORD", "")
    (files / "simple/shelf/index.html").write_text('<a href="../../shelf-1.0-py3-none-any.whl">shelf</a>')
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_TERMINAL_PROMPT": "0", "PIP_CONFIG_FILE": os.devnull}

    def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=60, check=False)

    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (
        ("git", "init", "-q", "work"),
        ("git", "-C", "work", *author, "commit", "-q", "--allow-empty", "-m", "first"),
        ("git", "clone", "-q", "--bare", "work", files / "project.git"),
        ("git", "-C", files / "project.git", "update-server-info"),
    ):
        assert (created := run(*command)).returncode == 0, created.stderr
    ports = Ports(1)
    (port,) = ports.numbers
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", files]
    service = Process(command, tmp_path / "files.log")
    try:
        until(lambda: is_listening(port) or not service.running, "the server of files")
        git, packages = (yaml.safe_load(YAML.findall(SECTIONS[name])[0]) for name in ("git over HTTP", "pip and npm"))
        upstreams = git["upstreams"] | packages["upstreams"]
        for upstream in upstreams.values():
            upstream["endpoints"] = [f"http://{HOST}:{port}"]
        routes = git["routes"] + packages["routes"]
        edge = start_edge(auth=git["auth"], upstreams=upstreams, routes=routes, **people(acme="free"))
        for key, works in (("wrong", False), (key_of("acme"), True)):
            place = f"http://x:{key}@{HOST}:{edge.port}"
            cloned = run("git", "clone", "-q", f"{place}/git/project.git", f"clone-{works}")
            assert (cloned.returncode == 0) is works, cloned.stderr
            pip = (sys.executable, "-m", "pip", "download", "--no-input", "--no-cache-dir", "--no-deps", "--dest", home)
            loaded = run(*pip, "--index-url", f"{place}/pypi/simple/", "shelf")
            assert (loaded.returncode == 0) is works, loaded.stderr
            assert (home / "shelf-1.0-py3-none-any.whl").exists() is works
    finally:
        service.stop(10)
        ports.close()


SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_session_affinity_holds_until_a_replica_leaves(start_edge: StartEdge, tmp_path: Path) -> None:
    """There are two workers, and either may get a request."""
    ports = Ports(2)
    replicas = {
        port: Process([sys.executable, "-c", SERVER, str(port)], tmp_path / f"{port}.log") for port in ports.numbers
    }
    try:
        until(lambda: all(map(is_listening, replicas)), "both replicas")
        endpoints = [f"http://{HOST}:{port}" for port in replicas]
        balance = {"cookie": "edge-affinity", "secret": "0123456789abcdef0123456789abcdef"}
        edge = start_edge(
            upstreams={"chat": {"endpoints": endpoints, "balance": balance, "eject": {"errors": 1, "for": "1min"}}},
            routes=[{"path": "/*", "upstream": "chat", "auth": "none"}],
            workers=2,
        )
        sessions = {}
        for _ in range(60):
            answer = ask(edge.port, "/")
            sessions[answer["set-cookie"].partition(";")[0]] = answer.body
        assert len(sessions) == 2, "one cookie for each replica"
        for cookie, replica in sessions.items():
            answers = [ask(edge.port, "/", fields={"Cookie": cookie}) for _ in range(20)]
            assert {answer.body for answer in answers} == {replica}
            assert not any("set-cookie" in answer for answer in answers)
        (kept, stays), (moved, leaves) = sessions.items()
        replicas[int(leaves)].stop(10)
        until(lambda: ask(edge.port, "/", fields={"Cookie": moved}).body == stays, "the other replica")
        assert {ask(edge.port, "/", fields={"Cookie": kept}).body for _ in range(20)} == {stays}
    finally:
        for replica in replicas.values():
            replica.stop(10)
        ports.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
