"""The cases of the Autobahn WebSocket test suite, restated as frames to send and answers to expect.

Autobahn itself needs Python 2. These are the frames that its fuzzing client sends to a server in its cases 1 to 7,
9, 10, 12 and 13 (github.com/crossbario/autobahn-testsuite, release 25.10.1), each under its number there, and the
answers that pass. Differences:

- Autobahn waits for a second to check that no answer arrives. A case here waits for the required answer, or not at
  all. If Autobahn leaves the order of an echo and a failure to chance, the case waits for the echo first.
- 12 and 13 have fewer sizes, and 5 messages of each instead of 1,000, with data created here.
- In 9 nothing is larger than 4 MiB. Messages in fragments or chops are smaller, half of them text and half binary,
  and there are 20 messages in sequence instead of 1,000.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadtest.testbed.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, fragments, frame
from tests.e2e.utf8 import KOSME, SEQUENCES, valid

KIB, MIB = 1 << 10, 1 << 20
NORMAL, PROTOCOL_ERROR, INVALID_PAYLOAD = 1000, 1002, 1007

Event = tuple[int, bytes]
"""A received event: (TEXT, BINARY or PONG, the whole payload)."""


@dataclass(frozen=True)
class Chops:
    """Bytes to send in writes of `size`."""

    data: bytes
    size: int


@dataclass(frozen=True)
class Heard:
    """Wait until this many frames have been received in total."""

    frames: int


@dataclass(frozen=True)
class Compressed:
    """A message that is compressed as negotiated and sent in frames of `size` octets (0: one frame)."""

    opcode: int
    payload: bytes
    size: int


Step = bytes | Chops | Heard | Compressed
"""Bytes are sent in one write."""


@dataclass(frozen=True)
class Case:
    """One connection. A server passes if it answers with one of `outcomes` and closes with one of `codes`.

    If `clean`, it must send a close frame; otherwise it may also just end the connection.
    """

    number: str
    steps: tuple[Step, ...]
    outcomes: tuple[tuple[Event, ...], ...] = ((),)
    codes: frozenset[int] = frozenset((NORMAL,))
    clean: bool = True
    offer: str | None = None
    """The client's Sec-WebSocket-Extensions."""
    informational: bool = False
    """Any result passes, and it may differ between runs."""


def cut(data: bytes, size: int) -> Step:
    """Return `data` in chops of this size; 0 for one write."""
    return Chops(data, size) if size else data


def passing(number: str, *steps: Step, answers: tuple[Event, ...]) -> Case:
    """Return a legal case: the answers arrive, then the client closes."""
    return Case(number, (*steps, Heard(len(answers)), close(NORMAL)), (answers,))


def failing(number: str, *steps: Step, after: tuple[Event, ...] = (), strictly: bool = False) -> Case:
    """Return a case that requires the server to fail the connection. `after` may come first, or must if `strictly`."""
    outcomes = (after,) if strictly or not after else (after, ())
    return Case(number, steps, outcomes, frozenset((PROTOCOL_ERROR,)), clean=False)


def closing(number: str, *steps: Step, codes: tuple[int, ...] = (NORMAL,), clean: bool = True) -> Case:
    """Return a case that the client closes, in any way."""
    return Case(number, steps, ((),), frozenset(codes), clean)


# ---- 1 framing, 2 pings and pongs


def framing() -> Iterator[Case]:
    """Payloads of every form of length in a frame's head (RFC 6455 section 5.2)."""
    sizes = ((0, 0), (125, 0), (126, 0), (127, 0), (128, 0), (65535, 0), (65536, 0), (65536, 997))
    for kind, opcode, octet in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, (size, chop) in enumerate(sizes, 1):
            payload = octet * size
            yield passing(f"1.{kind}.{number}", cut(frame(opcode, payload), chop), answers=((opcode, payload),))


