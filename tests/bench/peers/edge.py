"""edgeproxy itself, with one worker and everything on that the budgets name."""

import json
from pathlib import Path
from urllib.request import urlopen

from bench import ports
from bench.child import Child
from bench.peers.peer import Peer, Place, Running
from bench.people import ACME, ADDRESS_RATE, CUSTOMERS, REGION, ROUTES
from edgeproxy import __version__

_ROOT = Path(__file__).parents[3]


class Edge(Peer):
    name = "edgeproxy"

    def version(self, place: Place) -> str:
        return __version__

    def launch(self, place: Place) -> Running:
        port, admin, secure_port = ports.free(3)
        # YAML is a superset of JSON.
        configuration = place.folder / "edge.yaml"
        configuration.write_text(json.dumps(settings(place, port, admin, secure_port), indent=1))
        child = Child(
            [place.python, "-m", "edgeproxy", "edge", "-c", configuration],
            core=place.core,
            log=place.folder / "output",
            env={"PYTHONPATH": str(_ROOT)},
            cwd=place.folder,
        )
        return Running(child, port, lambda: _counted(admin), frozenset({child.pid}), secure_port)


def settings(place: Place, port: int, admin: int, secure_port: int) -> dict[str, object]:
    """What would be its edge.yaml: limits that are charged but not reached, and one customer with a small one."""
    listen: list[object] = [f"127.0.0.1:{port}"]
    if place.certificate is not None:
        cert, key = map(str, place.certificate)
        listen.append({"address": f"127.0.0.1:{secure_port}", "tls": {"cert": cert, "key": key}})
    return {
        "region": REGION,
        "listen": listen,
        "admin": f"127.0.0.1:{admin}",
        "workers": 1,
        "state": str(place.folder / "state"),
        "per_ip": {"rate": f"{ADDRESS_RATE}/s"},
        "tiers": {
            each.tier: {"limits": [{"rate": f"{each.limit}/min"}], "concurrency": each.at_once} for each in CUSTOMERS
        },
        "customers": {each.name: {"tier": each.tier} for each in CUSTOMERS},
        "keys": [{"sha256": each.key_sha256, "customer": each.name} for each in CUSTOMERS],
        "upstreams": {"api": {"endpoints": [f"http://127.0.0.1:{upstream}" for upstream in place.upstreams]}},
        "routes": [{"name": route, "path": f"/{route}/*", "upstream": "api"} for route in ROUTES],
        "tables": {"people": 1000, "addresses": 1000},
    }


def _counted(admin: int) -> int:
    with urlopen(f"http://127.0.0.1:{admin}/usage", timeout=10) as answer:
        rows = json.load(answer)["rows"]
    return sum(total for customer, meter, _, total in rows if (customer, meter) == (ACME.name, "requests"))
