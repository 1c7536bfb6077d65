"""The messages of a worker's supervisor, handled one after another, and the worker's answers.

Nothing here waits for the supervisor: if it does not read, or is gone, the worker serves requests as before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, assert_never

from edgeproxy.base import log
from edgeproxy.base.sealed_memory import MemoryMissingError
from edgeproxy.base.trust import TlsFilesError
from edgeproxy.edge.channel import Channel, ChannelClosedError
from edgeproxy.edge.counters.index import RowUnavailableError, TableBusyError
from edgeproxy.edge.counters.tallies import START_WAIT_SECONDS
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.messages import (
    AcmeChallenges,
    Alive,
    ChallengesServed,
    ClaimsUnused,
    Commit,
    Committed,
    DirectoryFlags,
    DirectoryValid,
    Discard,
    Drain,
    ForgetCustomers,
    HubAnswered,
    IssuerKeys,
    KeysLookedUp,
    LoadCertificates,
    Prepare,
    Prepared,
    PrepareFailed,
    Services,
    SetEndpoints,
    Start,
    ToSupervisor,
    ToWorker,
)
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
from edgeproxy.edge.proxy.process import revocation
from edgeproxy.edge.proxy.transport.server_tls import create_challenge_context

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.process.generations import Generations

BUSY_RETRY_SECONDS = 0.1
"""Seconds in which a worker serves requests before it claims rows again for a configuration. Each claim blocks its loop
for FLOCK_WAIT_SECONDS at most.
"""
PREPARE_TRIES = round(START_WAIT_SECONDS / BUSY_RETRY_SECONDS)
ALIVE_SECONDS = 1.0
"""Seconds between two heartbeats. They come from the loop, so a worker that hangs sends none."""

FAILURES_LOG_SECONDS = 10.0
"""Seconds between two log lines about messages of one type that could not be handled."""

OrderedMessage = SetEndpoints | Prepare | Commit | Discard | LoadCertificates | AcmeChallenges
"""Messages that are handled in turn."""
UrgentMessage = (
    HubAnswered | ClaimsUnused | KeysLookedUp | ForgetCustomers | DirectoryValid | DirectoryFlags | IssuerKeys
)
"""Messages that do not wait for their turn."""


class ControlHandler:
    """The worker's end of the channel, once its configuration is known."""

    def __init__(
        self,
        channel: Channel[ToSupervisor, ToWorker],
        runtime: "Runtime",
        generations: "Generations",
        certificates_changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._channel = channel
        self._runtime, self._generations = runtime, generations
        self._certificates_changed = certificates_changed
        self._orders: asyncio.Queue[OrderedMessage] = asyncio.Queue()
        self._log = log.get_logger()
        self._failures = log.RateLimitedLog(FAILURES_LOG_SECONDS)

    async def receive_until_drain(self) -> float:
        """Receive messages until the one to drain. Return the seconds of the drain. Raises ChannelClosedError.

        A drain does not wait for its turn: a configuration still in preparation is not needed any more.
        """
        while True:
            match await self._channel.receive():
                case Drain(deadline=deadline):
                    return deadline
                case SetEndpoints() | Prepare() | Commit() | Discard() | LoadCertificates() | AcmeChallenges() as order:
                    self._orders.put_nowait(order)
                case Start():
                    self._log.error("told again what to serve; that is not heeded")
                case urgent:
                    self._handle_urgent(urgent)

    async def receive_until_closed(self) -> None:
        """Receive messages during a drain: waiting requests still need the hub's answers."""
        try:
            while True:
                message = await self._channel.receive()
                if isinstance(message, UrgentMessage):
                    self._handle_urgent(message)
        except ChannelClosedError:
            self.on_supervisor_lost()

    def on_supervisor_lost(self) -> None:
        """Expect no more answers: the supervisor is gone, and its last report on endpoints becomes old."""
        self._runtime.claim_waiter.on_supervisor_lost()
        self._runtime.key_lookup.on_supervisor_lost()
        self._generations.on_supervisor_lost()

    def _handle_urgent(self, message: UrgentMessage) -> None:
        """Handle a message that requests may wait for. Its failure is logged: later messages must still be handled."""
        try:
            self._follow_urgent(message)
        except Exception as error:
            self._failures.error("a message could not be handled", type(message).__name__, exc_info=error)

    def _follow_urgent(self, message: UrgentMessage) -> None:
        match message:
            case HubAnswered():
                self._runtime.claim_waiter.on_hub_answer()
            case ClaimsUnused(rows=rows):
                self._runtime.claim_waiter.return_claims(rows)
            case KeysLookedUp():
                self._runtime.key_lookup.on_answer(message)
            case ForgetCustomers(names=names, generation=generation):
                customers = None if names is None else frozenset(names)  # A push may change a hundred thousand.
                self._generations.forget_customers(customers, generation)
                revocation.recheck_customers(self._runtime, customers)
            case IssuerKeys(keys=keys):
                self._generations.update_issuer_keys(keys)
            case DirectoryValid(until=until, residency=residency):
                self._generations.update_directory_validity(until, residency)
            case DirectoryFlags(flags=flags, residency=residency):
                self._generations.update_flags(flags, residency)
            case _:
                assert_never(message)

    async def follow_orders(self) -> None:
        """Follow ordered messages in turn, until cancelled or until the channel is closed."""
        try:
            while True:
                order = await self._orders.get()
                try:
                    await self._follow(order)
                except ChannelClosedError:
                    raise
                except Exception as error:  # Later orders must still be followed.
                    self._log.error("an order could not be followed", order=type(order).__name__, exc_info=error)
        except ChannelClosedError:
            pass

    async def send_heartbeats(self) -> None:
        """Send heartbeats until cancelled. None is queued behind one that was not taken yet."""
        while True:
            self._channel.try_send(Alive())
            await asyncio.sleep(ALIVE_SECONDS)

    async def _follow(self, order: OrderedMessage) -> None:
        generations = self._generations
        match order:
            case SetEndpoints(number=number, services=services):
                generations.update_endpoints(number, services)
            case LoadCertificates():
                await self._certificates_changed()
            case Prepare(number=number, settings=settings, services=services):
                await self._prepare(number, settings, services)
            case Commit(number=number):
                if generations.commit(number):
                    await self._channel.send(Committed(number))
            case Discard(number=number):
                generations.discard(number)
            case AcmeChallenges(number=number):
                await self._channel.send(ChallengesServed(number, await self._update_challenges(order)))
            case _:
                assert_never(order)

    async def _update_challenges(self, challenges: AcmeChallenges) -> str:
        """Answer these challenges and no others. Return the reason of a failure, or ""."""
        try:
            context, why = await asyncio.to_thread(create_challenge_context, challenges.certificates)
        except ValueError as error:
            return str(error)
        self._runtime.challenges = context
        return self._generations.update_challenges(challenges.tokens) or why

    async def _prepare(self, number: int, settings: bytes, services: Services) -> None:
        serving = self._runtime.snapshot
        answer: Prepared | PrepareFailed = Prepared(number)
        try:
            # A hundred thousand keys take two hundred milliseconds: in a thread, which alternates with the loop.
            memory = self._channel.memory
            draft = await asyncio.to_thread(PreparedConfiguration, settings, serving.upstream_tls, memory)
            for left in reversed(range(PREPARE_TRIES)):
                # A try that fails late has built most of a snapshot, so the next one waits until the tables are free.
                may_succeed = left in (0, PREPARE_TRIES - 1) or self._generations.are_tables_free()
                if may_succeed and self._try_prepare(number, draft, services, is_last=left == 0):
                    break
                await asyncio.sleep(BUSY_RETRY_SECONDS)
        except (TlsFilesError, RowUnavailableError, RejectedError) as error:
            answer = PrepareFailed(number, describe_failure(error))
        except MemoryMissingError as error:
            answer = PrepareFailed(number, str(error), lacks_memory=True)
        except Exception as error:  # No error of a new configuration may end the current one.
            self._log.error("configuration could not be prepared", number=number, exc_info=error)
            answer = PrepareFailed(number, repr(error))
        await self._channel.send(answer)

    def _try_prepare(self, number: int, draft: PreparedConfiguration, services: Services, *, is_last: bool) -> bool:
        """Return whether the configuration is prepared. The last try raises the error of a table that another process
        has locked.
        """
        try:
            self._generations.prepare(number, draft, services)
        except (TableBusyError, RejectedError) as error:
            if is_last or not isinstance(error.__cause__ or error, TableBusyError):
                raise
            return False
        return True


def describe_failure(error: TlsFilesError | RowUnavailableError | RejectedError) -> str:
    """Describe to the author of a configuration why it cannot be served."""
    if isinstance(error, TableBusyError):
        return f"the table of {error} was locked by another process for too long; reload again"
    if isinstance(error, RowUnavailableError):
        return f"the table of {error} has no room for what is to be counted; it is made anew at the next start"
    return error.detail if isinstance(error, RejectedError) else str(error)
