"""The plays without a form in HTTP/2, and the reason of each."""

from tests.contract import over_http2

BEHIND = "bytes behind a message: what is behind one on a stream is of no stream"
HALF_CLOSED = "a half-closed connection: its client leaves, all streams with it"
HEADS = "a head that is not whole, or empty lines: of frames, tests/edge/proxy/connections/test_http2_attacks.py has it"
IDLE = "an idle connection: it ends with a GOAWAY, tests/edge/proxy/connections/test_http2.py has it"
HTTP10 = "HTTP/1.0"
UNPLAYED = {
    "a stream for HTTP/1.0 passes bare, and ends with the connection": HTTP10,
    "what follows an early answer is nobody's request": BEHIND,
    "a body that breaks within an answer ends both": over_http2.CHUNKS,
    "a refused expectation, and a new request at once, which is nobody's body": BEHIND,
    "a client that has ended its side gets its answer": HALF_CLOSED,
    "a client that ends within its body is no complete request": HALF_CLOSED,
    "a client that ends within a chunk is no complete request": HALF_CLOSED,
    "a chunk of more than 32 bits is as long as it says": over_http2.CHUNKS,
    "a refused body that is still to come ends the connection": BEHIND,
    "a client that asks on and on, and never reads, is read no further": BEHIND,
    "a client that ends within its head is closed": HEADS,
    "a protocol that the route names, of those that are offered": "extended CONNECT is offered for WebSockets alone",
    "a 101 that does not say to what": "the edge checks Sec-WebSocket-Accept itself",
    "a request behind an upgrade that is refused is a request": BEHIND,
    "a head that stops coming": HEADS,
    "a request line that stops coming": HEADS,
    "a second head that stops coming": HEADS,
    "a client that says nothing is closed without a word": IDLE,
    "a client that says nothing but empty lines": HEADS,
    "an idle connection is closed without a word": IDLE,
    "an upstream that does not end, for HTTP/1.0": HTTP10,
}
"""Why, by the name of the play."""
