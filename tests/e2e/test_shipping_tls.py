"""A real edge and a real collector that prove to each other who they are."""

from contextlib import closing
from pathlib import Path
from typing import Any

from loadtest.testbed.authority import Authority
from loadtest.testbed.collector import EDGE
from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.secured import NAME, Secured


def test_an_edge_ships_over_tls_once_each_believes_the_other(upstream: Upstream, tmp_path: Path) -> None:
    with closing(Secured(tmp_path / "collector")) as collector:
        collector.start()
        own = collector.authority.issue("edge-1")
        stranger = Authority(tmp_path, "stranger").issue("edge-1")
        good: dict[str, Any] = {"ca": str(collector.authority.file), "server_name": NAME}

        def usage(**tls: str) -> dict[str, Any]:
            url = f"https://{HOST}:{collector.port}"
            return {"collector": url, "token": EDGE, "every": "100ms", "tls": {**good, **tls}}

        with closing(Edge(tmp_path / "edge", upstream.port, usage=usage(), workers=1, **people(acme="basic"))) as edge:
            edge.start()
            assert edge.ask(fields={"Authorization": "Bearer key-of-acme"}).status == 200

            def why() -> str:
                told: str = edge.status()["usage"]["shipping"]["why"]
                return told

            until(lambda: "show a certificate" in why(), "the edge is asked for a certificate")
            for tls, said in (
                ({"cert": str(stranger.cert), "key": str(stranger.key)}, ("nobody answers",)),
                ({"ca": str(tmp_path / "stranger.pem")}, ("certificate verify failed",)),
                ({"server_name": "another.test"}, ("Hostname mismatch",)),
            ):
                assert edge.reload(usage=usage(**tls)).status == 200
                until(lambda said=said: any(one in why() for one in said), f"it says {said}")
            assert edge.reload(usage=usage(cert=str(own.cert), key=str(own.key))).status == 200
            until(lambda: edge.status()["usage"]["unshipped"] == 0, "all is acknowledged", seconds=40)
        assert collector.ask("/v1/usage?from=2026-01-01").json()["total"] == 1
