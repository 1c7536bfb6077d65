"""The commands of the README, and the requirements that they install."""

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PINNED = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"[a-z0-9.-]+==[\w.]+( ; python_version [<>]=? \"[\d.]+\")?( --hash=sha256:[0-9a-f]{64})+")
STAGE = [sys.executable, "-m", "demo"]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes_and_without_a_source(path: Path) -> None:
    text = re.sub(r" *(\\\n\s*)|^ *#.*\n", " ", path.read_text(), flags=re.MULTILINE)
    for line in filter(str.strip, text.splitlines()):
        assert re.fullmatch(PIN, line.strip())


def test_a_release_is_pinned_alike_in_every_set() -> None:
    pins: dict[str, str] = {}
    for path in PINNED:
        for name, release in re.findall(r"^([a-z0-9.-]+)==(.+?) \\$", path.read_text(), re.MULTILINE):
            if "python_version" not in release:
                assert pins.setdefault(name, release) == release, f"{name} in {path.name}"


def test_the_demonstration_shows_all_that_its_lines_promise() -> None:
    command = [*STAGE, "--check"]
    tour = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert tour.stdout.count("\nok ") == 8


def test_the_demonstration_ends_all_that_it_started_on_sigterm(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    environ = {**os.environ, "EDGE_STATE": str(tmp_path / "edge"), "COLLECTOR_DATABASE": ledger}
    with subprocess.Popen(STAGE, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environ) as stage:
        try:
            shown = next((line for line in stage.stdout or () if "Ctrl-C" in line), None)
            started = [os.pidfd_open(process) for process in descendants(stage.pid)]
        finally:
            stage.terminate()
        assert stage.wait(60) == 0
    assert shown is not None
    assert len(started) >= 6, "httpbin and its worker, the edge and two workers, the collector"
    for process in started:
        assert select.select([process], [], [], 10)[0], "still there"


def descendants(pid: int) -> set[int]:
    """The children of a process, theirs, and so on."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return set(children).union(*map(descendants, children))
