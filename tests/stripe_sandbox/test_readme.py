"""The README of the sandbox works for its wheel, which is installed without edgeproxy."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until
from stripe_sandbox.description import load_description
from tests.support.wheel import SANDBOX_SOURCES, build_wheel, install_wheels, list_required

pytestmark = pytest.mark.checkout

PAGE = ROOT / "docs/billing/stripe-sandbox.md"
README = ROOT / "stripe_sandbox/README.md"


def list_blocks(language: str) -> list[str]:
    """The commands or programs of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a sandbox that was started by the README's command, in an empty environment and folder."""
    (command,) = (block for block in list_blocks("sh") if block.startswith("stripe-sandbox "))
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"), SANDBOX_SOURCES, "stripe_sandbox")
    python = install_wheels(tmp_path_factory.mktemp("venv"), list_required(wheel), wheel)
    folder, ports = tmp_path_factory.mktemp("readme"), Ports(1)
    (number,) = ports.numbers
    words = command.replace("12111", str(number)).replace("stripe-sandbox.db", str(folder / "sandbox.db")).split()
    start = "from stripe_sandbox.command import start; start()"
    options = words[1:]
    process = Process([str(python), "-P", "-c", start, *options], folder / "log", environ={"PATH": os.environ["PATH"]})

    def ready() -> bool:
        try:
            return ask(number, "/_sandbox/ready").status == 200
        except OSError:
            return False

    try:
        until(lambda: ready() or not process.running, "the sandbox is ready", seconds=30)
        assert process.running, process.output
        yield number
    finally:
        process.stop()
        ports.close()


def test_commands_and_programs_of_the_readme_work(port: int, tmp_path: Path) -> None:
    commands = [block for block in list_blocks("sh") if block.startswith("curl ")]
    assert len(commands) == 5
    for command in commands:
        words = ["sh", "-ec", command.replace("12111", str(port))]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    program = "".join(list_blocks("python")).replace("12111", str(port)) + "print(customer.id, session.url)\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert re.fullmatch(rf"cus_\w+ http://127.0.0.1:{port}/\S+\n", done.stdout), done.stderr


def test_documented_404_paths_have_no_operation() -> None:
    (sentence,) = re.findall(r"these answer 404: (.*?);", PAGE.read_text(), re.DOTALL)
    paths = re.findall("`(/v1/[^`]+)`", sentence)
    assert len(paths) == 15
    known = [(method, path) for path in paths for method in ("GET", "POST")]
    assert not [each for each in known if load_description().find_operation(*each)]
