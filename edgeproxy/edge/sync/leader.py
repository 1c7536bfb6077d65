"""The leader of a state directory: the supervisor that reports its workers' limits to the hub, by the identity lock.

Two supervisors share a directory and the rows of its tables while one takes over from the other. If both reported the
rows to the hub, each waiting request would be reported twice, and each granted claim would be given twice. So only one
reports, for the workers of both. The other one relays its workers' uses to the leader, and the leader's messages to its
workers, over a socket in the state directory; it takes over once the lock is free.

The socket is `hub.sock`. messages.py has its protocol, with the rules between versions.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError, Outbox, UnknownMessageError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import FromLeader, LimitsUsed, LimitUse, ToLeader
from edgeproxy.edge.sync.pending_reports import PendingUses, UseKey, use_key

SOCKET_NAME = "hub.sock"
RETRY_SECONDS = 0.1
"""Seconds between two attempts to take the lock, or to connect to the leader."""
BACKLOG_CONNECTIONS = 8
USES_VALID_SECONDS = 10.0
"""A recorded use matters for these seconds to a supervisor that takes over."""

Received = TypeVar("Received")
LeaderEnd = Channel[FromLeader, ToLeader]
FollowerEnd = Channel[ToLeader, FromLeader]


class Leader:
    """The leadership as one supervisor sees it. `tell` sends a message to all of its workers."""

    def __init__(self, store: Store, tell: Callable[[FromLeader], None]) -> None:
        self.leads = False
        """True if this supervisor is the leader; it remains so to its end."""
        self._store = store
        self._to_workers = tell
        self._pending_uses = PendingUses()
        """Uses by its workers that no leader knows of yet."""
        self._last_uses: dict[UseKey, tuple[float, LimitUse]] = {}
        """Last use of each row before this supervisor was the leader, and its time."""
        self._has_uses = asyncio.Event()
        self._others: dict[LeaderEnd, Outbox[FromLeader]] = {}
        """Connections of supervisors whose workers this one leads."""
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(60.0)

    async def wait_for_leadership(self) -> None:
        """Follow another leader as long as there is one. Return as the leader."""
        while not self._store.identity.try_acquire():
            channel = await self._connect_to_leader()
            if channel is not None:
                await self._relay_through(channel)
            await asyncio.sleep(RETRY_SECONDS)
        self.leads = True
        since = monotonic() - USES_VALID_SECONDS
        for moment, use in self._last_uses.values():
            if moment >= since:
                self._pending_uses.add_older(use)
        self._last_uses.clear()
        self._log.info("limits that hosts share are told to the hub by this supervisor")

    def record_uses(self, message: LimitsUsed) -> None:
        """Record the rows that a worker uses, while this supervisor is not the leader."""
        for use in message:
            self._pending_uses.add(use)
            self._last_uses[use_key(use)] = monotonic(), use
        self._has_uses.set()

    def take_uses(self) -> LimitsUsed:
        """Return the uses that were recorded since the last call."""
        self._has_uses.clear()
        return self._pending_uses.pop_all()

    async def serve_followers(self, take: Callable[[LimitsUsed], None]) -> None:
        """Lead the workers of other supervisors too. `take` is called with their uses."""
        path = self._store.state / SOCKET_NAME
        try:
            path.unlink(missing_ok=True)  # The socket of an earlier leader, which has ended.
            listening = socket.socket(socket.AF_UNIX)
            _call_with_socket_path(self._store.state, listening.bind)
            path.chmod(0o600)
            self._server = await asyncio.start_unix_server(
                lambda reader, writer: self._serve(Channel(reader, writer, messages.LEADER), take),
                sock=listening,
                backlog=BACKLOG_CONNECTIONS,
            )
        except OSError as error:
            why = error.strerror or str(error)
            self._log.error("workers of another supervisor could not share limits", socket=str(path), why=why)

    def send_to_workers(self, message: FromLeader) -> None:
        """Send a message to all workers, including other supervisors' workers."""
        self._to_workers(message)
        for outbox in self._others.values():
            outbox.send_latest(message)

    async def end(self) -> None:
        """Stop leading, and close the socket."""
        if self._server is not None:
            self._server.close()
        for channel in tuple(self._others):
            channel.close()
        await self._tasks.cancel()

    async def _receive_all(self, channel: Channel[Any, Received], take: Callable[[Received], None]) -> None:
        """Process another supervisor's messages, until it is gone or breaks the protocol."""
        try:
            while True:
                try:
                    take(await channel.receive())
                except UnknownMessageError as error:
                    self._rare_log.error("what another supervisor says is not understood, and ignored", str(error))
        except ChannelClosedError:
            pass

    # ---- while another supervisor leads

    async def _serve(self, channel: LeaderEnd, take: Callable[[LimitsUsed], None]) -> None:
        """Serve the connection of another supervisor."""
        outbox = self._others[channel] = Outbox(channel)
        delivering = self._tasks.start("tell another supervisor", outbox.deliver())
        try:
            await self._receive_all(channel, take)
        finally:
            del self._others[channel]
            delivering.cancel()
            channel.close()

    # ---- while another supervisor is the leader

    async def _connect_to_leader(self) -> FollowerEnd | None:
        """Connect to the leader. Return None if none can be reached."""
        end = socket.socket(socket.AF_UNIX)
        end.setblocking(False)
        try:
            _call_with_socket_path(self._store.state, end.connect)
        except OSError:
            end.close()
            return None
        return await Channel.from_socket(end, messages.FOLLOWER)

    async def _relay_through(self, channel: FollowerEnd) -> None:
        """Pass messages between the leader and these workers, until it is gone."""
        passing = self._tasks.start("pass on what limits workers use", self._forward_uses(channel))
        try:
            await self._receive_all(channel, self._to_workers)
        finally:
            passing.cancel()
            channel.close()

    async def _forward_uses(self, channel: FollowerEnd) -> None:
        try:
            while True:
                await self._has_uses.wait()
                await channel.send(self.take_uses())
        except ChannelClosedError:
            pass


def _call_with_socket_path(state: Path, do: Callable[[str], None]) -> None:
    """Call `do` with a short path to the socket in a directory: a socket address has room for only 107 bytes."""
    folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        do(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
    finally:
        os.close(folder)
