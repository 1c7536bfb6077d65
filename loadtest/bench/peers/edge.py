"""edgeproxy itself, with one worker and every feature that the budgets name: alone, and on a hub with another edge."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

from edgeproxy import __version__
from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.people import ACME, ADDRESS_RATE, CUSTOMERS, REGION

_ROOT = Path(__file__).parents[3]
_AGREED_SECONDS = 20.0
_PAIRS = 100_000
"""Customers on routes for which tables have rows beside one for each customer."""
TOKENS_ROUTE = "v2"
"""The route that counts tokens: each stated count, by model."""
COUNTS = ("input_tokens", "cached_tokens", "output_tokens")


class RunningEdge(Running):
    """A running edge. The template process of its workers does not serve."""

    def workers(self) -> list[int]:
        return [pid for pid in super().workers() if not _is_template(pid)]


def _is_template(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"\0template")


class Edge(Peer):
    name = "edgeproxy"

    def version(self, place: Place) -> str:
        return __version__

    def launch(self, place: Place) -> Running:
        port, admin, secure_port = ports.free(3)
        child = _started(place, settings(place, port, admin, secure_port), self.environment(place))
        http2_port = port if place.http2 else 0
        return RunningEdge(
            child, port, lambda: _counted(admin), frozenset({child.pid}), secure_port, http2_port=http2_port
        )

    def environment(self, place: Place) -> dict[str, str]:
        """Return the environment of the edge, above all the path of its edgeproxy."""
        return _own_environment(place)


class Hubbed(Edge):
    """The edge on a hub (a Redis) with another edge. All limits except those by address are shared."""

    name = "edgeproxy+hub"

    def missing(self) -> str | None:
        return None if shutil.which("redis-server") else "redis-server"

    def launch(self, place: Place) -> Running:
        port, admin, secure_port, redis, *others = ports.free(7)
        # On the bench's own cores, not on the proxy's.
        away = replace(place, folder=place.folder / "beside", core=min(os.sched_getaffinity(0)), certificate=None)
        away.folder.mkdir()
        options = ["--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(away.folder)]
        hub = {"hub": f"redis://127.0.0.1:{redis}"}
        beside = (
            Child(["redis-server", *options], core=away.core, log=place.folder / "redis"),
            _started(away, settings(away, *others) | hub),
        )
        child = _started(place, settings(place, port, admin, secure_port) | hub)
        running = RunningEdge(child, port, lambda: _counted(admin), frozenset({child.pid}), secure_port, beside=beside)
        try:
            child.wait_until(lambda: _hosts(admin) == 2, _AGREED_SECONDS, "knew of the other edge")
        except BaseException:
            running.stop()
            raise
        return running


class Watched(Edge):
    """The edge with internal measurements (loadtest/bench/watched), which it writes to its folder when it ends."""

    name = "edgeproxy, watched"

    def environment(self, place: Place) -> dict[str, str]:
        path = f"{_ROOT / 'loadtest/bench/watched'}:{_ROOT}"
        # A worker that is executed begins with what watches it.
        return {"PYTHONPATH": path, "EDGEPROXY_TEST_WATCHED": str(place.folder), "EDGEPROXY_TEMPLATE": "0"}


class OtherVersionError(Exception):
    """A commit cannot be unpacked; the text names it and the reason."""


class OtherVersion(Edge):
    """edgeproxy of another commit, with this Python and its packages."""

    def __init__(self, ref: str, folder: Path) -> None:
        """Unpack the commit into `folder`. Raises OtherVersionError if there is no such commit."""
        self.name = f"{Edge.name}@{ref}"
        self.folder = folder
        folder.mkdir()
        archive = subprocess.run(
            ["git", "-C", _ROOT, "archive", ref, "edgeproxy"], capture_output=True, check=False, timeout=60
        )
        if archive.returncode:
            raise OtherVersionError(f"--against {ref}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True, timeout=60)

    def environment(self, place: Place) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}


def _own_environment(place: Place) -> dict[str, str]:
    """Return the variables that make the bench's own interpreter run these sources. Others run their installed
    package.
    """
    return {"PYTHONPATH": str(_ROOT)} if place.python == Path(sys.executable).absolute() else {}


def _started(place: Place, configuration: dict[str, object], env: dict[str, str] | None = None) -> Child:
    file = place.folder / "edge.yaml"
    if place.crowd is not None:
        # Many customers are lines of a file of their own, as users have them: the YAML parser takes ten times as long.
        configuration = {"include": ["customers.yaml"]} | configuration
        del configuration["customers"], configuration["keys"]
        (place.folder / "customers.yaml").write_text(_format_customers(place))
    # YAML is a superset of JSON.
    file.write_text(json.dumps(configuration, indent=1))
    return Child(
        [place.python, "-m", "edgeproxy", "edge", "-c", file],
        core=place.core,
        log=place.folder / "output",
        env=_own_environment(place) if env is None else env,
        cwd=place.folder,
    )


def _format_customers(place: Place) -> str:
    """Return the customers and keys in YAML, a line for each."""
    customers = [f"  {customer.name}: {{tier: {customer.tier}}}\n" for customer in place.customers]
    keys = [f"  - {{sha256: {customer.key_sha256}, customer: {customer.name}}}\n" for customer in place.customers]
    return "".join(("customers:\n", *customers, "keys:\n", *keys))


def settings(place: Place, port: int, admin: int, secure_port: int) -> dict[str, object]:
    """Return the content of edge.yaml: limits that are charged but not reached, and one customer with a small limit."""
    listen: list[dict[str, object]] = [{"address": f"127.0.0.1:{port}"}]
    if place.certificate is not None:
        cert, key = map(str, place.certificate)
        listen.append({"address": f"127.0.0.1:{secure_port}", "tls": {"cert": cert, "key": key}})
    if place.http2:
        for listener in listen:
            listener["http2"] = True
    return {
        "region": REGION,
        "listen": listen,
        "admin": f"127.0.0.1:{admin}",
        "workers": 1,
        # Thousands of idle connections take minutes on a busy machine.
        "limits": {"keepalive_idle": "1h"},
        "state": str(place.folder / "state"),
        "per_ip": {"rate": f"{ADDRESS_RATE}/s"},
        "tiers": {
            customer.tier: {"limits": [{"rate": f"{customer.limit}/min"}], "concurrency": customer.at_once}
            for customer in CUSTOMERS
        },
        "customers": {customer.name: {"tier": customer.tier} for customer in place.customers},
        "keys": [{"sha256": customer.key_sha256, "customer": customer.name} for customer in place.customers],
        "upstreams": {"api": {"endpoints": [f"http://127.0.0.1:{upstream}" for upstream in place.upstreams]}},
        "routes": [
            {"name": route, "path": f"/{route}/*", "upstream": "api"}
            | ({"response_usage": "openai"} if route == TOKENS_ROUTE else {})
            for route in place.routes
        ],
        "meters": {
            "requests": {"count": "requests"},
            **{count: {"count": count, "missing": "0", "dimensions": {"model": 50}} for count in COUNTS},
        },
        "tables": {"customers": 1000 if place.crowd is None else place.crowd.count_rows(_PAIRS), "addresses": 1000},
    }


def _counted(admin: int) -> int:
    with urlopen(f"http://127.0.0.1:{admin}/usage", timeout=10) as answer:
        rows = json.load(answer)["rows"]
    return sum(total for customer, meter, _, total in rows if (customer, meter) == (ACME.name, "requests"))


def _hosts(admin: int) -> int:
    """Return how many edges are on its hub, from its status; 0 while it is unknown."""
    try:
        with urlopen(f"http://127.0.0.1:{admin}/status", timeout=10) as answer:
            hub = json.load(answer)["hub"]
    except OSError:
        return 0
    return hub["hosts"] if hub["state"] == "up" else 0
