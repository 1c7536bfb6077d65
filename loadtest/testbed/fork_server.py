"""Start commands of edgeproxy as forks of a process that has already imported the product.

Imports are most of the cost of a start, up to a second of CPU, and tests start hundreds of processes. So a test run has
a fork server, `python -m loadtest.testbed.fork_server`, started at first use. It imports the commands' modules and runs
no thread and no event loop. For each request it forks a copy as its own sibling (CLONE_PARENT). The parent of the copy
is thus the requesting process, which waits for the copy and reads its exit code, as after a start by exec.

A copy gets the arguments, environment and outputs that exec would give it, and /proc shows them too. Some settings work
only in a new process; commands with such settings still start by exec (see `may_fork`).

A copy that becomes a supervisor first forks a fork server of its own, and its workers are copies of that server. The
workers' parent is the supervisor. The only other difference in the supervisor is that its `Popen` is `start_worker`.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import hashlib
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
import tempfile
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
    "stripe_sandbox.server",
    "edgeproxy.cli",
    "edgeproxy.collector.main",
    "edgeproxy.collector.pages_service",
    "edgeproxy.edge.proxy.process.worker",
    "edgeproxy.edge.supervisor.main",
    "stripe",
)
"""Modules that a fork server imports: the serving commands, and the modules that they import only if configured."""
EXAMPLES = ("edge.yaml", "collector.yaml", "regions.yaml")
"""Configurations in `config` that a fork server loads once, because each command starts by loading one."""
EDGE_PYTHON = os.environ.get("EDGEPROXY_EDGE_PYTHON", sys.executable)
"""The Python of edges. With another machine's Python, under an emulator, edges start by exec (scripts/test-arm64)."""
COMMAND = (sys.executable, "-m", "edgeproxy")
STEPPING = (sys.executable, "-m", "loadtest.testbed.step_kill")
WORKER = (sys.executable, "-P", "-m", "edgeproxy.edge.proxy")
MOVED_CLOCK = (sys.executable, "-m", "tests.support.moved_clock")
"""The module of the command; arguments follow. The first argument after the moved clock's module is the file that
holds the offset. Only collectors with a moved clock are forked. They are copies of a second fork server, which moves
its clock before it imports anything.
"""
SUPERVISORS = (["edge"], ["quick"])
"""The commands that start workers."""
EARLY = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "FAKETIME", "LANG", "LC_", "TZ", "OPENSSL_")
"""Prefixes of variables that Python or libraries read before a command runs."""
ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""Variables with such a prefix that can also be set later, each with its option of mallopt(3)."""
LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
"""The limits that a copy inherits. A supervisor lowers the second one after its server of workers has started."""
ROOM = 16 << 10
"""The most bytes of arguments, and of an environment beyond the fork server's own."""
PAUSES = "EDGEPROXY_TEST_PAUSES"
"""The variable that shortens pauses in a copy, `MODULE:NAME=SECONDS …`. A process that starts by exec ignores it."""
CLONE, CLONE_PARENT, PR_SET_PDEATHSIG = 56, 0x8000, 1  # of x86-64: syscalls(2), clone(2), prctl(2)


def ends_within(handle: int, seconds: float | None) -> bool:
    """Return whether the process of a pidfd ends within this time. Unlike select(2), poll(2) has no greatest number."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


class Copy:
    """A forked process, with the methods of Popen that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or the negative signal number if a signal killed the process; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the code of `poll`. Raises TimeoutExpired."""
        if self.returncode is None:
            handle = os.pidfd_open(self.pid)
            try:
                ended = ends_within(handle, timeout)
            finally:
                os.close(handle)
            if not ended:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal. Does nothing if the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The fork server of this process, started with the first copy."""

    def __init__(self, requests: socket.socket) -> None:
        self._environ = dict(os.environ)
        self._requests = requests
        self._turn = threading.Lock()

    @classmethod
    def started(cls, *, moves_clock: bool) -> "ForkServer":
        """Start a fork server process."""
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
        """Return whether a fork can run with this environment: no variable that is read at start differs from the
        server's.
        """
        changed = {name for name, _ in environ.items() ^ self._environ.items()}
        return not any(name.startswith(EARLY) for name in changed - ALLOCATION.keys())

    def fork(self, command: Sequence[str], environ: Mapping[str, str], files: Mapping[int, int], leashed: bool) -> Copy:
        """Start a copy that runs this command."""
        limits = [(limit, resource.getrlimit(limit)) for limit in LIMITS]
        asked = json.dumps([[*command], {**environ}, [*files], leashed, limits]).encode()
        with self._turn:
            socket.send_fds(self._requests, [asked], [*files.values()])
            pid = int(self._requests.recv(20) or b"0")
        if pid <= 0:
            raise OSError("the fork server has ended")
        return Copy(pid)


