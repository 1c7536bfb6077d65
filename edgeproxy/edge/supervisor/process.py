"""One worker process: started by exec with its channel and the listening sockets, and watched until it ends.

A worker is signalled and waited for through its pidfd, which can never mean another process, even after the
kernel has given its pid away.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, Outbox
from edgeproxy.edge.messages import (
    Alive,
    Committed,
    Failed,
    FetchIssuerKeys,
    LimitsUsed,
    LookUpKeys,
    Prepared,
    PrepareFailed,
    Ready,
    ToSupervisor,
    ToWorker,
)
from edgeproxy.edge.supervisor.heartbeat import Heartbeat

MessageHandler = Callable[[LimitsUsed | LookUpKeys | FetchIssuerKeys, Callable[[ToWorker], None]], None]
"""Hears what a worker says that is not about itself, and by what it can be answered."""

WORKER_COMMAND = (sys.executable, "-P", "-m", "edgeproxy.edge.proxy")
"""The command of a worker; `--channel FD --listen FD,FD` is added. -P: a file of the directory in which an operator
starts the edge, such as a json.py, is no module of it."""


ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
"""What glibc is told in a worker's environment, in bytes, unless it is told something there already. Otherwise it
gives the memory of each larger piece of a body back to the kernel, and asks for it again with the next."""


ENVIRONMENT = ("PATH", "HOME", "USER", "TZ", "TZDIR", "TMPDIR", "LANG", "LANGUAGE", "VIRTUAL_ENV", "GLIBC_TUNABLES")
ENVIRONMENT_PREFIXES = (
    "LC_",
    "LD_",
    "MALLOC_",
    "PYTHON",
    "SSL_CERT_",
    "OPENSSL_",
    "UV_",
    "FAKETIME",
    "EDGEPROXY_TEST_",
)
"""What of its environment a worker gets, by name and by how names begin. Secrets for ${VAR} are none of it: a worker is
told of the configuration, and serves everybody."""


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker, made of the supervisor's."""
    inherited = {
        name: value for name, value in environ.items() if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }
    return ALLOCATION | inherited


class WorkerProcess:
    """A worker from its start to its end; made by `start`."""

    def __init__(self, child: subprocess.Popen[bytes], channel: Channel[ToWorker, ToSupervisor]) -> None:
        self.channel = channel
        self.outbox: Outbox[ToWorker] = Outbox(channel)
        """What it is told; somebody has to `deliver` it."""
        self.pid = child.pid
        self.started_at = time.time()
        """Unix seconds."""
        self.column: int | None = None
        """The column of the tables that it holds; None until it has said that it is ready."""
        self.why: str | None = None
        """What it said when it failed, or what is wrong with it."""
        self.crowded = False
        """Whether it failed because others have all columns."""
        self.heartbeat = Heartbeat()
        self.number = 0
        """The configuration that it serves, or will once it is ready."""
        self.prepared = 0
        """The one that it was last ready to serve instead."""
        self.refused = (0, "")
        """The one that it last could not be made ready to serve, and why."""
        self.dismissed = False
        """Whether it was told to leave, for it could not follow the others."""
        self.heed: MessageHandler = lambda message, reply: None
        """Who hears what it says that is not about itself."""
        self.welcome = False
        """Whether it was ready, and served the configuration that all should."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        """Resolves to its exit code, or minus the signal that killed it; it is no zombie by then."""
        self._child = child
        self._pidfd = os.pidfd_open(child.pid)
        loop.add_reader(self._pidfd, self._reap, loop)

    @classmethod
    async def start(cls, command: Sequence[str], listening: Sequence[socket.socket]) -> "WorkerProcess":
        """Run `command` with one end of a new channel and these sockets; it inherits no other descriptor.

        It gets a session of its own: a Ctrl-C in the supervisor's terminal reaches the supervisor alone, and
        that drains. Raises OSError where no process can be had.
        """
        ours, theirs = socket.socketpair()
        numbers = [one.fileno() for one in listening]
        with theirs:
            try:
                # Not awaited: this is a vfork, a millisecond in which nothing else runs.
                child = subprocess.Popen(  # noqa: ASYNC220
                    [*command, "--channel", str(theirs.fileno()), "--listen", ",".join(map(str, numbers))],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *numbers],
                    start_new_session=True,
                    env=build_environment(os.environ),
                )
            except BaseException:
                ours.close()
                raise
        return cls(child, await Channel.from_socket(ours, messages.SUPERVISOR))

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return self.column is not None and not self.ended.done()

    def heard(self, message: ToSupervisor) -> None:
        """Take note of what the worker says."""
        match message:
            case LimitsUsed() | LookUpKeys() | FetchIssuerKeys():
                self.heed(message, self.outbox.append)
            case Alive():
                self.heartbeat.beat()
            case Ready(column=column):
                self.column = column
                self.heartbeat.beat()
            case Failed(why=why, crowded=crowded):
                self.why, self.crowded = why, crowded
            case Prepared(number=number):
                self.prepared = number
            case PrepareFailed(number=number, why=why):
                self.refused = number, why
            case Committed(number=number):
                self.number = number
            case _:
                assert_never(message)

    def kill(self) -> None:
        """End it at once; nothing happens where it has ended."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(self._child.wait())
