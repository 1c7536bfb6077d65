"""Plays: rows in which both sides act in turn, step by step, and the words of which they are made.

`client` and `upstream` are the two sides. What they do is what a `Wire` does; a step that gets something waits for it,
and a side never gets what its next steps do not name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.contract.case import FROM_ANYBODY
from tests.contract.upstream import Endpoint, check_fields
from tests.support.http2_wire import compute_accept
from tests.support.wire import PATIENCE, Message, Wire

MOST = 64 << 20
"""Bytes after which somebody who should have stopped has not."""

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Sec-WebSocket-Accept for the key of the rows (RFC 6455 section 1.3). An upstream answers with that of the key that it
got, which over HTTP/2 is the edge's own."""

OF_HTTP1 = frozenset(("connection", "transfer-encoding", "upgrade", "sec-websocket-accept"))
"""Fields that a client gets of HTTP/1.1 alone (RFC 9113 section 8.2.2, RFC 8441 section 5)."""

FULL = 0.2
"""Seconds for which somebody who takes anything at all would not take nothing."""


@dataclass
class Scene:
    """What a play is about while it runs: who is connected, and what came last."""

    endpoint: Endpoint
    connect: Callable[[str], Awaitable[Wire]]
    own: Callable[[bytes], bytes]
    """Puts the play's own host into bytes of its client."""
    wires: dict[str, Wire] = field(default_factory=dict)
    """The present connection of each side."""
    all: list[Wire] = field(default_factory=list)
    accept: bytes = ACCEPT

    def note(self, request: Message) -> None:
        """Take note of what the upstream got."""
        for key in request.all("Sec-WebSocket-Key"):
            self.accept = compute_accept(key)

    def adapt(self, side: str, data: bytes) -> bytes:
        """What a side sends where a row has these bytes."""
        return self.own(data) if side == "client" else data.replace(ACCEPT, self.accept)

    async def wire(self, side: str) -> Wire:
        """The connection of a side; the first use of it opens, or accepts, one."""
        if side not in self.wires:
            opened = await (self.connect(FROM_ANYBODY) if side == "client" else self.endpoint.accepts())
            self.wires[side] = opened
            self.all.append(opened)
        return self.wires[side]

    def done(self) -> None:
        """Nothing may be left that no step was about."""
        left = {side: wire.has() for side, wire in self.wires.items() if wire.open}
        asked = self.endpoint.is_asked()
        for wire in self.all:
            wire.closes()
        assert not any(left.values()), f"more came than the play tells of: {left}"
        assert not asked, "a connection too many"


Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """One thing that one side does."""

    says: str
    act: Act


@dataclass(frozen=True)
class Play:
    """A row: its steps in their order."""

    name: str
    rule: str
    steps: tuple[Step, ...]

    async def run(self, scene: Scene) -> None:
        """Act it; an AssertionError says at which step it went wrong."""
        try:
            for number, step in enumerate(self.steps, 1):
                try:
                    await step.act(scene)
                except (AssertionError, OSError, TimeoutError) as wrong:
                    raise AssertionError(f"step {number}, {step.says}: {wrong or type(wrong).__name__}") from wrong
        except BaseException:
            for wire in scene.all:
                wire.closes()
            raise
        scene.done()


def play(name: str, rule: str, *steps: Step) -> Play:
    """A row."""
    return Play(name, rule, steps)


