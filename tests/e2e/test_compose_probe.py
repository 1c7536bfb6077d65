"""The probe of the compose demonstration makes all of its steps: its services' own commands and environments."""

import re
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.wire import directory_signatures
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import until
from tests.support.compose_files import read_compose
from tests.support.services import Httpbin, answers

COMMAND = (sys.executable, "-m", "edgeproxy")
SERVICES = read_compose("compose.yaml", "compose.demo.yaml")["services"]
STEPS = ("request", "limits", "usage", "charge", "books", "checkout", "purchase")


def resolve(written: str) -> str:
    """The default of each variable of a value."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", written)


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
def test_probe_of_compose_makes_all_seven_steps(tmp_path: Path) -> None:
    with ExitStack() as ends:
        ports = ends.enter_context(closing(Ports(4)))
        upstream = Httpbin(tmp_path / "httpbin")
        ends.callback(upstream.stop)
        redis = ends.enter_context(Redis(tmp_path))
        edge, admin, collector, stripe = (f"{HOST}:{number}" for number in ports.numbers)
        trust = directory_signatures.create_key_file(tmp_path / "directory.key")
        places = {
            "http://upstream:9001": f"http://{HOST}:{upstream.port}",
            "redis://redis:6379/0": redis.url,
            "edge:8080": edge,
            "0.0.0.0:8080": edge,
            "0.0.0.0:9090": admin,
            "collector:9100": collector,
            "0.0.0.0:9100": collector,
            "127.0.0.1:9100": collector,
            "127.0.0.1:12111": stripe,
            "/etc/edgeproxy": str(ROOT / "config"),
            "/var/lib/edgeproxy/directory.key": str(tmp_path / "directory.key"),
        }

        def place(service: str, written: str) -> str:
            written = resolve(written)
            for there, here in places.items():
                written = written.replace(there, here)
            return written.replace("/var/lib/edgeproxy", str(tmp_path / service))

        def build_environ(service: str) -> dict[str, str]:
            environ = {name: place(service, value) for name, value in SERVICES[service]["environment"].items()}
            return environ | ({"DIRECTORY_TRUST": trust} if service == "edge" else {})

        def start(service: str, *words: str) -> Process:
            (tmp_path / service).mkdir(exist_ok=True)
            arguments = [place(service, word) for word in words or SERVICES[service].get("command", ())]
            log = tmp_path / f"{service}{len(words)}.log"
            process = Process([*COMMAND, *arguments], log, environ=build_environ(service))
            ends.callback(process.stop)
            return process

        start("collector")
        until(lambda: answers(ports.numbers[2], "/readyz"), "the collector is ready")
        importing = start("collector", "import", "-c", "/etc/edgeproxy/demo.yaml")
        assert importing.wait(30) == 0, importing.output
        start("stripe")
        start("edge", "edge", "-c", "/etc/edgeproxy/edge.yaml")
        until(lambda: answers(ports.numbers[0], "/anything/x", "ek_demo_pro"), "the edge knows the key")
        words = [place("probe", word) for word in SERVICES["probe"]["command"]]
        at = words.index("--every")
        assert words[at + 2] == "--listen"
        environ = {name: resolve(value) for name, value in SERVICES["probe"]["environment"].items()}
        for steps in ((*STEPS[5:], *STEPS[:5]), STEPS):  # The first round has no credits, and buys some first.
            result = CliRunner(env=environ).invoke(cli.app, [*words[:at], "--within", "60s"])
            assert [line.split()[:2] for line in result.stdout.splitlines()] == [[step, "ok,"] for step in steps]
            assert (result.exit_code, result.stderr) == (0, "")
