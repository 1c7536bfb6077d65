"""WebSocket tunnels: RFC 9110 section 7.8, RFC 6455 section 4."""

from tests.contract.case import HOST, get, lines
from tests.contract.play import Play, Step, client, play, upstream

H = f"Host: {HOST}"
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ACCEPT = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
SWITCH = lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", ACCEPT)
LINE = "GET /ws HTTP/1.1"


def opened(*fields: str) -> tuple[Step, ...]:
    """The handshake."""
    return (
        client.sends(get("/ws", *UPGRADE, *fields)),
        upstream.gets_request(LINE, has=("Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13")),
        upstream.sends(SWITCH),
        client.gets_head(
            101,
            has=("Upgrade: websocket", "Connection: upgrade", ACCEPT),
            lacks=("Content-Length", "Transfer-Encoding"),
        ),
    )


def left() -> tuple[Step, ...]:
    """Both leave."""
    return (client.closes(), upstream.gets_cut())


TUNNELS: tuple[Play, ...] = (
    play(
        "bytes pass both ways, as they are",
        "RFC 6455 5",
        *opened(),
        client.sends(b"\x81\x85GET / HTTP/1.1\r\n\r\n"),
        upstream.gets(b"\x81\x85GET / HTTP/1.1\r\n\r\n"),
        upstream.sends(b"HTTP/1.1 200 OK\r\n\r\n\0\xff"),
        client.gets(b"HTTP/1.1 200 OK\r\n\r\n\0\xff"),
        *left(),
    ),
    play(
        "extensions and protocols are the ends' affair",
        "RFC 6455 9.1",
        client.sends(
            get(
                "/ws",
                *UPGRADE,
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
                "Sec-WebSocket-Protocol: chat, superchat",
            )
        ),
        upstream.gets_request(
            LINE,
            has=(
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
                "Sec-WebSocket-Protocol: chat, superchat",
            ),
        ),
        upstream.sends(
            lines(
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket",
                "Connection: Upgrade",
                ACCEPT,
                "Sec-WebSocket-Protocol: chat",
            )
        ),
        client.gets_head(101, has=("Sec-WebSocket-Protocol: chat",)),
        *left(),
    ),
    play(
        "an upgrade among other options, in another case",
        "RFC 9110 7.8",
        client.sends(get("/ws", "CONNECTION: keep-alive, UPGRADE", "upgrade: WebSocket")),
        upstream.gets_request(LINE, has=("Upgrade: websocket", "Connection: upgrade")),
        upstream.sends(SWITCH),
        client.gets_head(101),
        *left(),
    ),
    play(
        "a protocol that the route names, of those that are offered",
        "docs/start/compatibility.md#upgrades",
        client.sends(get("/exec", "Connection: Upgrade", "Upgrade: h2c, SPDY/3.1, A/1")),
        upstream.gets_request("GET /exec HTTP/1.1", has=("Connection: upgrade", "Upgrade: spdy/3.1")),
        upstream.sends(lines("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1") + b"\x80"),
        client.gets_head(101, has=("Connection: upgrade", "Upgrade: spdy/3.1")),
        client.gets(b"\x80"),
        client.sends(b"\x80\x03\0\x01"),
        upstream.gets(b"\x80\x03\0\x01"),
        *left(),
    ),
    play(
        "a 101 that does not say to what",
        "docs/start/compatibility.md#upgrades",
        client.sends(get("/ws", *UPGRADE)),
        upstream.gets_request(LINE),
        upstream.sends(lines("HTTP/1.1 101 Switching Protocols") + b"hello"),
        client.gets_head(101, has=("Connection: upgrade",), lacks=("Upgrade",)),
        client.gets(b"hello"),
        *left(),
    ),
    play(
        "bytes directly behind the 101",
        "RFC 6455 4.1",
        client.sends(get("/ws", *UPGRADE)),
        upstream.gets_request(LINE),
        upstream.sends(SWITCH + b"\x81\x05hello"),
        client.gets_head(101),
        client.gets(b"\x81\x05hello"),
        *left(),
    ),
    play(
        "bytes directly behind the upgrade request wait for the 101",
        "RFC 6455 4.1",
        client.sends(get("/ws", *UPGRADE) + b"\x81\x85early"),
        upstream.gets_request(LINE),
        upstream.sends(SWITCH),
        client.gets_head(101),
        upstream.gets(b"\x81\x85early"),
        *left(),
    ),
    play(
        "a request behind an upgrade that is refused is a request",
        "RFC 9110 7.8",
        client.sends(get("/ws", *UPGRADE) + get("/next")),
        upstream.gets_request(LINE),
        upstream.sends(
            lines("HTTP/1.1 426 Upgrade Required", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 0")
        ),
        client.gets_answer(426, b""),
        upstream.gets_eof(),
        upstream.closes(),
        upstream.gets_request("GET /next HTTP/1.1"),
        upstream.sends(lines("HTTP/1.1 200 OK", "Content-Length: 0")),
        client.gets_answer(200, b""),
    ),
    play(
        "an upgrade that is refused with a body",
        "RFC 6455 4.2.2",
        client.sends(get("/ws", *UPGRADE)),
        upstream.gets_request(LINE),
        upstream.sends(lines("HTTP/1.1 403 No", "Content-Length: 5") + b"hello"),
        client.gets_answer(403, b"hello"),
        upstream.gets_eof(),  # Nobody may read requests there any more.
        upstream.closes(),
        client.sends(get("/next")),
        upstream.gets_request("GET /next HTTP/1.1"),
        upstream.sends(lines("HTTP/1.1 200 OK", "Content-Length: 0")),
        client.gets_answer(200, b""),
    ),
    play(
        "the client ends its side, the upstream goes on",
        "RFC 9110 7.8",
        *opened(),
        client.sends(b"last"),
        client.ends(),
        upstream.gets(b"last"),
        upstream.gets_eof(),
        upstream.sends(b"and more"),
        client.gets(b"and more"),
        upstream.closes(),
        client.gets_eof(),
    ),
    play(
        "the upstream ends its side, the client goes on",
        "RFC 9110 7.8",
        *opened(),
        upstream.sends(b"last"),
        upstream.ends(),
        client.gets(b"last"),
        client.gets_eof(),
        client.sends(b"and more"),
        upstream.gets(b"and more"),
        client.closes(),
        upstream.gets_cut(),
    ),
    play(
        "both end at once",
        "RFC 9110 7.8",
        *opened(),
        client.ends(),
        upstream.ends(),
        client.gets_eof(),
        upstream.gets_eof(),
    ),
    play(
        "a client that aborts takes the upstream with it",
        "RFC 9110 7.8",
        *opened(),
        client.aborts(),
        upstream.gets_cut(),
    ),
    play(
        "an upstream that aborts takes the client with it",
        "RFC 9110 7.8",
        *opened(),
        upstream.aborts(),
        client.gets_cut(),
    ),
    play(
        "an end that comes with the upgrade request",
        "RFC 9110 7.8",
        client.sends(get("/ws", *UPGRADE)),
        client.ends(),
        upstream.gets_request(LINE),
        upstream.gets_eof(),
        upstream.sends(SWITCH + b"hello"),
        client.gets_head(101),
        client.gets(b"hello"),
        upstream.closes(),
        client.gets_eof(),
    ),
    play(
        "no more is taken than the other side takes",
        "docs/design/contract.md#connections",
        *opened(),
        client.sends_until_full(b"x" * 65536),
        client.aborts(),
        upstream.gets_cut_anywhere(),
    ),
    play(
        "an interim answer before the switch",
        "RFC 9110 15.2",
        client.sends(get("/ws", *UPGRADE)),
        upstream.gets_request(LINE),
        upstream.sends(lines("HTTP/1.1 103 Early Hints", "Link: </a>")),
        client.gets_head(103),
        upstream.sends(SWITCH),
        client.gets_head(101),
        client.sends(b"a"),
        upstream.gets(b"a"),
        *left(),
    ),
)
"""Rows about tunnels."""
