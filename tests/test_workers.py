"""Tests in several processes end like tests in one: no result is lost, and a worker's death fails its test."""

import json
import subprocess
import sys
from pathlib import Path

TESTS = """
import os, pytest, signal

@pytest.fixture(scope="session")
def shared():
    yield
    raise OSError("the session's fixture")

def test_passes(shared, tmp_path): print("an output of another test")
def test_fails(): print("its own output"); assert 1 == 2
def test_kills_its_worker(): os.kill(os.getpid(), signal.SIGKILL)
def test_after_the_kill(tmp_path): pass
def test_skips(shared): pytest.skip("a reason")
"""


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest on the files of a folder with two workers. Returns its exit code and output."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.workers", "--workers=2", "-rfEs", *arguments]
    ended = subprocess.run(
        [*command, f"--rootdir={folder}", f"--confcutdir={folder}", "-c", "/dev/null", folder],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return ended.returncode, ended.stdout


def test_runner_reports_each_test_and_fails_the_test_of_a_crashed_worker(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "test_two.py").write_text("def test_of_another_file(): pass\n")
    code, output = run(tmp_path, "-o", f"cache_dir={tmp_path}/cache")
    assert code == 1
    assert "2 failed, 3 passed, 1 skipped, 1 error" in output, output
    assert "the worker ended during this test, or after it, with code -9" in output
    assert "OSError: the session's fixture" in output
    assert "its own output" in output
    assert "an output of another test" not in output
    failed = json.loads((tmp_path / "cache/v/cache/lastfailed").read_text())
    assert {name.partition("::")[2] for name in failed} == {"test_fails", "test_kills_its_worker", "test_skips"}


def test_first_failure_can_end_the_run(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"test_{number}.py").write_text("def test_one(): assert 1 == 2\n" + "def test_two(): pass\n" * 50)
    code, output = run(tmp_path, "--exitfirst")
    assert code == 1
    assert "stopping after 1 failures" in output, output
