"""Commands of edgeproxy that begin as copies of a process which has imported the product already.

Importing is most of what a start costs, up to a second of CPU, and tests start hundreds. So a test run has a server,
`python -m loadtest.testbed.fork_server`, made when it is first of use: it imports what the commands do, and nothing
runs in it, no thread and no event loop. Whatever it is asked for it forks, as its own sibling (CLONE_PARENT): who asked
is the parent, and so waits for the copy, is told how it ended, and takes it along, as if it had started it by exec.

What a copy is told when it starts, its arguments, its environment, its outputs, is what it would be told by exec, also
in /proc. It starts by exec all the same where something is said that only a new process hears: see `may_fork`.

A copy that becomes a supervisor first forks a server of its own, whose copies are its workers: their parent is the
supervisor, in which nothing else is different but that its `Popen` is `start_worker`.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent.parent
MODULES = (
    "aiosqlite",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "edgeproxy.regions.beacon.main",
    "edgeproxy.stripe_sandbox.server",
    "edgeproxy.cli",
    "edgeproxy.collector.main",
    "edgeproxy.collector.pages_service",
    "edgeproxy.edge.proxy.worker",
    "edgeproxy.edge.supervisor.main",
    "stripe",
)
"""What a server imports: the commands that serve, and what they import only once they are configured."""
EXAMPLES = ("edge.yaml", "collector.yaml", "regions.yaml")
"""Configurations that a server reads, in `config`, as commands do first."""
EDGE_PYTHON = os.environ.get("EDGEPROXY_EDGE_PYTHON", sys.executable)
"""What edges run on: where it is another machine's, under an emulator, they start by exec (scripts/test-arm64)."""
COMMAND = (sys.executable, "-m", "edgeproxy")
STEPPING = (sys.executable, "-m", "loadtest.testbed.step_kill")
WORKER = (sys.executable, "-P", "-m", "edgeproxy.edge.proxy")
MOVED_CLOCK = (sys.executable, "-m", "tests.support.moved_clock")
"""What it stands for; arguments follow. Of those with a moved clock, after the file that says by how much, collectors
alone; they are copies of a second server, whose clock was moved before it imported anything."""
SUPERVISORS = (["edge"], ["quick"])
"""The commands that start workers."""
EARLY = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "FAKETIME", "LANG", "LC_", "TZ", "OPENSSL_")
"""How variables begin which are read, by Python or by libraries, before a command runs."""
ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""Those of them that can be told later too, and the options of mallopt(3) that do it."""
LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
"""The limits that a copy inherits. A supervisor lowers the second one after its server of workers has started."""
ROOM = 16 << 10
"""Bytes that arguments may have, and an environment beyond that of the server."""
CLONE, CLONE_PARENT, PR_SET_PDEATHSIG = 56, 0x8000, 1  # of x86-64: syscalls(2), clone(2), prctl(2)


class Copy:
    """A process that was forked: what tests want of a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that killed it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """`poll` once it has ended; raises TimeoutExpired."""
        if self.returncode is None:
            handle = os.pidfd_open(self.pid)
            try:
                ended, _, _ = select.select([handle], [], [], timeout)
            finally:
                os.close(handle)
            if not ended:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The server of this process, from its first copy on."""

    def __init__(self, requests: socket.socket) -> None:
        self._environ = dict(os.environ)
        self._requests = requests
        self._turn = threading.Lock()

    @classmethod
    def started(cls, *, moves_clock: bool) -> "ForkServer":
        """A new process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), "-" * ROOM, *["moves-clock"] * moves_clock],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PADDING": "-" * ROOM},
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(process.wait, 10.0)
        atexit.register(ours.close)
        return cls(ours)

    def heard(self, environ: Mapping[str, str]) -> bool:
        """Whether what processes are told when they begin is what the server was told."""
        changed = {name for name, _ in environ.items() ^ self._environ.items()}
        return not any(name.startswith(EARLY) for name in changed - ALLOCATION.keys())

    def fork(self, command: Sequence[str], environ: Mapping[str, str], files: Mapping[int, int], leashed: bool) -> Copy:
        """Start a copy that runs this command."""
        limits = [(each, resource.getrlimit(each)) for each in LIMITS]
        asked = json.dumps([[*command], {**environ}, [*files], leashed, limits]).encode()
        with self._turn:
            socket.send_fds(self._requests, [asked], [*files.values()])
            pid = int(self._requests.recv(20) or b"0")
        if pid <= 0:
            raise OSError("the fork server has ended")
        return Copy(pid)


