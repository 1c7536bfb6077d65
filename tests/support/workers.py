"""Run test files in several processes at a time, with `--workers=N`. Each is a fork of a pytest that has collected all
tests.

A worker gets one file after another, the longest first. Tests of a file stay in one process because they share an edge
or a database. Fixtures of the session are set up once in each worker. A worker's end during a test fails that test, and
another worker runs the rest of its file.
"""

import atexit
import os
import sys
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn, cast
from warnings import WarningMessage

import pytest

SECONDS = Path(__file__).parents[1] / "seconds.txt"
"""The files that take longest, one per line: seconds and path. `--record-seconds` writes it."""
SECONDS_MIN = 5
"""Shorter files are left out of the record."""
FIRST = ("tests/demo/", "tests/test_", "tests/loadtest/", "tests/faults/", "tests/e2e/")
"""Places with the longest of the other files. They run before the rest."""


@dataclass
class Worker:
    """A process that runs tests, in the process that started it. Tests are numbers in the order of collection."""

    pid: int
    pipe: Connection
    handle: int
    """A pidfd. It shows the process's end even if another process still holds the worker's end of the pipe."""
    test: int | None = None
    """The current or the last test."""
    rest: list[int] = field(default_factory=list)
    """The tests of its file that have not started."""
    idle: bool = True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=0, help="run the files in so many processes")
    parser.addoption("--record-seconds", action="store_true", help=f"record in {SECONDS.name} how long each file took")


def read_seconds() -> dict[str, int]:
    """Return the recorded seconds by file."""
    return {file: int(seconds) for seconds, file in map(str.split, SECONDS.read_text().splitlines())}


class Record:
    """Adds up the seconds of each file in this run, for `--record-seconds`."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        known = read_seconds() | {file: round(seconds) for file, seconds in self._seconds.items()}
        slow = sorted((-seconds, file) for file, seconds in known.items() if seconds >= SECONDS_MIN)
        SECONDS.write_text("".join(f"{-seconds} {file}\n" for seconds, file in slow))


def pytest_configure(config: pytest.Config) -> None:
    if config.option.record_seconds:
        config.pluginmanager.register(Record())


def list_files(items: Sequence[pytest.Item]) -> list[list[int]]:
    """Return the numbers of the tests of each file, the longest file first."""
    files: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        files.setdefault(item.nodeid.partition("::")[0], []).append(number)
    seconds = read_seconds()

    def place(file: str) -> tuple[int, int]:
        return -seconds.get(file, 0), next((n for n, prefix in enumerate(FIRST) if file.startswith(prefix)), len(FIRST))

    return [files[file] for file in sorted(files, key=place)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in `--workers` processes instead of this one."""
    option = session.config.option
    if not option.workers or option.collectonly or session.testsfailed:
        return None
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # one for all
    files, workers = deque(list_files(session.items)), list[Worker]()
    try:
        workers += [start_worker(session, workers) for _ in range(min(option.workers, len(files)))]
        while workers:
            ready = wait([handle for worker in workers for handle in (worker.pipe, worker.handle)])
            for worker in [worker for worker in workers if worker.pipe in ready or worker.handle in ready]:
                status = os.waitpid(worker.pid, os.WNOHANG)
                read_messages(session, worker, files)
                if status[0]:
                    workers.remove(worker)
                    worker.pipe.close()
                    os.close(worker.handle)
                    if status[1] or not worker.idle:
                        report_end(session, worker, os.waitstatus_to_exitcode(status[1]))
                        if worker.rest:
                            files.appendleft(worker.rest)
                        if files:
                            workers.append(start_worker(session, workers))
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            os.waitpid(worker.pid, 0)
            os.close(worker.handle)
    return True


def start_worker(session: pytest.Session, workers: Sequence[Worker]) -> Worker:
    """Fork a worker. It closes the pipes of the running `workers`, so that they see the end of this process."""
    ours, theirs = Pipe()
    session.config.get_terminal_writer().flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        for pipe in (ours, *(worker.pipe for worker in workers)):
            pipe.close()
        work(session, theirs)
    theirs.close()
    return Worker(pid, ours, os.pidfd_open(pid))


