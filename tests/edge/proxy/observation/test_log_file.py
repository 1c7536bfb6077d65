"""The access log writes whole lines in order, whatever happens to the file, and never blocks a request."""

import fcntl
import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgeproxy.edge.proxy.observation import log_file
from edgeproxy.edge.proxy.observation.log_file import LogFile, describe_problem, split_for_pipe
from loadtest.testbed.waiting import until

PATIENCE = 10.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@contextmanager
def log(file: Path) -> Iterator[LogFile]:
    """A log that is closed at the end, with enough time to write everything."""
    opened = LogFile(file)
    yield opened
    opened.close(PATIENCE)


def written(opened: LogFile) -> None:
    """Wait until everything handed over is written or dropped."""
    until(lambda: opened._writer.handled_bytes == opened._handed_bytes, "all is dealt with")


def test_a_new_file_is_not_for_everybody(file: Path) -> None:
    before = os.umask(0o022)
    try:
        with log(file) as opened:
            opened.write_lines([b"a\n"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def moved(file: Path) -> None:
    file.rename(file.with_suffix(".1"))


def moved_and_made_anew(file: Path) -> None:
    moved(file)
    file.touch()


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("rotates", [moved, moved_and_made_anew, removed])
def test_after_a_rotation_lines_go_to_the_new_file(file: Path, rotates: Callable[[Path], None]) -> None:
    with log(file) as opened:
        opened.write_lines([b"one\n"])
        written(opened)
        rotates(file)
        opened.write_lines([b"two\n"])
    assert file.read_bytes() == b"two\n"
    if rotates is not removed:
        assert file.with_suffix(".1").read_bytes() == b"one\n"


def test_log_file_truncated_in_place_restarts_at_its_beginning(file: Path) -> None:
    """As logrotate's copytruncate does it."""
    with log(file) as opened:
        opened.write_lines([b"one\n"])
        written(opened)
        os.truncate(file, 0)
        opened.write_lines([b"two\n"])
    assert file.read_bytes() == b"two\n"


def test_missing_log_directory_loses_only_the_lines_written_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file = folder / "access.log"
    with log(file) as opened:
        opened.write_lines([b"one\n"])
        written(opened)
        folder.rename(tmp_path / "gone")
        opened.write_lines([b"two\n", b"three\n"])
        written(opened)
        assert opened.take_lost_lines() == (2, "No such file or directory")
        assert opened.take_lost_lines()[0] == 0
        folder.mkdir()
        opened.write_lines([b"four\n"])
    assert file.read_bytes() == b"four\n"


APPENDS = """
import sys
from pathlib import Path
from edgeproxy.edge.proxy.observation.log_file import LogFile
opened = LogFile(Path(sys.argv[1]))
for n in range(200):
    opened.write_lines([sys.argv[2].encode() * (1 + n * 7 % 4000) + b"\\n" for _ in range(5)])
opened.close(60.0)
assert opened.take_lost_lines()[0] == 0, opened.take_lost_lines()
"""


def appending(file: Path) -> list[subprocess.Popen[bytes]]:
    """Three processes that write a thousand lines each."""
    return [subprocess.Popen([sys.executable, "-c", APPENDS, str(file), name]) for name in "abc"]


def assert_whole(text: bytes) -> None:
    lines = text.splitlines()
    assert len(lines) == 3 * 1000
    assert all(len(set(line)) == 1 for line in lines)


def test_processes_append_whole_lines_to_one_log_file(file: Path) -> None:
    assert [worker.wait(60) for worker in appending(file)] == [0, 0, 0]
    assert_whole(file.read_bytes())


def test_processes_write_whole_lines_to_one_pipe(file: Path) -> None:
    os.mkfifo(file)
    held = os.open(file, os.O_RDWR)  # The end of one writer does not end the others.
    workers = appending(file)
    read = bytearray()
    while select.select([held], [], [], 0.1)[0] or any(worker.poll() is None for worker in workers):
        if select.select([held], [], [], 0.1)[0]:
            read += os.read(held, 1 << 16)
    os.close(held)
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert_whole(bytes(read))


FILLS = """
import resource, sys
from pathlib import Path
from edgeproxy.edge.proxy.observation.log_file import LogFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
opened = LogFile(Path(sys.argv[1]))
opened.write_lines([b"%063d\\n" % n for n in range(40)])
opened.close(60.0)
print(*opened.take_lost_lines(), sep="|")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
opened = LogFile(Path(sys.argv[1]))
opened.write_lines([b"there is room again\\n"])
opened.close(60.0)
"""


def test_log_file_without_room_ends_with_a_whole_line(file: Path) -> None:
    """After a partial write the log leaves no half line that another line would continue."""
    file.write_bytes(b"before\n")
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(file)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "25|File too large\n"
    kept = [b"%063d\n" % n for n in range(15)]
    assert file.read_bytes() == b"before\n" + b"".join(kept) + b"there is room again\n"


def test_unread_fifo_blocks_no_writer_and_loses_only_surplus_lines(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "WAITING_BYTES_MAX", 100)
    os.mkfifo(file)
    opened = LogFile(file)
    opened.write_lines([b"x" * 49 + b"\n"])
    opened.write_lines([b"y" * 49 + b"\n"])
    opened.write_lines([b"too\n", b"much\n"])
    assert opened.take_lost_lines() == (2, "it takes lines more slowly than they come")
    with file.open("rb") as reader:
        assert reader.readline() == b"x" * 49 + b"\n"
        assert reader.readline() == b"y" * 49 + b"\n"
        written(opened)
        opened.write_lines([b"again\n"])
        assert reader.readline() == b"again\n"
        opened.close(PATIENCE)
    assert opened.take_lost_lines()[0] == 0


def test_a_reader_that_goes_is_no_end(file: Path) -> None:
    os.mkfifo(file)
    opened = LogFile(file)
    opened.write_lines([b"one\n"])
    with file.open("rb") as reader:
        assert reader.readline() == b"one\n"
    opened.write_lines([b"two\n"])
    written(opened)
    assert opened.take_lost_lines() == (1, "Broken pipe")
    opened.write_lines([b"three\n"])
    with file.open("rb") as reader:
        assert reader.readline() == b"three\n"
        opened.close(PATIENCE)


def test_closing_waits_at_most_its_timeout_and_counts_lost_lines(file: Path) -> None:
    os.mkfifo(file)
    opened = LogFile(file)
    opened.write_lines([b"one\n", b"two\n"])
    opened.close(0.05)
    assert opened.take_lost_lines()[0] == 2
    os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))  # Lets the thread continue.


