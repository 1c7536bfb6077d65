"""Plays: contract rows in which client and upstream act step by step, and the functions that build the steps.

`client` and `upstream` are the two sides. Their steps correspond to the methods of `Wire`. A step that receives waits
for its data. Data that no step names is an error.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.contract.case import FROM_ANYBODY
from tests.contract.upstream import Endpoint, check_fields
from tests.support.http2_wire import compute_accept
from tests.support.wire import PATIENCE, Message, Wire

MOST = 64 << 20
"""A receiver that should have stopped reading counts as still reading after this number of bytes."""

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Sec-WebSocket-Accept for the key of the rows (RFC 6455 section 1.3). An upstream answers with the value for the key
that it received. For a client with HTTP/2, the edge generates that key."""

OF_HTTP1 = frozenset(("connection", "transfer-encoding", "upgrade", "sec-websocket-accept"))
"""Fields that only clients with HTTP/1.1 receive (RFC 9113 section 8.2.2, RFC 8441 section 5)."""

FULL = 0.2
"""Seconds without progress after which a receiver counts as no longer reading."""


@dataclass
class Scene:
    """The state of a running play: its connections and the last WebSocket key."""

    endpoint: Endpoint
    connect: Callable[[str], Awaitable[Wire]]
    own: Callable[[bytes], bytes]
    """Puts the host of the play into the bytes of its client."""
    wires: dict[str, Wire] = field(default_factory=dict)
    """The present connection of each side."""
    all: list[Wire] = field(default_factory=list)
    accept: bytes = ACCEPT

    def note(self, request: Message) -> None:
        """Store the accept value for the WebSocket key of a request that the upstream received."""
        for key in request.all("Sec-WebSocket-Key"):
            self.accept = compute_accept(key)

    def adapt(self, side: str, data: bytes) -> bytes:
        """Return the bytes that a side sends for these bytes of a row."""
        return self.own(data) if side == "client" else data.replace(ACCEPT, self.accept)

    async def wire(self, side: str) -> Wire:
        """Return the connection of a side. Its first use opens the client's or accepts the upstream's."""
        if side not in self.wires:
            opened = await (self.connect(FROM_ANYBODY) if side == "client" else self.endpoint.accepts())
            self.wires[side] = opened
            self.all.append(opened)
        return self.wires[side]

    def done(self) -> None:
        """Close all connections. Assert that no data and no connection is left that no step named."""
        left = {side: wire.has() for side, wire in self.wires.items() if wire.open}
        asked = self.endpoint.is_asked()
        for wire in self.all:
            wire.closes()
        assert not any(left.values()), f"data came that no step of the play names: {left}"
        assert not asked, "a connection too many"


Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """One action of one side."""

    says: str
    act: Act


@dataclass(frozen=True)
class Play:
    """A contract row as a sequence of steps."""

    name: str
    rule: str
    steps: tuple[Step, ...]

    async def run(self, scene: Scene) -> None:
        """Run the steps. An AssertionError names the step that failed."""
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
    """Return a row of these steps."""
    return Play(name, rule, steps)