def read_messages(session: pytest.Session, worker: Worker, files: deque[list[int]]) -> None:
    """Read a worker's messages: calls of pytest's hooks, tests that start, and requests for a file."""
    hook = session.config.hook
    try:
        while worker.pipe.poll():
            kind, values = worker.pipe.recv()
            if kind == "test":
                worker.test = values
                del worker.rest[: worker.rest.index(values) + 1]
            elif kind == "file":
                worker.idle = not files
                worker.rest = list(files.popleft()) if files else []
                worker.pipe.send(worker.rest)
            elif kind == "report":
                report = hook.pytest_report_from_serializable(config=session.config, data=values)
                hook.pytest_runtest_logreport(report=report)
            elif kind == "warning":
                hook.pytest_warning_recorded.call_historic(kwargs=values)
            else:
                getattr(hook, kind)(**values)
    except (EOFError, ConnectionError):
        pass  # It has ended, as the handle shows.


def report_end(session: pytest.Session, worker: Worker, code: int) -> None:
    """Fail the test that a worker ran when it ended."""
    if worker.test is None:
        raise RuntimeError(f"a worker ended before its first test, with code {code}")
    item = session.items[worker.test]
    why = f"the worker ended during this test, or after it, with code {code}"
    report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
    session.config.hook.pytest_runtest_logreport(report=report)


# ---- in a worker


class Sender:
    """Sends a worker's reports and warnings. It stands in for the terminal reporter, which would print them."""

    def __init__(self, config: pytest.Config, pipe: Connection) -> None:
        self._config = config
        self._pipe = pipe
        self._tw = config.get_terminal_writer()  # pytest-timeout writes stacks there
        self.ready = False
        """False while pytest repeats earlier warnings to this new listener."""

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._pipe.send(("pytest_runtest_logstart", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._pipe.send(("pytest_runtest_logfinish", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._pipe.send(("report", data))

    def pytest_warning_recorded(self, warning_message: WarningMessage, when: str, nodeid: str, location: Any) -> None:
        if not self.ready:
            return
        text = UserWarning(f"{warning_message.category.__name__}: {warning_message.message}")
        copied = WarningMessage(text, UserWarning, warning_message.filename, warning_message.lineno)
        values = {"warning_message": copied, "when": when, "nodeid": nodeid, "location": location}
        self._pipe.send(("warning", values))


def work(session: pytest.Session, pipe: Connection) -> NoReturn:
    """Run files until there is none left. Never returns."""
    code = 1
    try:
        set_up(session.config, pipe)
        run_files(session, pipe)
        code = 0
    except (BrokenPipeError, ConnectionResetError, EOFError):
        session._setupstate.teardown_exact(None)  # The run ended early, so no report is sent.
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def set_up(config: pytest.Config, pipe: Connection) -> None:
    """Give this process its own captured output, folder of temporary files, and reporter."""
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.getbasetemp() / f"worker-{os.getpid()}"
    factory._basetemp.mkdir(mode=0o700)
    sender = Sender(config, pipe)
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(sender, "terminalreporter")
    sender.ready = True


def run_files(session: pytest.Session, pipe: Connection) -> None:
    item: pytest.Item | None = None
    while numbers := ask(pipe):
        items = [session.items[number] for number in numbers]
        # After a file's last test, pytest keeps only the fixtures of the session.
        following = [*items[1:], cast(pytest.Item, session)]
        for number, item, after in zip(numbers, items, following, strict=True):
            pipe.send(("test", number))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
    if item is not None:
        call = pytest.CallInfo.from_call(lambda: session._setupstate.teardown_exact(None), when="teardown")
        report = item.config.hook.pytest_runtest_makereport(item=item, call=call)
        if report.failed:
            item.config.hook.pytest_runtest_logreport(report=report)


def ask(pipe: Connection) -> list[int]:
    """Ask for a file. Returns the numbers of its tests, or an empty list at the end."""
    pipe.send(("file", None))
    numbers: list[int] = pipe.recv()
    return numbers
