"""The tests of a file run on one kind of database, and marked tests run on both."""

from pathlib import Path

import pytest

from tests.support.collector_fixtures import KINDS, database_of, runs

ROOT = Path(__file__).parents[1]


def test_each_kind_of_database_runs_about_half_of_the_files() -> None:
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests/collector").rglob("test_*.py")]
    assert 0.4 < sum(database_of(file) == "sqlite" for file in files) / len(files) < 0.6


SAMPLE = """
import pytest

@pytest.fixture(params=["sqlite", "postgresql"])
def database(request): return request.param

def test_by_file(database): pass

@pytest.mark.both_databases
def test_marked(database): pass

@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_named(database): pass

def test_without(): pass
"""


def test_database_of_a_test_follows_its_file_mark_or_argument(tmp_path: Path) -> None:
    sample = tmp_path / "test_sample.py"
    sample.write_text(SAMPLE)
    collected: list[pytest.Item] = []

    class Collected:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            collected.extend(session.items)

    assert pytest.main(["--collect-only", "--noconftest", "-qq", "-W", "ignore", str(sample)], [Collected()]) == 0
    kind = database_of(collected[0].nodeid.partition("::")[0])
    kept = [item.name for item in collected if runs(item)]
    both = [f"{name}[{kind}]" for name in ("test_marked", "test_named") for kind in KINDS]
    assert kept == [f"test_by_file[{kind}]", *both, "test_without"]