_servers: dict[tuple[int, bool], ForkServer] = {}
"""By the pid of the process whose it is, as what is forked of a test run has none yet, and by whether it moves its
clock."""


def may_fork(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether this command is the product's, and would be no other for having been started by exec."""
    moves_clock = has_moved_clock(command)
    if not moves_clock and tuple(command[:3]) not in (COMMAND, STEPPING) and tuple(command[:4]) != WORKER:
        return False
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    key = os.getpid(), moves_clock
    if key not in _servers:
        if threading.current_thread() is not threading.main_thread():
            return False  # PR_SET_PDEATHSIG means the thread that started the server, which may end any time.
        _servers[key] = ForkServer.started(moves_clock=moves_clock)
    return _servers[key].heard(environ)


def has_moved_clock(command: Sequence[str]) -> bool:
    """Whether it is a collector's whose clock a file moves."""
    return tuple(command[:3]) == MOVED_CLOCK and command[4] == "collector"


def fork(command: Sequence[str], environ: Mapping[str, str], files: Mapping[int, int], *, leashed: bool = True) -> Copy:
    """Start this command, which may_fork; `files` are all its descriptors, standard input and outputs among them, and
    ours that these shall be. It is told to end when this process does, unless it is not `leashed`."""
    return _servers[os.getpid(), has_moved_clock(command)].fork(command, environ, files, leashed)


def start_worker(
    command: Sequence[str], *, stdin: int, pass_fds: Sequence[int], start_new_session: bool, env: Mapping[str, str]
) -> Copy | subprocess.Popen[bytes]:
    """What a supervisor calls in place of Popen."""
    assert (stdin, start_new_session) == (subprocess.DEVNULL, True)
    if not may_fork(command, env):
        return subprocess.Popen(command, stdin=stdin, pass_fds=pass_fds, start_new_session=True, env=env)
    with open(os.devnull, "rb") as nothing:
        files = {0: nothing.fileno(), 1: 1, 2: 2, **{number: number for number in pass_fds}}
        return fork(command, env, files, leashed=False)


# ---- the server


def serve(requests: socket.socket) -> list[str] | None:
    """Fork whatever is asked for. Returns the command in each copy, and None once nobody can ask any more."""
    while True:
        try:
            asked, files, _, _ = socket.recv_fds(requests, 1 << 20, 250)
        except ConnectionResetError:  # Who asked was killed before it read the last answer.
            return None
        if not asked:
            return None
        pid = sibling()
        if pid == 0:
            requests.detach()
            command, environ, numbers, leashed, limits = json.loads(asked)
            for limit, values in limits:
                resource.setrlimit(limit, values)
            os.setsid()
            if leashed:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            keep(files, numbers)
            become(command, environ)
            return [str(each) for each in command]
        for each in files:
            os.close(each)
        with contextlib.suppress(BrokenPipeError):  # Who asked was killed meanwhile.
            requests.send(str(pid).encode())


def serve_workers() -> list[str] | None:
    """Fork a server of this supervisor's own, and have it make the workers. Returns None in the supervisor, and the
    command in each worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        os.setsid()  # What a terminal or a test tells the supervisor's group is not for it.
        ours.close()
        become(["a fork server of workers"], {})  # It is of no family: what is looked for there is the product's.
        return serve(theirs) or os._exit(0)
    theirs.close()
    _servers[os.getpid(), False] = ForkServer(ours)
    module = importlib.import_module("edgeproxy.edge.supervisor.process")
    module.subprocess = SimpleNamespace(Popen=start_worker, DEVNULL=subprocess.DEVNULL)  # type: ignore[attr-defined]
    return None


def sibling() -> int:
    """fork(2), but the child's parent is that of this process."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None).syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    python.PyOS_AfterFork_Child() if pid == 0 else python.PyOS_AfterFork_Parent()
    return pid


def keep(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Have these files by these numbers, and no others."""
    above = [fcntl.fcntl(each, fcntl.F_DUPFD, max(numbers) + 1) for each in files]
    for each, number in zip(above, numbers, strict=True):
        os.dup2(each, number)
    for before, after in pairwise([-1, *sorted(numbers), os.sysconf("SC_OPEN_MAX")]):
        if before + 1 < after:  # Python takes an empty range for an endless one.
            os.closerange(before + 1, after)


def become(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Be told this, and nothing of what the server was told."""
    os.environ.clear()
    os.environ.update(environ)
    for name, option in ALLOCATION.items():
        if name in environ:
            ctypes.CDLL(None).mallopt(option, int(environ[name]))
    # proc(5): the 48th to 51st are where arguments and environment begin and end.
    places = [int(each) for each in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:49]]
    tell(places[0], places[1], command)
    tell(places[2], places[3], [f"{name}={value}" for name, value in environ.items()])


def tell(start: int, end: int, texts: Sequence[str]) -> None:
    """Write these where /proc reads them, as much as there is room for."""
    content = b"".join(os.fsencode(each) + b"\0" for each in texts)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, content, len(content))