@dataclass(frozen=True)
class Side:
    """Client or upstream. The methods build steps."""

    name: str

    def _step(self, says: str, act: Callable[[Scene, Wire], Awaitable[None]]) -> Step:
        async def acting(scene: Scene) -> None:
            await act(scene, await scene.wire(self.name))

        return Step(f"{self.name} {says}", acting)

    def sends(self, data: bytes) -> Step:
        """The side sends these bytes."""

        async def act(scene: Scene, wire: Wire) -> None:
            await wire.sends(scene.adapt(self.name, data))

        return self._step(f"sends {data[:40]!r}", act)

    def sends_until_full(self, piece: bytes) -> Step:
        """The side sends the piece repeatedly until the receiver stops reading, which must happen."""

        async def act(scene: Scene, wire: Wire) -> None:
            own = scene.adapt(self.name, piece)
            for _ in range(MOST // len(own)):
                if not await wire.sends_within(own, FULL):
                    return
            raise AssertionError("everything was taken")

        return self._step(f"sends {piece[:20]!r} over and over", act)

    def sends_until_answered(self, piece: bytes) -> Step:
        """The side sends the piece repeatedly until an answer comes. It never pauses, so that it is never too slow."""

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
        """The next bytes that the side receives are these."""
        return self._step(f"gets {data[:40]!r}", lambda scene, wire: wire.gets(data))

    def gets_request(
        self, line: str, body: bytes = b"", *, has: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
    ) -> Step:
        """The side receives a whole request."""

        async def act(scene: Scene, wire: Wire) -> None:
            request = await wire.gets_request()
            scene.note(request)
            assert (request.first, request.body) == (line, body)
            check_fields(request, has, lacks)

        return self._step(f"gets {line}", act)

    def gets_head(self, first: str | int, *, has: tuple[str, ...] = (), lacks: tuple[str, ...] = ()) -> Step:
        """The side receives a head: a request with this line, or an answer with this status. The body stays unread."""

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
        """The side receives a whole answer. `body` None accepts any body."""

        async def act(scene: Scene, wire: Wire) -> None:
            answer = await wire.gets_answer(to)
            check_head(answer, status, has, lacks, is_http2=wire.is_http2)
            assert body is None or answer.body == body
            expected = [(name.lower() if wire.is_http2 else name, value) for name, value in trailers]
            assert answer.trailers == expected

        return self._step(f"gets an answer {status}", act)

    def gets_chunk(self, payload: bytes) -> Step:
        """The side receives one chunk with this payload."""
        return self._step(
            f"gets a chunk {payload[:40]!r}", lambda scene, wire: wire.gets(b"%x\r\n%b\r\n" % (len(payload), payload))
        )

    def gets_eof(self) -> Step:
        """The side receives the end of the stream and no bytes before it."""
        return self._step("gets the end", lambda scene, wire: wire.gets_eof())

    def gets_cut(self) -> Step:
        """The side's connection ends by close or reset, and no bytes come before that."""

        async def act(scene: Scene, wire: Wire) -> None:
            assert await wire.gets_cut() == b""
            wire.closes()

        return self._step("gets cut", act)

    def gets_cut_anywhere(self) -> Step:
        """The side's connection ends by close or reset. Any bytes may come before that."""

        async def act(scene: Scene, wire: Wire) -> None:
            await wire.gets_cut()
            wire.closes()

        return self._step("gets cut", act)

    def gets_reset(self) -> Step:
        """The side's connection is reset, and no bytes come before that."""

        async def act(scene: Scene, wire: Wire) -> None:
            assert await wire.gets_reset() == b""
            wire.closes()

        return self._step("gets a reset", act)

    def ends(self) -> Step:
        """The side closes its direction of the connection."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.sends_eof()

        return self._step("ends", act)

    def closes(self) -> Step:
        """The side closes its connection. A later step uses a new one."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.closes()
            del scene.wires[self.name]

        return self._step("closes", act)

    def aborts(self) -> Step:
        """The side resets its connection. A later step uses a new one."""

        async def act(scene: Scene, wire: Wire) -> None:
            wire.aborts()
            del scene.wires[self.name]

        return self._step("aborts", act)

    def turns(self) -> Step:
        """The side keeps its connection open. A later step uses a new one."""

        async def act(scene: Scene, wire: Wire) -> None:
            del scene.wires[self.name]

        return self._step("turns to another connection", act)

    def connects(self) -> Step:
        """The side opens or accepts a connection."""

        async def act(scene: Scene, wire: Wire) -> None:
            pass

        return self._step("connects", act)


client, upstream = Side("client"), Side("upstream")


def check_head(
    message: Message, first: str | int, has: tuple[str, ...], lacks: tuple[str, ...], *, is_http2: bool = False
) -> None:
    """Check a head's first line or status, and its fields. In HTTP/2, a tunnel starts with 200 (RFC 8441 section 5)."""
    if is_http2:
        first = 200 if first == 101 else first
        has = tuple(line for line in has if line.partition(":")[0].lower() not in OF_HTTP1)
    if isinstance(first, int):
        assert message.status == first, message.raw
    else:
        assert message.first == first
    check_fields(message, has, lacks)


async def several(work: list[Awaitable[None]]) -> list[BaseException | None]:
    """Run all at once. Return for each its exception or None."""
    return await asyncio.gather(*work, return_exceptions=True)