@dataclass(frozen=True)
class Side:
    """One of the two sides; its methods make steps."""

    name: str

    def _step(self, says: str, act: Callable[[Scene, Wire], Awaitable[None]]) -> Step:
        async def acting(scene: Scene) -> None:
            await act(scene, await scene.wire(self.name))

        return Step(f"{self.name} {says}", acting)

    def sends(self, data: bytes) -> Step:
        """It sends these bytes."""

        async def act(scene: Scene, wire: Wire) -> None:
            await wire.sends(scene.adapt(self.name, data))

        return self._step(f"sends {data[:40]!r}", act)

    def sends_until_full(self, piece: bytes) -> Step:
        """It sends this over and over until nobody takes it any more, which must come."""

        async def act(scene: Scene, wire: Wire) -> None:
            own = scene.adapt(self.name, piece)
            for _ in range(MOST // len(own)):
                if not await wire.sends_within(own, FULL):
                    return
            raise AssertionError("everything was taken")

        return self._step(f"sends {piece[:20]!r} over and over", act)

    def sends_until_answered(self, piece: bytes) -> Step:
        """It sends this over and over until something comes back. It never stops, so that it is never late itself."""

        async def act(scene: Scene, wire: Wire) -> None:
            own = scene.adapt(self.name, piece)
            taken = 0
            async with asyncio.timeout(PATIENCE):
                while not wire.has():
                    try:
                        taken += len(own) * await wire.sends_within(own, FULL)
                    except ConnectionError:
                        return
                    assert taken < MOST, "everything was taken"

        return self._step(f"sends {piece[:20]!r} until it is answered", act)

    def gets(self, data: bytes) -> Step:
        """The next bytes that it gets are these."""
        return self._step(f"gets {data[:40]!r}", lambda scene, wire: wire.gets(data))

    def gets_request(
        self, line: str, body: bytes = b"", *, has: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
    ) -> Step:
        """It gets a whole request."""

        async def act(scene: Scene, wire: Wire) -> None:
            request = await wire.gets_request()
            scene.note(request)
            assert (request.first, request.body) == (line, body)
            check_fields(request, has, lacks)

        return self._step(f"gets {line}", act)

    def gets_head(self, first: str | int, *, has: tuple[str, ...] = (), lacks: tuple[str, ...] = ()) -> Step:
        """It gets a head: of a request with this line, or an answer with this status. What follows is not read yet."""

        async def act(scene: Scene, wire: Wire) -> None:
            head = await wire.gets_head()
            scene.note(head)
            check_head(head, first, has, lacks, is_http2=wire.is_http2)

        return self._step(f"gets the head {first}", act)

    def gets_answer(
        self,
        status: int,
        body: bytes | None = None,
        *,
        to: str = "GET",
        has: tuple[str, ...] = (),
        lacks: tuple[str, ...] = (),
        trailers: tuple[tuple[str, str], ...] = (),
    ) -> Step:
        """It gets a whole answer; `body` where it matters."""

        async def act(scene: Scene, wire: Wire) -> None:
            answer = await wire.gets_answer(to)
            check_head(answer, status, has, lacks, is_http2=wire.is_http2)
            assert body is None or answer.body == body
            expected = [(name.lower() if wire.is_http2 else name, value) for name, value in trailers]
            assert answer.trailers == expected

        return self._step(f"gets an answer {status}", act)

    def gets_chunk(self, payload: bytes) -> Step:
        """It gets one chunk with this payload."""
        return self._step(
            f"gets a chunk {payload[:40]!r}", lambda scene, wire: wire.gets(b"%x\r\n%b\r\n" % (len(payload), payload))
        )

    def gets_eof(self) -> Step:
        """It gets nothing more but the end of the stream."""
        return self._step("gets the end", lambda scene, wire: wire.gets_eof())

    def gets_cut(self) -> Step:
        """Its connection ends, in whatever way, with nothing more."""

        async def act(scene: Scene, wire: Wire) -> None:
            assert await wire.gets_cut() == b""
            wire.closes()

        return self._step("gets cut", act)

    def gets_cut_anywhere(self) -> Step:
        """Its connection ends, in whatever way, behind whatever was on its way."""

        async def act(scene: Scene, wire: Wire) -> None:
            await wire.gets_cut()
            wire.closes()

        return self._step("gets cut", act)

    def gets_reset(self) -> Step:
        """Its connection is reset, with nothing more."""

        async def act(scene: Scene, wire: Wire) -> None:
            assert await wire.gets_reset() == b""
            wire.closes()

        return self._step("gets a reset", act)

    def ends(self) -> Step:
        """It closes its direction."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.sends_eof()

        return self._step("ends", act)

    def closes(self) -> Step:
        """It closes its connection, and goes on with another one, if at all."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.closes()
            del scene.wires[self.name]

        return self._step("closes", act)

    def aborts(self) -> Step:
        """It resets its connection, and goes on with another one, if at all."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.aborts()
            del scene.wires[self.name]

        return self._step("aborts", act)

    def turns(self) -> Step:
        """It goes on with another connection, and keeps this one open."""

        async def act(scene: Scene, wire: Wire) -> None:
            del scene.wires[self.name]

        return self._step("turns to another connection", act)

    def connects(self) -> Step:
        """It opens, or is given, a connection."""

        async def act(scene: Scene, wire: Wire) -> None:
            pass

        return self._step("connects", act)


client, upstream = Side("client"), Side("upstream")


def check_head(
    message: Message, first: str | int, has: tuple[str, ...], lacks: tuple[str, ...], *, is_http2: bool = False
) -> None:
    """A head's first line or status, and its fields. A tunnel begins with 200 in HTTP/2 (RFC 8441 section 5)."""
    if is_http2:
        first = 200 if first == 101 else first
        has = tuple(line for line in has if line.partition(":")[0].lower() not in OF_HTTP1)
    if isinstance(first, int):
        assert message.status == first, message.raw
    else:
        assert message.first == first
    check_fields(message, has, lacks)


async def several(work: list[Awaitable[None]]) -> list[BaseException | None]:
    """What became of each, all run at once."""
    return await asyncio.gather(*work, return_exceptions=True)
