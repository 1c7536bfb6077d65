"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), a byte at a time.

Decoding walks an automaton. A state is the part of a code that the bytes so far have begun; a byte leads from it to the
next state and completes some symbols. Such a step is worked out when it is first met. There are 256 states, so that
there are at most 65,536 steps for any input.
"""

from typing import Final

from edgeproxy.edge.http2.appendices import CODE_LENGTHS
from edgeproxy.edge.http2.errors import CompressionError

EOS: Final = 256
"""The symbol that ends every code table, and is in no string."""


def _assign_codes() -> list[str]:
    """Return the code of each symbol, in bits."""
    codes = [""] * len(CODE_LENGTHS)
    code = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(CODE_LENGTHS)):
        code <<= length - previous
        codes[symbol] = f"{code:0{length}b}"
        code, previous = code + 1, length
    return codes


CODES: Final = _assign_codes()
SYMBOLS: Final = {code: symbol for symbol, code in enumerate(CODES)}

State = list[tuple["State", bytes] | None]
"""By byte: the next state and the completed bytes; None if that is not worked out yet."""

START: Final[State] = [None] * 256
STATES: Final[dict[str, State]] = {"": START}
"""The states by the bits that they have of a code."""

ENDS: Final = frozenset(id(STATES.setdefault("1" * bits, [None] * 256)) for bits in range(8))
"""The states at the end of a valid string: less than a byte of EOS, whose bits are ones (RFC 7541 section 5.2)."""


def decode(data: bytes) -> bytes:
    """Decode a string. Raises CompressionError."""
    state = START
    parts: list[bytes] = []
    try:
        for byte in data:
            state, part = state[byte]  # type: ignore[misc] # To ask for None would cost half as much again.
            parts.append(part)
    except TypeError:
        _work_out_steps(data)
        return decode(data)
    if id(state) not in ENDS:
        raise CompressionError("the padding of a string is too long, or not of ones", "5.2")
    return b"".join(parts)


def _work_out_steps(data: bytes) -> None:
    """Work out the step of each byte of a string. Raises CompressionError."""
    begun = ""
    for byte in data:
        state, completed = STATES[begun], bytearray()
        for bit in f"{byte:08b}":
            begun += bit
            symbol = SYMBOLS.get(begun)
            if symbol == EOS:
                raise CompressionError("EOS stands within a string", "5.2")
            if symbol is not None:
                completed.append(symbol)
                begun = ""
        if state[byte] is None:
            state[byte] = (STATES.setdefault(begun, [None] * 256), bytes(completed))


def encode(data: bytes) -> bytes:
    """Encode a string. Slow: for strings that are encoded once and remembered."""
    bits = "".join([CODES[byte] for byte in data])
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")
