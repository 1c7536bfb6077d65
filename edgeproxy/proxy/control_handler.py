"""What a worker's supervisor tells it, each thing done after the one before; and what it hears back.

Nothing here waits for the supervisor: should it not read, or be gone, requests are served as before.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeproxy import log
from edgeproxy.channel import Channel, ChannelClosed
from edgeproxy.counters.index import NoRow
from edgeproxy.errors import Refused
from edgeproxy.proxy.prepared_configuration import PreparedConfiguration
from edgeproxy.proxy.tls import Unusable

if TYPE_CHECKING:
    from edgeproxy.proxy.generations import Generations
    from edgeproxy.proxy.runtime import Runtime

ALIVE = 1.0
"""Seconds between two signs of life. They come from the loop: a worker that hangs gives none."""

Message = dict[str, Any]


class ControlHandler:
    """One worker's end of the channel, once it knows what to serve."""

    def __init__(
        self,
        channel: Channel,
        runtime: "Runtime",
        generations: "Generations",
        certificates_changed: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._runtime, self._generations = runtime, generations
        self._certificates_changed = certificates_changed
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._log = log.get()

    async def until_drain(self) -> float:
        """Take orders until the one to leave; returns the seconds that there are for it. Raises ChannelClosed.

        That one does not wait for its turn: nobody needs what is still being prepared then.
        """
        while True:
            message = await self._channel.receive()
            if message["type"] == "drain":
                return float(message["deadline"])
            if not self._is_urgent(message):
                self._told.put_nowait(message)

    async def until_gone(self) -> None:
        """In a drain, what the hub says still matters to those who wait; until there is nobody to say it."""
        try:
            while True:
                self._is_urgent(await self._channel.receive())
        except ChannelClosed:
            self._runtime.claim_waiter.orphaned()
            self._runtime.key_lookup.orphaned()

    def _is_urgent(self, message: Message) -> bool:
        """What is said of limits that hosts share, and of people, does not wait for its turn: requests wait for it."""
        if message["type"] == "heard":
            self._runtime.claim_waiter.heard()
        elif message["type"] == "unused":
            self._runtime.claim_waiter.unused(message["rows"])
        elif message["type"] == "people":
            self._runtime.key_lookup.answered(message)
        elif message["type"] == "forget":
            self._generations.forget(message["customers"])
        else:
            return False
        return True

    async def obey(self) -> None:
        """Do what is told, in turn; until cancelled, or nobody is there to answer to."""
        try:
            while True:
                message = await self._told.get()
                try:
                    await self._do(message)
                except ChannelClosed:
                    raise
                except Exception as unforeseen:  # What is told next must be heard all the same.
                    self._log.error("an order could not be followed", order=message["type"], exc_info=unforeseen)
        except ChannelClosed:
            pass

    async def live(self) -> None:
        """Give signs of life; until cancelled. None is added to one that was not taken yet."""
        while True:
            self._channel.offer({"type": "alive"})
            await asyncio.sleep(ALIVE)

    async def _do(self, message: Message) -> None:
        generations = self._generations
        kind = message["type"]
        if kind == "endpoints":
            generations.endpoints_changed(message["number"], message["services"])
        elif kind == "certificates":
            self._certificates_changed()
        elif kind == "prepare":
            await self._prepare(message)
        elif kind == "commit":
            if generations.commit(message["number"]):
                await self._channel.send({"type": "committed", "number": message["number"]})
        elif kind == "discard":
            generations.discard(message["number"])

    async def _prepare(self, message: Message) -> None:
        number, serving = message["number"], self._runtime.snapshot
        answer: Message = {"type": "prepared", "number": number}
        try:
            # Two hundred milliseconds for a hundred thousand keys: in a thread, and the loop takes turns with it.
            draft = await asyncio.to_thread(PreparedConfiguration, message.pop("settings"), serving.outward)
            self._generations.prepare(number, draft, message["services"])
        except (Unusable, NoRow, Refused) as failure:
            answer = {"type": "refused", "number": number, "why": why_not(failure)}
        except Exception as unforeseen:  # Whatever it is, it must not end what is served.
            self._log.error("configuration could not be prepared", number=number, exc_info=unforeseen)
            answer = {"type": "refused", "number": number, "why": repr(unforeseen)}
        await self._channel.send(answer)


def why_not(failure: Unusable | NoRow | Refused) -> str:
    """Why a configuration cannot be served, for who wrote it."""
    if isinstance(failure, NoRow):
        return f"the table of {failure} has no room for what is to be counted; it is made anew at the next start"
    return failure.detail if isinstance(failure, Refused) else str(failure)
