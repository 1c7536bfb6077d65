"""Each answer is counted before the client receives it: the test reads the map when the first byte arrives.

A kill -9 rarely hits the few instructions between a count and a write. A reader on another core, which waits for the
first byte and then reads the word, soon finds a wrong order.
"""

import mmap
import socket
import time
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import PATIENCE, Wire
from loadtest.testbed.load_clients import request

REQUESTS = 1500


@pytest.mark.parametrize("path", ["/", "/?chunked=1&size=100", "POST /"])
def test_a_request_is_counted_before_its_answer_arrives(path: str, start_edge: StartEdge) -> None:
    edge = start_edge(workers=1)
    asked = request(path, UNLIMITED)
    with Wire(edge.port) as wire, usage_file(edge).open("rb") as file:
        words: memoryview = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).cast("Q")
        wire.send(asked)
        wire.hear()
        before = words.tolist()
        wire.send(asked)
        wire.hear()
        (counter,) = [at for at, word in enumerate(words.tolist()) if word != before[at]]
        count = words[counter]
        for number in range(1, REQUESTS + 1):
            wire.send(asked)
            assert word_at_first_byte(wire, words, counter) == count + number
            wire.hear()
        assert words[counter] == edge.usage()[UNLIMITED]


def usage_file(edge: Edge) -> Path:
    """Return the edge's table of usage."""
    (file,) = Path(edge.settings["state"]).glob("usage.*.tbl")
    return file


def word_at_first_byte(wire: Wire, words: memoryview, at: int) -> int:
    """The word at the moment when something has arrived. It is waited for without sleeping, which would be late."""
    raw, peek, most = wire.socket, socket.MSG_PEEK, time.monotonic() + PATIENCE
    raw.setblocking(False)
    word = -1
    while time.monotonic() < most:
        try:
            raw.recv(1, peek)
            word = words[at]
            break
        except BlockingIOError:
            continue
    raw.settimeout(PATIENCE)
    return word
