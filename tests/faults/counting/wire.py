"""The simulated network between an edge and the collector, which loses, delays, repeats and garbles messages."""

import random
from collections import Counter

import zstandard

from edgeproxy.edge.usage.ship import Reply
from edgeproxy.wire.batch import Batch, format_headers
from loadtest.testbed.sealing import Killed
from tests.faults.counting.books import Books

FATES = {
    "arrives": 12,
    "lost": 2,
    "answer lost": 3,
    "twice": 2,
    "late": 2,
    "again later": 2,
    "busy": 1,
    "no database": 1,
    "answer cut": 1,
    "somebody else answers": 1,
    "garbled": 1,
    "killed before": 1,
    "killed after": 1,
}
"""The fates of a request, each with its relative frequency."""

STRANGERS = ((200, b"<html>Welcome"), (200, b'{"watermark": null}'), (302, b""), (502, b""))
"""Answers of servers that are not the collector."""

Sent = tuple[dict[str, str], bytes]


class Wire:
    """An edge's network to the collector. While it is `calm`, each request and answer arrives."""

    def __init__(self, books: Books, chance: random.Random) -> None:
        self.books = books
        self.chance = chance
        self.calm = False
        self.fates: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        """Counts of the collector's answers, by status, or by body for the status 409."""
        self.garbled: set[int] = set()
        """The numbers of the batches that were garbled. Each is garbled once at most."""
        self._later: list[Sent] = []

    async def send(self, batch: Batch, body: bytes) -> Reply:
        """Send a batch and return the answer. Raises OSError if no answer comes, or Killed."""
        fate = "arrives" if self.calm else self.chance.choices(list(FATES), list(FATES.values()))[0]
        self.fates[fate] += 1
        sent = format_headers(batch, body), body
        if fate == "garbled" and batch.gap is None and batch.seq not in self.garbled:
            # A batch is garbled once at most. The collector counts it if it later arrives whole, else quarantines it.
            self.garbled.add(batch.seq)
            sent = sent[0], bytes(reversed(body))
        if fate == "killed before":
            raise Killed
        if fate == "lost":
            raise ConnectionRefusedError("nobody is there")
        if fate == "late":
            self._later.append(sent)
            raise TimeoutError
        if fate in ("busy", "no database"):
            return Reply(429 if fate == "busy" else 503, b"later", 1.0)
        if fate == "somebody else answers":
            return Reply(*self.chance.choice(STRANGERS))
        status, document = await self._take(sent)
        if fate == "twice":
            status, document = await self._take(sent)
        if fate == "again later":
            self._later.append(sent)
        if fate == "answer lost":
            raise ConnectionResetError("there was an answer")
        if fate == "killed after":
            raise Killed
        if fate == "answer cut":
            return Reply(status, document[: self.chance.randrange(len(document))], None)
        return Reply(status, document, None)

    async def _take(self, sent: Sent) -> tuple[int, bytes]:
        fields, body = sent
        packed = self.chance.random() < 0.2
        shipped = zstandard.ZstdCompressor().compress(body) if packed else body
        status, document = await self.books.take(fields, shipped, "zstd" if packed else "identity")
        self.answers[str(status) if status != 409 else document.decode()] += 1
        return status, document

    async def late(self) -> None:
        """Deliver delayed requests in random order. Some stay delayed unless the network is calm."""
        self.chance.shuffle(self._later)
        while self._later and (self.calm or self.chance.random() < 0.7):
            try:
                await self._take(self._later.pop())
            except OSError:
                pass