def test_a_log_that_was_never_used_makes_no_file_and_no_thread(file: Path) -> None:
    before = threading.active_count()
    with log(file):
        assert threading.active_count() == before
    assert not file.exists()


def test_the_lock_of_another_process_is_waited_for(file: Path) -> None:
    with file.open("wb") as other, log(file) as opened:
        fcntl.flock(other, fcntl.LOCK_EX)
        opened.write_lines([b"one\n"])
        until(lambda: opened._writer._fd >= 0, "the file is open")
        assert file.read_bytes() == b""
        fcntl.flock(other, fcntl.LOCK_UN)
        written(opened)
    assert file.read_bytes() == b"one\n"


def test_log_file_reuses_an_open_stream_of_any_kind() -> None:
    """A socket, for example systemd's, cannot be opened by its name."""
    writes = "from pathlib import Path; from edgeproxy.edge.proxy.observation.log_file import LogFile; "
    writes += "log = LogFile(Path('/dev/stdout')); log.write_lines([b'one\\n', b'two\\n']); log.close(60.0)"
    ours, theirs = socket.socketpair()
    with closing(ours):
        with closing(theirs):
            subprocess.run([sys.executable, "-c", writes], stdout=theirs, timeout=60, check=True)
        assert ours.makefile("rb").read() == b"one\ntwo\n"


def test_pieces_are_whole_lines_as_large_as_a_pipe_keeps_together() -> None:
    lines = [bytes([65 + n % 26]) * (n * 37 % 1500) + b"\n" for n in range(200)] + [b"z" * 9000 + b"\n", b"end\n"]
    cut = list(split_for_pipe(b"".join(lines)))
    assert b"".join(cut) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in cut)
    assert [piece for piece in cut if len(piece) > 4096] == [lines[-2]]
    assert len(cut) < len(lines) / 3


def test_describe_problem_names_unusable_log_files(tmp_path: Path) -> None:
    assert describe_problem(tmp_path / "new.log") is None
    assert not (tmp_path / "new.log").exists()
    assert describe_problem(tmp_path / "no" / "such.log") == f"the directory {tmp_path / 'no'} does not exist"
    assert describe_problem(tmp_path) == "Is a directory"
    os.mkfifo(tmp_path / "fifo")
    for usable in (tmp_path / "fifo", Path("/dev/null"), Path("/dev/stdout"), Path("/dev/stderr")):
        assert describe_problem(usable) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_describe_problem_names_an_unwritable_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert describe_problem(tmp_path / "access.log") == f"the directory {tmp_path} may not be written to"
