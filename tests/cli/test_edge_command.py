"""`edgeproxy edge` without the library of commands: the same arguments, errors and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy import cli
from edgeproxy.cli import edge_command
from edgeproxy.cli.edge_command import parse
from edgeproxy.edge.supervisor.environment import SWITCH

PLAIN = [
    (["-c", "edge.yaml"], ("edge.yaml", False)),
    (["--config", "a b/é.yaml", "--watch"], ("a b/é.yaml", True)),
    (["--watch", "-c", "edge.yaml"], ("edge.yaml", True)),
]
OTHERS = [
    [],
    ["--watch"],
    ["-c"],
    ["-c", "--watch"],
    ["-c", "--help"],
    ["-c", "not utf-8: \udcff"],
    ["-cedge.yaml"],
    ["--config=edge.yaml"],
    ["-c", "one.yaml", "-c", "two.yaml"],
    ["-c", "edge.yaml", "--unknown"],
    ["edge.yaml"],
]


@pytest.mark.parametrize(("words", "parsed"), PLAIN)
def test_plain_arguments_need_no_library(words: list[str], parsed: tuple[str, bool]) -> None:
    file, watch = parsed
    assert parse(words) == (Path(file), watch)


@pytest.mark.parametrize("words", OTHERS)
def test_all_other_arguments_are_left_to_the_library(words: list[str]) -> None:
    assert parse(words) is None


def test_an_edge_imports_no_library_of_commands(tmp_path: Path) -> None:
    """It stops at its state directory, once all is imported and its template of workers exists."""
    file, state = tmp_path / "edge.yaml", tmp_path / "state"
    state.write_text("no directory")
    file.write_text(
        f"{{listen: '127.0.0.1:0', state: {state}, upstreams: {{api: {{endpoints: ['http://127.0.0.1:9']}}}}, "
        "routes: [{path: '/*', upstream: api, auth: none}]}"
    )
    command = [sys.executable, "-X", "importtime", "-m", "edgeproxy", "edge", "-c", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert (ended.returncode, "edgeproxy.edge.supervisor.main" in imported) == (2, True), ended.stderr[-500:]
    assert not {name for name in imported if name.partition(".")[0] in ("typer", "click")}


def test_an_interrupt_before_the_edge_serves_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(config: Path, watch: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(edge_command, "serve", interrupt)
    monkeypatch.setattr(sys, "argv", ["edgeproxy", "edge", "-c", "edge.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.start()
    assert ended.value.code == "Aborted!"  # Python prints that on standard error, and exits with 1.
