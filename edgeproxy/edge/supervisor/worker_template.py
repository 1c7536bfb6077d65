"""A process that has imported a worker's modules, and forks a worker at each request of the supervisor.

Workers that are started by exec share no page, and each has some 30 MiB once its modules are imported. Forked workers
have nine. The supervisor forks the template before it has read anything, from a process that began without the secrets
of ${VAR} (environment.py). There is one thread, no event loop and no socket, and the template's memory has only the
content of the product's files. So every start is equal to the first, whatever the supervisor knows by then and even if
the files have changed meanwhile.

The supervisor sends the descriptors of a worker over a socket pair, and gets its pid as the answer. The template forks
twice, and the process in between ends at once. So the worker becomes a child of the supervisor, the next subreaper
above, which waits for it as for a worker started by exec. The template ends with the supervisor. If it is killed or
does not answer, workers are started by exec from then on.
"""

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from edgeproxy.base import log
from edgeproxy.base.allocator import WORKER_ALLOCATION, tune_allocation
from edgeproxy.base.descriptor_limit import raise_descriptor_limit

ANSWER_SECONDS_MAX = 5.0
"""Seconds that the template may take to fork: it takes milliseconds, unless it was stopped."""
DESCRIPTORS_MAX = 250
"""Descriptors that one message can carry (SCM_MAX_FD is 253)."""
PR_SET_CHILD_SUBREAPER = 36


class ForkedWorker(NamedTuple):
    """A worker that is a child of this process."""

    pid: int

    def wait(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class WorkerTemplate:
    """The template of one supervisor, from `create` to `close`."""

    def __init__(self, requests: socket.socket, pid: int) -> None:
        self._requests = requests
        self.pid: int | None = pid
        """Its pid; None once it has ended, or was given up."""
        self._turn = asyncio.Lock()
        self._log = log.get_logger()

    @classmethod
    def create(cls) -> "WorkerTemplate | None":
        """Import a worker's modules, and fork the template. Return None if orphans would not become this process's
        children.

        The process must have one thread and no secrets yet (environment.py).
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            # Otherwise no process would learn that a worker has ended. qemu 7.2 refuses this.
            why = os.strerror(ctypes.get_errno())
            print(f"edgeproxy: workers are started by exec, and take more memory: prctl: {why}", file=sys.stderr)
            return None
        raise_descriptor_limit()
        _rehearse()
        gc.collect()
        gc.freeze()  # A collection would touch the imported objects, and so make every page a process's own.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _be_template(theirs)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    async def fork_worker(self, descriptors: Sequence[int]) -> ForkedWorker | None:
        """Fork a worker that has these descriptors: its channel, the socket for memory, then its listening sockets.

        Return None if there is no template any more.
        """
        async with self._turn:
            if self.pid is None or len(descriptors) > DESCRIPTORS_MAX:
                return None
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    socket.send_fds(self._requests, [b"worker"], descriptors)
                    answer = await asyncio.get_running_loop().sock_recv(self._requests, 20)
                return ForkedWorker(int(answer))
            except (OSError, TimeoutError, ValueError) as error:
                self.close()
                why = str(error) or type(error).__name__
                self._log.warning("the template of workers is lost; they are started by exec from now on", why=why)
                return None
            except BaseException:  # After a cancellation the pending answer would be taken for the next request's.
                self.close()
                raise

    def close(self) -> None:
        """End the template. Workers that it has forked continue."""
        if self.pid is not None:
            self._requests.close()
            os.kill(self.pid, signal.SIGKILL)  # It may have been stopped, and has nothing to lose.
            os.waitpid(self.pid, 0)
            self.pid = None


def _rehearse() -> None:
    """Do the first work of each worker once, so that the results are shared.

    For example, pydantic builds its models when the first configuration is read.
    """
    from edgeproxy.config.edge.load import dump_settings
    from edgeproxy.config.edge.quick import load_quick
    from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
    from edgeproxy.edge.proxy.process import worker  # noqa: F401

    settings = load_quick("http://127.0.0.1:1", listen="127.0.0.1:0", admin=None, rate="1/s", state=Path())
    PreparedConfiguration(dump_settings(settings))


def _be_template(requests: socket.socket) -> NoReturn:
    """Fork workers until the supervisor has ended; never returns."""
    try:
        os.setsid()  # A Ctrl-C in the supervisor's terminal must not reach it, nor workers.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        _keep_only(requests.fileno())
        tune_allocation(WORKER_ALLOCATION)
        arguments = _locate_arguments()
        _set_title(arguments, "template")
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 20, DESCRIPTORS_MAX)
            if not message:
                os._exit(0)
            pid = _fork_worker(requests, descriptors, arguments)
            for descriptor in descriptors:
                os.close(descriptor)
            requests.send(str(pid).encode())
    except BaseException as error:
        print(f"edgeproxy: the template of workers: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def _fork_worker(requests: socket.socket, descriptors: Sequence[int], arguments: range) -> int:
    """Fork a process that forks the worker and ends; return the worker's pid."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        requests.close()
        os.close(reader)
        os.close(writer)
        _be_worker(descriptors, arguments)
    os.close(writer)
    with os.fdopen(reader) as answer:
        os.waitpid(between, 0)
        return int(answer.read())


def _be_worker(descriptors: Sequence[int], arguments: range) -> NoReturn:
    """Run a worker to its end; never returns."""
    from edgeproxy.edge.proxy.process import worker

    code = 1
    try:
        os.setsid()
        _set_title(arguments, "worker")
        channel, memory, *listening = descriptors
        code = worker.run(channel, memory, listening)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # A regular exit would touch every page and make it the process's own.


def _keep_only(number: int) -> None:
    """Close all descriptors but the standard ones and this."""
    for before, after in pairwise([2, number, os.sysconf("SC_OPEN_MAX")]):
        if before + 1 < after:
            os.closerange(before + 1, after)


def _locate_arguments() -> range:
    """Return the position of the process's command line in its memory; an empty range if that is unknown."""
    try:
        # proc(5): fields 48 and 49 are the beginning and the end of the arguments.
        start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    except (OSError, ValueError):
        return range(0)
    return range(start, end) if start else range(0)


def _set_title(arguments: range, role: str) -> None:
    """Set the title that process lists show; it is cut off if the command line was shorter."""
    title = b"\0".join(map(os.fsencode, (sys.executable, "-m", "edgeproxy.edge.proxy", role)))
    if len(arguments) > 1:
        size = len(arguments)
        ctypes.memmove(arguments.start, title.ljust(size, b"\0")[: size - 1] + b"\0", size)
