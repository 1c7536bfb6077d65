"""The history of instruction counts: the compared pairs, and the smallest difference that is a change."""

from pathlib import Path

import pytest

from loadtest.instructions_history import Run, append_run, find_changes, load_history


def run(python: str = "3.11", build: str = "pure", **counts: int) -> Run:
    return Run("abc", "2026-11-24T00:00:00Z", python, build, counts)


def test_history_file_returns_runs_in_order(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    assert load_history(file) == []
    runs = [run(small=100), run(small=101, vary=200)]
    for each in runs:
        append_run(file, each)
    assert load_history(file) == runs


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match="not a history"):
        load_history(file)


def test_more_than_two_percent_in_either_direction_is_a_change() -> None:
    before = run(small=1000, rich=1000, vary=1000, new=0)
    changes = find_changes([before], run(small=1020, rich=1021, vary=979, new=5, other=5))
    assert changes == {"rich": 1.021, "vary": 0.979}


def test_only_the_latest_counts_of_the_same_python_and_build_are_compared() -> None:
    history = [run(small=500), run(small=1000), run("3.12", small=2000), run(build="compiled", small=400), run(many=5)]
    assert find_changes(history, run(small=1000)) == {}
    assert find_changes(history, run("3.13", small=1)) == {}
    assert find_changes(history, run(small=500)) == {"small": 0.5}
