"""Clients of a service that speaks HTTP/2 to the peer: one client's exchange beside the others of its connection."""

from collections.abc import Iterator

from loadtest.neighbours.kinds.heads import endless, head, once
from loadtest.neighbours.neighbour import H2C, Neighbour, Piece, Polite

_ASKING = Polite("/h2c/ok")
_POSTING = Polite("/h2c/ok", body="0123456789")


def _upload(inbox: bytearray) -> Iterator[Piece]:
    yield head("/h2c/unread", "Content-Length: 900000000", method="POST")
    while True:
        yield bytes(1 << 16)


ROWS = (
    Neighbour("h2c-frames-down", once(head("/h2c/frames")), peers=H2C),
    Neighbour("h2c-empty-frames-down", once(head("/h2c/empty")), peers=H2C),
    Neighbour("h2c-pings-down", once(head("/h2c/pings")), peers=H2C),
    Neighbour("h2c-settings-down", once(head("/h2c/settings")), peers=H2C),
    Neighbour("h2c-pipelined", endless(head("/h2c/ok") * 500), peers=H2C, polite=_ASKING),
    Neighbour("h2c-unread-answers", once(head("/h2c/large")), peers=H2C, reads=False, parallel=8, polite=_ASKING),
    Neighbour("h2c-unread-uploads", _upload, peers=H2C, polite=_POSTING),
    Neighbour(
        "h2c-left-requests", lambda inbox: iter((head("/h2c/hang"), 0.02)), "plain", H2C, _ASKING, 4, resets=True
    ),
    Neighbour("h2c-long-heads", endless(head("/h2c/long-head")), peers=H2C, polite=_ASKING),
    Neighbour("h2c-many-fields", endless(head("/h2c/many-fields")), peers=H2C, polite=_ASKING),
)
