"""A pytest plugin, loaded into a suite by `pytest -p`: puts the stand's proxy before each HTTP server of a test.

A server listens on the hidden port of a slot, and reports the public one, where the proxy listens. The plugin runs
in the suite's own environment, so it imports nothing of this project.
"""

import itertools
import os
import socket

SLOTS = [tuple(map(int, pair.split(":"))) for pair in os.environ.get("SUITE_SLOTS", "").split(",") if pair]
_turn = itertools.cycle(SLOTS)


def take():
    """Return the next slot with a free hidden port, or None."""
    for _ in SLOTS:
        public, hidden = next(_turn)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", hidden))
            except OSError:
                continue
        return public, hidden
    return None


def before_aiohttp():
    try:
        from aiohttp.test_utils import BaseTestServer
    except ImportError:
        return
    start = BaseTestServer.start_server

    async def interposed(self, *args, **kwargs):
        slot = None
        if not self.runner and not self.port and self.host == "127.0.0.1" and not kwargs.get("ssl"):
            slot = take()
        if slot is None:
            return await start(self, *args, **kwargs)
        self.port = slot[1]
        told = await start(self, *args, **kwargs)
        self.port = slot[0]
        self._root = self._root.with_port(slot[0])
        return told

    BaseTestServer.start_server = interposed


def before_httpbin():
    try:
        from pytest_httpbin.serve import SecureServer, Server
    except ImportError:
        return
    make = Server.__init__

    def interposed(self, host="127.0.0.1", port=0, application=None, **kwargs):
        slot = None if port or isinstance(self, SecureServer) else take()
        make(self, host, port if slot is None else slot[1], application, **kwargs)
        if slot is not None:
            self.port = slot[0]

    Server.__init__ = interposed


if SLOTS:
    before_aiohttp()
    before_httpbin()
