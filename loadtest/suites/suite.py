"""The suites: how each runs in a checkout of its project, and the names of its tests."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from loadtest.suites.stand import Slot

HERE = Path(__file__).parent
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

Places = tuple[list[Slot], list[Slot]]
"""Slots for servers that accept any port, and for those with a fixed port."""

Outcomes = dict[str, str]
"""Each test by name: passed, failed or skipped."""


@dataclass(frozen=True)
class Suite:
    """A project's test suite."""

    tests: tuple[str, ...]
    """Files and options for its runner."""
    run: "Callable[[Suite, Path, Path, dict[str, str], float], Outcomes]"
    fixed: tuple[int, ...] = ()
    """Fixed ports of its servers."""
    env: tuple[tuple[str, str], ...] = ()


def outcomes(suite: Suite, checkout: Path, folder: Path, places: Places, late: float) -> Outcomes:
    """Run a suite before these slots, for `late` seconds at most."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        **dict(suite.env),
        "SUITE_SLOTS": ",".join(f"{slot.public}:{slot.hidden}" for slot in places[0]),
        "SUITE_FIXED": ",".join(f"{slot.public}:{slot.hidden}" for slot in places[1]),
    }
    return suite.run(suite, checkout, folder, env, late)


def by_mocha(suite: Suite, checkout: Path, folder: Path, env: dict[str, str], late: float) -> Outcomes:
    """Run it with the mocha of its checkout."""
    env["NODE_OPTIONS"] = f"--require {HERE / 'interpose.cjs'} --no-deprecation"
    mocha = checkout / "node_modules" / ".bin" / "mocha"
    command = [str(mocha), "--reporter", str(HERE / "mocha_lines.cjs"), *suite.tests, "--exit"]
    report = folder / "outcomes"
    env["SUITE_OUTCOMES"] = str(report)
    carried_out(command, checkout, folder, env, late)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return numbered((title, state) for title, state in lines)


def by_pytest(suite: Suite, checkout: Path, folder: Path, env: dict[str, str], late: float) -> Outcomes:
    """Run it with the Python of its checkout, in `.venv`."""
    report = folder / "outcomes.xml"
    env["PYTHONPATH"] = str(HERE)
    command = [
        *(str(checkout / ".venv" / "bin" / "python"), "-m", "pytest", "-q", "-o", "addopts=", "-p", "interpose_pytest"),
        *("-p", "no:cacheprovider", f"--junitxml={report}", *suite.tests),
    ]
    carried_out(command, checkout, folder, env, late)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {part.tag for part in case}
        state = FAILED if kinds & {"failure", "error"} else SKIPPED if "skipped" in kinds else PASSED
        found.append((f"{case.get('classname')}::{case.get('name')}", state))
    return numbered(found)


def carried_out(command: list[str], checkout: Path, folder: Path, env: dict[str, str], late: float) -> None:
    """Run a command with its output in a file. After the time limit it is stopped, and its output so far counts."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.wait(late)
        except subprocess.TimeoutExpired:
            output.write(b"\nended, as it took too long\n")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()


def numbered(found: Iterable[tuple[str, str]]) -> Outcomes:
    """Return outcomes by name. Further tests with one name get a number, from the second on."""
    seen: Counter[str] = Counter()
    named = {}
    for name, state in found:
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} #{seen[name]}"] = state
    return named


AIOHTTP = ("client_functional", "client_ws_functional", "web_functional", "web_sendfile_functional")

SUITES = {
    "express": Suite(("--require", "test/support/env", "--timeout", "10000", "test/", "test/acceptance/"), by_mocha),
    "ws": Suite(("--timeout", "10000", "test/*.test.js"), by_mocha),
    "axios": Suite(
        ("--timeout", "30000", "test/unit/**/*.js"), by_mocha, fixed=(4444,), env=(("NODE_NO_WARNINGS", "1"),)
    ),
    "requests": Suite(("tests/test_requests.py", "tests/test_lowlevel.py"), by_pytest),
    "aiohttp": Suite(
        (*(f"tests/test_{name}.py" for name in AIOHTTP), "tests/test_web_websocket_functional.py"), by_pytest
    ),
}