def pings() -> Iterator[Case]:
    """RFC 6455 sections 5.5.2 and 5.5.3."""
    payloads = (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125)
    for number, payload in enumerate(payloads, 1):
        yield passing(f"2.{number}", frame(PING, payload), answers=((PONG, payload),))
    yield failing("2.5", frame(PING, b"\xfe" * 126))
    yield passing("2.6", Chops(frame(PING, b"\xfe" * 125), 1), answers=((PONG, b"\xfe" * 125),))
    unsolicited = frame(PONG, b"unsolicited pong payload")
    yield closing("2.7", frame(PONG), close(NORMAL))
    yield closing("2.8", unsolicited, close(NORMAL))
    yield passing("2.9", unsolicited, frame(PING, b"ping payload"), answers=((PONG, b"ping payload"),))
    ten = [b"payload-%d" % number for number in range(10)]
    for number, chop in ((10, 0), (11, 1)):
        sent = [cut(frame(PING, payload), chop) for payload in ten]
        yield passing(f"2.{number}", *sent, answers=tuple((PONG, payload) for payload in ten))


# ---- 3 reserved bits, 4 reserved opcodes

HELLO = b"Hello, world!"


def after_hello(number: str, wrong: bytes, how: str) -> Case:
    """Return a case of a message, an invalid frame and a ping. `how` is one write for all, "frames", or "octets"."""
    hello, ping, answer = frame(TEXT, HELLO), frame(PING), ((TEXT, HELLO),)
    if how == "at once":
        return failing(number, hello + wrong + ping, after=answer)
    chop = 1 if how == "octets" else 0
    steps = (cut(hello, chop), Heard(1), cut(wrong, chop), cut(ping, chop))
    return failing(number, *steps, after=answer, strictly=True)


def reserved_bits() -> Iterator[Case]:
    """RFC 6455 section 5.2: reserved bits are zero unless an extension defines them."""
    yield failing("3.1", frame(TEXT, HELLO, rsv=1))
    yield after_hello("3.2", frame(TEXT, HELLO, rsv=2), "at once")
    yield after_hello("3.3", frame(TEXT, HELLO, rsv=3), "frames")
    yield after_hello("3.4", frame(TEXT, HELLO, rsv=4), "octets")
    yield failing("3.5", frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5))
    yield failing("3.6", frame(BINARY, HELLO, rsv=6))
    yield failing("3.7", frame(CLOSE, rsv=7))


def reserved_opcodes() -> Iterator[Case]:
    """RFC 6455 section 5.2: unknown opcodes fail the connection."""
    for kind, first in ((1, 3), (2, 11)):
        yield failing(f"4.{kind}.1", frame(first))
        yield failing(f"4.{kind}.2", frame(first + 1, b"reserved opcode payload"))
        yield after_hello(f"4.{kind}.3", frame(first + 2), "at once")
        yield after_hello(f"4.{kind}.4", frame(first + 3, HELLO), "at once")
        yield after_hello(f"4.{kind}.5", frame(first + 4, HELLO), "octets")


# ---- 5 fragmentation


