"""The edge, nginx and HAProxy, each in front of the row's services."""

from collections.abc import Callable

from loadtest.bench.nginx import binary as nginx_binary
from loadtest.neighbours.peers import edge, haproxy, nginx
from loadtest.neighbours.peers.peer import Place, Running

STARTS: dict[str, Callable[[Place], Running]] = {
    "edgeproxy": edge.start,
    "nginx": nginx.start,
    "haproxy": haproxy.start,
}


def start(name: str, place: Place) -> Running:
    """Start a peer in a folder that exists, and wait until it relays. Raises RuntimeError if it does not."""
    running = STARTS[name](place)
    try:
        running.ready()
    except BaseException:
        running.stop()
        raise
    if name != "haproxy":  # The supervisor is not on the request path; HAProxy has no other process.
        running.spare_the_worker()
    return running


def missing() -> set[str]:
    """The peers that are not installed on this machine; each is the name of its package."""
    return {name for name, path in (("nginx", nginx_binary()), ("haproxy", haproxy.binary())) if path is None}
