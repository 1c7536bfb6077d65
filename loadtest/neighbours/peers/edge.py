"""edgeproxy, with a route for every kind of neighbour."""

import json
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.neighbours.peers.peer import HOST, PATHS, Place, Running

_ROOT = Path(__file__).parents[3]


def start(place: Place) -> Running:
    """Start it; it need not serve yet."""
    plain, secure, mutual, admin = ports.free(4)
    file = place.folder / "edge.yaml"
    settings = merged(_settings(place, plain, secure, mutual, admin), place.edge)
    file.write_text(json.dumps(settings, indent=1))  # YAML is a superset of JSON.
    own = place.python == Path(sys.executable).absolute()

    def run() -> Child:
        return Child(
            [place.python, "-m", "edgeproxy", "edge", "-c", file],
            core=place.core,
            log=place.folder / "output",
            env={"PYTHONPATH": str(_ROOT)} if own else {},
            cwd=place.folder,
        )

    doors = {"plain": plain, "http2": plain, "tls": secure, "tls-bytes": secure, "mutual": mutual, "admin": admin}
    return Running("edgeproxy", place, run(), doors, run)


def merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with further ones: mappings are joined, lists too, and anything else replaced."""
    joined = dict(settings)
    for name, value in more.items():
        present = joined.get(name)
        if isinstance(present, list):
            joined[name] = [*present, *value]
        elif isinstance(present, dict):
            joined[name] = merged(present, value)
        else:
            joined[name] = value
    return joined


def _settings(place: Place, plain: int, secure: int, mutual: int, admin: int) -> dict[str, Any]:
    services, materials = place.services, place.materials
    tls = {"cert": str(materials.server.cert), "key": str(materials.server.key)}
    listeners: list[dict[str, Any]] = [{"address": address} for address in place.listeners(plain)]
    listeners += [{"address": address, "tls": tls} for address in place.listeners(secure)]
    asking = {**tls, "client_ca": str(materials.authority)}
    listeners += [{"address": address, "tls": asking} for address in place.listeners(mutual)]
    bad = f"http://{HOST}:{services.bad}"
    return {
        "listen": listeners,
        "admin": f"{HOST}:{admin}",
        "state": str(place.folder / "state"),
        "workers": place.workers,
        "tables": {"customers": 2000, "addresses": 2000, "end_users": 2000},
        "drain": "2s",
        "auth": {"cookie": "key"},
        "upstreams": {
            "good": {"endpoints": [f"http://{HOST}:{services.good}"]},
            "bad": {"endpoints": [bad]},
            "held": {"endpoints": [bad], "buffer": "10MiB"},
            "h2c": {"endpoints": [f"http://{HOST}:{services.h2c}"], "protocol": "h2c"},
            "refused": {"endpoints": [f"http://{HOST}:{services.unused}"]},
        },
        "meters": {
            "requests": {"count": "requests"},
            "output_tokens": {"count": "output_tokens", "missing": "bytes/4", "dimensions": {"model": 50}},
        },
        "tiers": {"all": {"limits": [{"rate": "1000000/s"}]}, "one": {"limits": [{"rate": "1/60min"}]}},
        "customers": {"good": {"tier": "all"}, "spent": {"tier": "one"}},
        "keys": [{"customer": name, "sha256": sha256(f"ek_{name}".encode()).hexdigest()} for name in ("good", "spent")],
        "routes": [
            {"name": "good", "path": "/ok", "upstream": "good", "auth": "none"},
            {"name": "keyed", "path": "/keyed", "upstream": "good"},
            {"name": "spent", "path": "/spent", "upstream": "good"},
            {"name": "h2c", "path": "/h2c/*", "upstream": "h2c", "auth": "none"},
            {"name": "ai", "path": "/ai/*", "upstream": "bad", "response_usage": "openai"},
            {"name": "held", "path": "/buffered", "upstream": "held", "auth": "none"},
            {"name": "refused", "path": "/refused", "upstream": "refused", "auth": "none"},
            *({"name": path[1:], "path": path, "upstream": "bad", "auth": "none", "compress": "on"} for path in PATHS),
        ],
    }