def end_at_once(codes: Sequence[int]) -> None:
    """Leave with this code, where there is one, and take nothing apart: a copy would make every page its own for it."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0] & 0xFF)


def rehearse() -> None:
    """Do once what every command does first, and what then is there in each copy: pydantic makes the models of a
    configuration when it is read, typer the tree of commands when one is called, a third of what a start costs."""
    # Not at the top: tests import this file, and what it starts imports it first.
    import typer

    from edgeproxy import cli
    from edgeproxy.config import file_kinds
    from edgeproxy.config.edge import load as edge_load
    from edgeproxy.config.edge import settings as edge_settings
    from edgeproxy.edge.proxy.prepared_configuration import PreparedConfiguration

    for name in EXAMPLES:
        settings = file_kinds.check_file(ROOT / "config" / name, {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="})
        if isinstance(settings, edge_settings.EdgeSettings):
            PreparedConfiguration(edge_load.dump_settings(settings))
    made = typer.main.get_command(cli.app)
    made.load_all()  # type: ignore[attr-defined]  # A LazyGroup.
    typer.main.get_command = lambda app: made  # type: ignore[assignment]


def main() -> None:
    """Import, fork, and in each copy be the command."""
    codes: list[int] = []
    atexit.register(end_at_once, codes)  # What is registered first is called last.
    requests = socket.socket(fileno=int(sys.argv[1]))
    moved_clock = importlib.import_module(MOVED_CLOCK[2]) if sys.argv[3:] else None
    if moved_clock is not None:
        moved_clock.move_clock()  # Before anything is imported that keeps the clock as a default.
    for module in MODULES:
        importlib.import_module(module)
    rehearse()
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread, which no copy would have"
    gc.collect()
    gc.freeze()  # Looking through what was imported would make a copy's own of every page.
    command = serve(requests)
    if command is None:
        return
    os.environ["EDGEPROXY_TEMPLATE"] = "0"  # It would begin once more by exec, and has a server of workers instead.
    if command[3:4] in SUPERVISORS or (tuple(command[:3]) == STEPPING and command[4:5] in SUPERVISORS):
        command = serve_workers() or command
    name = command.index("-m") + 1
    sys.orig_argv, sys.argv = command, command[name:]
    try:
        if moved_clock is not None:
            moved_clock.main()
        else:
            runpy.run_module(command[name], run_name="__main__", alter_sys=True)
        codes.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise


if __name__ == "__main__":
    main()
