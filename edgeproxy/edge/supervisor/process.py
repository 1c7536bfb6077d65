"""A worker process: it is started with a channel and the listening sockets, and watched until it ends.

A worker is signalled and waited for by its pidfd, which never means another process, even after the kernel has reused
its pid.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, Outbox
from edgeproxy.edge.messages import (
    Alive,
    ChallengesServed,
    Committed,
    ErrorsCounted,
    Failed,
    FetchIssuerKeys,
    LimitsUsed,
    LookUpKeys,
    Prepared,
    PrepareFailed,
    Ready,
    SpansEnded,
    ToSupervisor,
    ToWorker,
)
from edgeproxy.edge.supervisor.environment import inherit
from edgeproxy.edge.supervisor.heartbeat import Heartbeat
from edgeproxy.edge.supervisor.worker_template import ForkedWorker, WorkerTemplate

ForwardedMessage = LimitsUsed | LookUpKeys | FetchIssuerKeys | SpansEnded | ErrorsCounted
"""A message of a worker that is not about the worker itself."""
MessageHandler = Callable[[ForwardedMessage, Callable[[ToWorker], None]], None]
"""A handler of a worker's messages that are not about the worker itself, given a function for the reply."""

WORKER_COMMAND = (sys.executable, "-P", "-m", "edgeproxy.edge.proxy")
"""The command of a worker; `--channel FD --memory FD --listen FD,FD` is added. With -P Python never imports a file in
the operator's current directory, for example one with the name of a standard module.
"""


class WorkerProcess:
    """A worker from its start to its end; created by `start`."""

    def __init__(self, child: subprocess.Popen[bytes] | ForkedWorker, channel: Channel[ToWorker, ToSupervisor]) -> None:
        self.channel = channel
        self.outbox: Outbox[ToWorker] = Outbox(channel)
        """Messages to the worker; `deliver` must be running."""
        self.pid = child.pid
        self.started_at = time.time()
        """Unix seconds."""
        self.column: int | None = None
        """The column of the tables that the worker holds; None until it is ready."""
        self.why: str | None = None
        """The reason that the worker gave for its failure, or its observed fault."""
        self.lacks_column = False
        """True if it failed because other processes hold all columns."""
        self.heartbeat = Heartbeat()
        self.number = 0
        """Number of the configuration that it serves, or will serve once it is ready."""
        self.prepared = 0
        """Number of the configuration that it has prepared."""
        self.refused = (0, "", False)
        """Number of the configuration that it failed to prepare last, why, and whether its memory has not come."""
        self.challenges = (0, "")
        """Number of the challenges that it got last, and why it does not answer them."""
        self.dismissed = False
        """True if it was told to leave because it could not follow the others."""
        self.on_message: MessageHandler = lambda message, reply: None
        """The handler of its other messages."""
        self.has_served = False
        """True once it was ready and served the configuration that all should serve."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        """Resolves to its exit code, or minus the signal that killed it; it is not a zombie by then."""
        self._child = child
        self._pidfd = os.pidfd_open(child.pid)
        loop.add_reader(self._pidfd, self._reap, loop)

    @classmethod
    async def start(
        cls, command: Sequence[str], listening: Sequence[socket.socket], template: WorkerTemplate | None = None
    ) -> "WorkerProcess":
        """Fork a worker of the template, or run `command`, with one end of a new channel and these sockets.

        It inherits no other descriptor. It gets a session of its own: a Ctrl-C in the supervisor's terminal reaches
        only the supervisor, which then drains. Raises OSError if no process can be started.
        """
        ours, theirs = socket.socketpair()
        memory_end, worker_memory_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = [each.fileno() for each in (theirs, worker_memory_end, *listening)]
        with theirs, worker_memory_end:
            try:
                forked = None if template is None else await template.fork_worker(descriptors)
                child = forked or _execute(command, descriptors)
            # Also if the task is cancelled while the template forks.
            except BaseException:
                ours.close()
                memory_end.close()
                raise
        return cls(child, await Channel.from_socket(ours, messages.SUPERVISOR, memory_end))

    @property
    def ready(self) -> bool:
        """True if the worker serves."""
        return self.column is not None and not self.ended.done()

    def apply_message(self, message: ToSupervisor) -> None:
        """Apply a message of the worker to its state."""
        # Any message is a sign of life: a worker sends no Alive while another message is still on its way.
        self.heartbeat.beat()
        match message:
            case LimitsUsed() | LookUpKeys() | FetchIssuerKeys() | SpansEnded() | ErrorsCounted():
                self.on_message(message, self.outbox.append)
            case Alive():
                pass
            case Ready(column=column):
                self.column = column
            case Failed(why=why, crowded=crowded):
                self.why, self.lacks_column = why, crowded
            case Prepared(number=number):
                self.prepared = number
            case PrepareFailed(number=number, why=why, lacks_memory=lacks_memory):
                self.refused = number, why, lacks_memory
            case Committed(number=number):
                self.number = number
            case ChallengesServed(number=number, why=why):
                self.challenges = number, why
            case _:
                assert_never(message)

    def kill(self) -> None:
        """Kill the worker at once. Does nothing if it has ended."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        # Readable from now on for ever: the loop would call this in each turn.
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(self._child.wait())


def _execute(command: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker by exec. This is a vfork: nothing else runs for a millisecond."""
    channel, memory, *listening = map(str, descriptors)
    return subprocess.Popen(
        [*command, "--channel", channel, "--memory", memory, "--listen", ",".join(listening)],
        # A worker must not take input from the terminal.
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
        env=inherit(os.environ),
    )
