from pathlib import Path

import pytest

from edgeproxy.edge.counters.columns import declare_orphan, give_back, held, is_held, orphans, take, withdraw_orphan
from edgeproxy.edge.counters.file import TableFile
from tests.support.program import Program
from tests.support.tables import CUSTOMERS, USAGE, make, opened


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path, CUSTOMERS), make(tmp_path, USAGE)


def both(paths: tuple[Path, Path]) -> list[TableFile]:
    return [opened(path) for path in paths]


def test_a_column_is_free_again_when_its_holder_has_closed_the_files(paths: tuple[Path, Path]) -> None:
    workers = [both(paths) for _ in range(3)]
    for files in workers:
        take(files)
    for file in workers[1]:
        file.close()
    assert take(both(paths)) == 1


def test_a_column_must_be_free_in_every_file(paths: tuple[Path, Path]) -> None:
    customers, usage = both(paths)
    take([usage])
    files = both(paths)
    assert take(files) == 1
    # What was locked on the way there has been given back.
    assert held(customers) == {1}
    assert held(opened(paths[1])) == {0, 1}


def test_a_reader_sees_who_holds_what_and_takes_nothing(paths: tuple[Path, Path]) -> None:
    files = both(paths)
    column = take(files)
    reader = opened(paths[0])
    assert held(reader) == {column}
    assert is_held(reader, column)
    assert not is_held(reader, 1)
    give_back(files, column)
    assert held(reader) == frozenset()


def test_who_serves_on_without_a_supervisor_is_known_by_a_lock_of_its_own(paths: tuple[Path, Path]) -> None:
    workers = [opened(paths[0]) for _ in range(3)]
    columns = [take([file]) for file in workers]
    declare_orphan(workers[0], columns[0], last=True)
    declare_orphan(workers[1], columns[1], last=True)
    declare_orphan(workers[1], columns[1], last=False)
    reader = opened(paths[0])
    assert orphans(reader) == {0: True, 1: False}
    assert orphans(workers[0]) == {1: False}
    assert held(reader) == {0, 1, 2}
    withdraw_orphan(workers[1], columns[1])
    assert orphans(reader) == {0: True}
    workers[0].close()
    assert orphans(reader) == {}
    assert held(reader) == {1, 2}


HOLDER = """
import sys
from pathlib import Path
from edgeproxy.edge.counters.columns import take
from tests.support.tables import opened
files = [opened(Path(path)) for path in sys.argv[1:]]
print(take(files), flush=True)
sys.stdin.read()
"""


def test_kill_9_frees_a_column(paths: tuple[Path, Path]) -> None:
    with Program("-c", HOLDER, *paths) as holder:
        assert holder.heard() == "0"
        reader = opened(paths[0])
        assert held(reader) == {0}
        holder.kill()
    assert held(reader) == frozenset()
    assert take(both(paths)) == 0