_servers: dict[tuple[int, bool], ForkServer] = {}
"""Fork servers by the pid of the process that started them, and by whether they move their clock.

The pid is part of the key because a process forked from a test run inherits this table but owns none of its servers.
"""


def may_fork(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a fork of this command would behave like a start by exec. False for commands of other programs."""
    moves_clock = has_moved_clock(command)
    if not moves_clock and tuple(command[:3]) not in (COMMAND, STEPPING) and tuple(command[:4]) != WORKER:
        return False
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    key = os.getpid(), moves_clock
    if key not in _servers:
        if threading.current_thread() is not threading.main_thread():
            # PR_SET_PDEATHSIG watches the thread that started the server, and this thread may end at any time.
            return False
        _servers[key] = ForkServer.started(moves_clock=moves_clock)
    return _servers[key].heard(environ)


def has_moved_clock(command: Sequence[str]) -> bool:
    """Return whether this is the command of a collector with a moved clock."""
    return tuple(command[:3]) == MOVED_CLOCK and command[4] == "collector"


def fork(command: Sequence[str], environ: Mapping[str, str], files: Mapping[int, int], *, leashed: bool = True) -> Copy:
    """Start a command that `may_fork` accepts.

    `files` maps all descriptors of the copy, standard input and outputs among them, to ours. A `leashed` copy gets
    SIGTERM when this process ends.
    """
    return _servers[os.getpid(), has_moved_clock(command)].fork(command, environ, files, leashed)


def start_worker(
    command: Sequence[str], *, stdin: int, pass_fds: Sequence[int], start_new_session: bool, env: Mapping[str, str]
) -> Copy | subprocess.Popen[bytes]:
    """Start a worker; replaces Popen in a supervisor."""
    assert (stdin, start_new_session) == (subprocess.DEVNULL, True)
    if not may_fork(command, env):
        return subprocess.Popen(command, stdin=stdin, pass_fds=pass_fds, start_new_session=True, env=env)
    with open(os.devnull, "rb") as nothing:
        files = {0: nothing.fileno(), 1: 1, 2: 2, **{number: number for number in pass_fds}}
        return fork(command, env, files, leashed=False)


# ---- the server


def serve(requests: socket.socket) -> list[str] | None:
    """Fork a copy for each request. Returns the command in each copy, and None once the requesting side is closed."""
    while True:
        try:
            asked, files, _, _ = socket.recv_fds(requests, 1 << 20, 250)
        except ConnectionResetError:  # The requesting process was killed before it read the last answer.
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
        for file in files:
            os.close(file)
        with contextlib.suppress(BrokenPipeError):  # The requesting process was killed meanwhile.
            requests.send(str(pid).encode())


def serve_workers() -> list[str] | None:
    """Fork a fork server for this supervisor's workers. Returns None in the supervisor, the command in each worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        os.setsid()  # Signals of a terminal or a test to the supervisor's group must not reach the server.
        ours.close()
        # Tests look for edgeproxy processes by command line and must not find this one.
        become(["a fork server of workers"], {})
        return serve(theirs) or os._exit(0)
    theirs.close()
    _servers[os.getpid(), False] = ForkServer(ours)
    module = importlib.import_module("edgeproxy.edge.supervisor.process")
    module.subprocess = SimpleNamespace(Popen=start_worker, DEVNULL=subprocess.DEVNULL)  # type: ignore[attr-defined]
    return None


def sibling() -> int:
    """Fork like fork(2), but as a child of this process's parent."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None).syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    python.PyOS_AfterFork_Child() if pid == 0 else python.PyOS_AfterFork_Parent()
    return pid


def keep(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give these files these descriptor numbers, and close all other descriptors."""
    above = [fcntl.fcntl(file, fcntl.F_DUPFD, max(numbers) + 1) for file in files]
    for each, number in zip(above, numbers, strict=True):
        os.dup2(each, number)
    for before, after in pairwise([-1, *sorted(numbers), os.sysconf("SC_OPEN_MAX")]):
        if before + 1 < after:  # Python treats an empty range as an endless one.
            os.closerange(before + 1, after)


def become(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Take over this command line and environment, and drop the fork server's."""
    os.environ.clear()
    os.environ.update(environ)
    for name, option in ALLOCATION.items():
        if name in environ:
            ctypes.CDLL(None).mallopt(option, int(environ[name]))
    # proc(5): fields 48 to 51 are the start and end addresses of the arguments and the environment.
    places = [int(part) for part in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:49]]
    tell(places[0], places[1], command)
    tell(places[2], places[3], [f"{name}={value}" for name, value in environ.items()])


def tell(start: int, end: int, texts: Sequence[str]) -> None:
    """Write these texts where /proc reads them, cut to the available room."""
    content = b"".join(os.fsencode(text) + b"\0" for text in texts)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, content, len(content))


