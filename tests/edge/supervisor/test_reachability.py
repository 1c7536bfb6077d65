"""Addresses without probes, with real sockets."""

import asyncio
import socket

import uvloop

from edgeproxy.edge.supervisor.reachability import ConnectTarget, Reachability


def test_refusing_endpoint_is_probed_until_it_accepts() -> None:
    refused: dict[str, int] = {}
    with socket.create_server(("127.0.0.1", 0)) as open_one, socket.socket() as shut_one:
        shut_one.bind(("127.0.0.1", 0))
        well = ConnectTarget("api", "127.0.0.1", open_one.getsockname()[1])
        ill = ConnectTarget("api", "127.0.0.1", shut_one.getsockname()[1])
        other = ConnectTarget("other", *shut_one.getsockname())

        async def told() -> dict[str, int]:
            return dict(refused)

        async def scene() -> None:
            known = Reachability(told, lambda: [well, ill, other])
            await known.check()
            assert known.why(ill) == "", "no worker has reported a failure"
            refused["api"] = 1
            await known.check()
            assert (known.why(well), known.why(ill), known.why(other)) == ("", "connection refused", "")
            await known.check()
            assert known.why(ill), "a failure without requests is not forgotten"
            shut_one.listen()
            await known.check()
            assert known.why(ill) == ""
            shut_one.close()
            await known.check()
            assert known.why(ill) == "", "no worker has reported a failure since"

        uvloop.run(asyncio.wait_for(scene(), 60))