def fragmentation() -> Iterator[Case]:
    """RFC 6455 section 5.4."""
    one, two = frame(TEXT, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")
    whole = (TEXT, b"fragment1fragment2")
    ping, pong = frame(PING, b"ping payload"), (PONG, b"ping payload")
    yield failing("5.1", frame(PING, b"fragment1", fin=False), two)
    yield failing("5.2", frame(PONG, b"fragment1", fin=False), two)
    yield passing("5.3", one + two, answers=(whole,))
    yield passing("5.4", one, two, answers=(whole,))
    yield passing("5.5", Chops(one + two, 1), answers=(whole,))
    yield passing("5.6", one + ping + two, answers=(pong, whole))
    yield passing("5.7", one, ping, two, answers=(pong, whole))
    yield passing("5.8", Chops(one + ping + two, 1), answers=(pong, whole))
    for first, fin in ((9, True), (12, False)):
        nothing, hello = frame(CONTINUATION, b"non-continuation payload", fin=fin), frame(TEXT, HELLO)
        yield failing(f"5.{first}", nothing + hello)
        yield failing(f"5.{first + 1}", nothing, hello)
        yield failing(f"5.{first + 2}", Chops(nothing + hello, 1))
    then = frame(CONTINUATION, b"fragment3", fin=False) + frame(TEXT, b"fragment4")
    yield failing("5.15", one + two + then, after=(whole,))
    for number, fin in ((16, False), (17, True)):
        nothing = frame(CONTINUATION, b"fragment1", fin=fin)
        message = frame(TEXT, b"fragment2", fin=False) + frame(CONTINUATION, b"fragment3")
        yield failing(f"5.{number}", (nothing + message) * 2)
    yield failing("5.18", one + frame(TEXT, b"fragment2"))
    parts = [b"fragment%d" % number for number in range(1, 6)]
    sent = [frame(CONTINUATION if number else TEXT, part, fin=number == 4) for number, part in enumerate(parts)]
    first, second = frame(PING, b"pongme 1!"), frame(PING, b"pongme 2!")
    answers = ((PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"".join(parts)))
    begun, ended = (sent[0], sent[1], first), (sent[2], sent[3], second, sent[4])
    yield passing("5.19", b"".join(begun), Heard(1), b"".join(ended), answers=answers)
    yield passing("5.20", *begun, Heard(1), *ended, answers=answers)


# ---- 6 UTF-8

GREETING = "Hello-µ@ßöäüàá-UTF-8!!".encode()


def invalid(number: str, *steps: Step, after: tuple[Event, ...] = ()) -> Case:
    """Return a case of invalid UTF-8. It fails the connection with its own code."""
    return Case(number, steps, (after,), frozenset((INVALID_PAYLOAD,)), clean=False)


def utf8() -> Iterator[Case]:
    """RFC 6455 section 8.1."""
    yield passing("6.1.1", frame(TEXT), answers=((TEXT, b""),))
    for number, middle in ((2, b""), (3, b"middle frame payload")):
        parts = frame(TEXT, fin=False) + frame(CONTINUATION, middle, fin=False) + frame(CONTINUATION)
        yield passing(f"6.1.{number}", parts, answers=((TEXT, middle),))
    yield passing("6.2.1", frame(TEXT, GREETING), answers=((TEXT, GREETING),))
    boundary = len("Hello-µ@ßöä".encode())
    two = frame(TEXT, GREETING[:boundary], fin=False) + frame(CONTINUATION, GREETING[boundary:])
    yield passing("6.2.2", two, answers=((TEXT, GREETING),))
    for number, payload in ((3, GREETING), (4, KOSME)):
        yield passing(f"6.2.{number}", b"".join(fragments(TEXT, payload, 1)), answers=((TEXT, payload),))
    surrogate = KOSME + b"\xed\xa0\x80edited"
    yield invalid("6.3.1", frame(TEXT, surrogate))
    yield invalid("6.3.2", b"".join(fragments(TEXT, surrogate, 1)))
    beyond = KOSME + b"\xf4\x90\x80\x80edited"
    for number, (start, end) in ((1, (11, 15)), (2, (12, 13))):
        parts = (beyond[:start], beyond[start:end], beyond[end:])
        first, *rest = (frame(CONTINUATION if at else TEXT, part, fin=at == 2) for at, part in enumerate(parts))
        # That the first frame was taken is told by the answer to a ping instead of by silence.
        yield invalid(f"6.4.{number}", first + frame(PING), Heard(1), *rest, after=((PONG, b""),))
        head, whole = len(frame(TEXT, beyond)) - len(beyond), frame(TEXT, beyond)
        yield invalid(f"6.4.{number + 2}", whole[: head + start], whole[head + start : head + end], whole[head + end :])
    for group, payloads in enumerate(SEQUENCES, 5):
        for number, payload in enumerate(payloads, 1):
            name, sent = f"6.{group}.{number}", frame(TEXT, payload)
            yield passing(name, sent, answers=((TEXT, payload),)) if valid(payload) else invalid(name, sent)


# ---- 7 closing


def close_handling() -> Iterator[Case]:
    """RFC 6455 sections 5.5.1 and 7."""
    normal, late = close(NORMAL), frame(TEXT, b"Hello World!")
    one, two = frame(TEXT, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")
    yield passing("7.1.1", late, answers=((TEXT, b"Hello World!"),))
    yield closing("7.1.2", normal, frame(CLOSE))
    yield closing("7.1.3", normal, frame(PING))
    yield closing("7.1.4", normal, late)
    yield closing("7.1.5", one, normal, two)
    large = (b"BAsd7&jh23" * 26215)[: 256 * KIB]
    some = ((), ((TEXT, large),), ((TEXT, large), (TEXT, b"Hello World!")))
    yield Case("7.1.6", (frame(TEXT, large) + late + normal + frame(PING),), some, informational=True)
    yield closing("7.3.1", close())
    yield closing("7.3.2", close(reason=b"a"), codes=(PROTOCOL_ERROR,), clean=False)
    yield closing("7.3.3", normal)
    yield closing("7.3.4", close(NORMAL, b"Hello World!"))
    yield closing("7.3.5", close(NORMAL, b"*" * 123))
    yield closing("7.3.6", close(NORMAL, b"*" * 124), codes=(PROTOCOL_ERROR,), clean=False)
    spoilt = close(NORMAL, KOSME + b"\xed\xa0\x80edited")
    yield closing("7.5.1", spoilt, codes=(PROTOCOL_ERROR, INVALID_PAYLOAD), clean=False)
    legal = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(legal, 1):
        yield closing(f"7.7.{number}", close(code), codes=(NORMAL, code))
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield closing(f"7.9.{number}", close(code), codes=(PROTOCOL_ERROR,), clean=False)
    for number, code in enumerate((5000, 65535), 1):
        yield closing(f"7.13.{number}", close(code), codes=(NORMAL, code, PROTOCOL_ERROR), clean=False)


# ---- 9 limits, 10 automatic fragmentation


def limits() -> Iterator[Case]:
    """Messages up to 4 MiB: in one frame, in fragments, in chops."""
    kinds = ((1, TEXT, b"BAsd7&jh23"), (2, BINARY, b"\x00\xfe\x23\xfa\xf0"))
    for kind, opcode, pattern in kinds:
        for number, size in enumerate((64 * KIB, 256 * KIB, MIB, 4 * MIB), 1):
            payload = (pattern * (size // len(pattern) + 1))[:size]
            yield passing(f"9.{kind}.{number}", frame(opcode, payload), answers=((opcode, payload),))
    for kind, opcode in ((3, TEXT), (4, BINARY)):
        for number in range(kind - 2, 8, 2):
            payload = b"*" * (512 * KIB)
            sent = b"".join(fragments(opcode, payload, 64 * 4 ** (number - 1)))
            yield passing(f"9.{kind}.{number}", sent, answers=((opcode, payload),))
    for kind, opcode, pattern in ((5, *kinds[0][1:]), (6, *kinds[1][1:])):
        payload = (pattern * (128 * KIB // len(pattern) + 1))[: 128 * KIB]
        for number in range(kind - 4, 7, 2):
            sent = Chops(frame(opcode, payload), 64 << (number - 1))
            yield passing(f"9.{kind}.{number}", sent, answers=((opcode, payload),))


def round_trips() -> Iterator[Case]:
    """Messages in sequence, each sent after the answer to the last one."""
    for kind, opcode, octet in ((7, TEXT, b"*"), (8, BINARY, b"\xfe")):
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            payload, count = octet * size, 20
            steps = [step for at in range(count) for step in (frame(opcode, payload), Heard(at + 1))]
            yield passing(f"9.{kind}.{number}", *steps, answers=((opcode, payload),) * count)


def automatic_fragmentation() -> Iterator[Case]:
    """A message in frames of 1,300 octets."""
    payload = b"*" * 65536
    yield passing("10.1.1", b"".join(fragments(TEXT, payload, 1300)), answers=((TEXT, payload),))


# ---- 12 and 13 compression

SIZES = (
    *((16, 0), (1024, 0), (131072, 0)),
    *((8192, 256), (131072, 1024)),
)
"""Octets of a message, and of its frames (0: one)."""
MESSAGES = 5
"""Messages per case."""


def material() -> Iterator[tuple[int, bytes]]:
    """Yield JSON and incompressible data, of some 200 KiB each, with the opcode to use."""
    draw = random.Random(6455)
    words = ["".join(draw.choices("etaoinshrdluäöüß", k=draw.randrange(2, 11))) for _ in range(2000)]
    some = [" ".join(draw.choices(words, k=12)) for _ in range(2600)]
    objects = (f'{{"id": {number}, "text": "{text}", "ratio": {draw.random()}}}' for number, text in enumerate(some))
    yield TEXT, f"[{', '.join(objects)}]".encode()
    yield BINARY, draw.randbytes(200 * KIB)


def messages(opcode: int, data: bytes, length: int) -> list[bytes]:
    """Return the messages of a case. Each continues in `data` after the last one; in text, by code points."""
    whole = data.decode() if opcode == TEXT else data.decode("latin-1")
    cuts = ((whole * 2)[at % len(whole) :][:length] for at in range(0, MESSAGES * length, length))
    return [part.encode() if opcode == TEXT else part.encode("latin-1") for part in cuts]


def compressed(
    kind: str, opcode: int, data: bytes, offer: str, sizes: tuple[tuple[int, int], ...] = SIZES
) -> Iterator[Case]:
    """Messages of all sizes, each sent after the answer to the last one."""
    for number, (length, size) in enumerate(sizes, 1):
        several = messages(opcode, data, length)
        steps = [
            step for at, message in enumerate(several, 1) for step in (Compressed(opcode, message, size), Heard(at))
        ]
        answers = tuple((opcode, message) for message in several)
        yield Case(f"{kind}.{number}", (*steps, close(NORMAL)), (answers,), offer=offer)


OFFER = "permessage-deflate; client_no_context_takeover{}; client_max_window_bits{}"
BARE, NO_TAKEOVER = OFFER.format("", ""), OFFER.format("; server_no_context_takeover", "")
OFFERS = (
    BARE,
    NO_TAKEOVER,
    OFFER.format("", "; server_max_window_bits=9"),
    OFFER.format("", "; server_max_window_bits=15"),
    OFFER.format("; server_no_context_takeover", "; server_max_window_bits=9"),
    OFFER.format("; server_no_context_takeover", "; server_max_window_bits=15"),
    ", ".join((OFFER.format("; server_no_context_takeover", "; server_max_window_bits=9"), NO_TAKEOVER, BARE)),
)


def compression() -> Iterator[Case]:
    """RFC 7692, with the offer that clients usually make."""
    for kind, (opcode, data) in enumerate(material(), 1):
        yield from compressed(f"12.{kind}", opcode, data, BARE)


def negotiation() -> Iterator[Case]:
    """RFC 7692 section 7.1: other offers, and several at once."""
    opcode, data = next(material())
    for kind, offer in enumerate(OFFERS, 1):
        yield from compressed(f"13.{kind}", opcode, data, offer, SIZES[-2:-1])


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "1-framing": framing,
    "2-pings": pings,
    "3-reserved-bits": reserved_bits,
    "4-reserved-opcodes": reserved_opcodes,
    "5-fragmentation": fragmentation,
    "6-utf8": utf8,
    "7-close": close_handling,
    "9-limits": limits,
    "9.7-round-trips": round_trips,
    "10-automatic-fragmentation": automatic_fragmentation,
    "12-compression": compression,
    "13-negotiation": negotiation,
}
"""Generators by group name. Cases are created on demand, because some are large."""