def end_at_once(codes: Sequence[int]) -> None:
    """Exit with this code, if there is one, without freeing objects: freeing would copy every shared memory page."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0] & 0xFF)


def shorten_pauses(pauses: str) -> None:
    """Set constants of modules, as PAUSES states them."""
    for part in pauses.split():
        place, seconds = part.split("=")
        module, name = place.split(":")
        loaded = importlib.import_module(module)
        getattr(loaded, name)  # A constant that was renamed must be noticed.
        setattr(loaded, name, float(seconds))


def rehearse() -> None:
    """Do the work that every command does first, so that each copy inherits the result.

    This is a third of the cost of a start: pydantic builds a configuration's models at the first load, typer builds the
    tree of commands at the first call, and the Stripe sandbox reads the description of its API.
    """
    # Not at the top of the file: tests import this file too, and MODULES must be imported before these.
    import typer
    from aiohttp import web
    from jinja2 import FileSystemBytecodeCache

    from edgeproxy import cli
    from edgeproxy.collector.api import app
    from edgeproxy.collector.pages import rendering
    from edgeproxy.config import file_kinds
    from edgeproxy.config.edge import load as edge_load
    from edgeproxy.config.edge import settings as edge_settings
    from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
    from edgeproxy.edge.proxy.routing.path_rules import PathRules
    from stripe_sandbox.description import load_description

    for name in EXAMPLES:
        settings = file_kinds.check_file(ROOT / "config" / name, {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="})
        if isinstance(settings, edge_settings.EdgeSettings):
            PreparedConfiguration(edge_load.dump_settings(settings))
            PathRules(settings.paths)
    # Compiling the templates takes 1.7 s of CPU. The first copy that needs one stores its code for all later processes.
    os.environ.pop("TMPDIR", None)  # It may be a folder of the test that started this server.
    version = hashlib.sha256(Path(rendering.__file__).read_bytes()).hexdigest()[:12]  # The options of templates.
    rendering.COMPILED = FileSystemBytecodeCache(pattern=f"edgeproxy-{version}-%s")  # type: ignore[assignment]
    tempfile.tempdir = None  # Each copy has the folder of its own environment.
    load_description()
    for route in app.list_routes().values():
        web.UrlDispatcher().add_resource(route)  # Python keeps its compiled expression.
    created = typer.main.get_command(cli.app)
    created.load_all()  # type: ignore[attr-defined]  # A LazyGroup.
    typer.main.get_command = lambda app: created  # type: ignore[assignment]


def main() -> None:
    """Import the modules, serve requests for forks, and run the command in each copy."""
    codes: list[int] = []
    atexit.register(end_at_once, codes)  # atexit calls the function registered first last.
    requests = socket.socket(fileno=int(sys.argv[1]))
    moved_clock = importlib.import_module(MOVED_CLOCK[2]) if sys.argv[3:] else None
    if moved_clock is not None:
        # Some modules store the clock as a default argument, so this comes before their import.
        moved_clock.move_clock()
    for module in MODULES:
        importlib.import_module(module)
    rehearse()
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread, which no copy would have"
    gc.collect()
    gc.freeze()  # A garbage collection in a copy would touch, and so copy, every page of the imported modules.
    command = serve(requests)
    if command is None:
        return
    # The supervisor would start anew by exec otherwise. It has a fork server for its workers instead.
    os.environ["EDGEPROXY_TEMPLATE"] = "0"
    if command[3:4] in SUPERVISORS or (tuple(command[:3]) == STEPPING and command[4:5] in SUPERVISORS):
        command = serve_workers() or command
    shorten_pauses(os.environ.get(PAUSES, ""))
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
