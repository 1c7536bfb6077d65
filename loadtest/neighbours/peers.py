"""The edge, nginx and HAProxy, each with one worker, in front of the same services."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtest.bench import nginx, ports
from loadtest.bench.ask import asking
from loadtest.bench.child import Child, tree
from loadtest.neighbours.service import HOST

NAMES = ("edgeproxy", "nginx", "haproxy")
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 30.0
PATHS = ("/chunks", "/sink")
"""Paths of the hostile service that every peer passes on."""


@dataclass(frozen=True)
class Services:
    """Ports of the services: the well-behaved client's, and those of its neighbours over HTTP/1.1 and HTTP/2."""

    good: int
    bad: int
    h2c: int


@dataclass(frozen=True)
class Setting:
    """Where a peer runs, before what, and with which further settings (the edge alone)."""

    folder: Path
    core: int
    other_core: int
    services: Services
    python: Path
    workers: int
    edge: Mapping[str, Any]


@dataclass
class Running:
    """A peer that serves. `doors` are its listeners by name; `admin` is the port of the edge's admin listener."""

    name: str
    child: Child
    doors: dict[str, int]
    admin: int = 0

    def pids(self) -> list[int]:
        """All its processes."""
        return tree(self.child.pid)

    def stop(self) -> None:
        """End it."""
        self.child.stop()


def start(name: str, setting: Setting) -> Running:
    """Start a peer and wait until it relays. Raises RuntimeError with its last words where it does not."""
    setting.folder.mkdir(parents=True)
    running = {"edgeproxy": _edge, "nginx": _nginx, "haproxy": _haproxy}[name](setting)
    try:
        running.child.wait_until(lambda: _relays(running.doors["plain"]), _START_SECONDS, "relayed a request")
    except BaseException:
        running.stop()
        raise
    if name == "edgeproxy":  # The supervisor is not on the request path: it must not take the worker's core.
        os.sched_setaffinity(running.child.pid, {setting.other_core})
    return running


def missing() -> dict[str, str]:
    """Peers that cannot run on this machine, and the package that each of them needs."""
    binaries = {"nginx": nginx.binary(), "haproxy": _haproxy_binary()}
    return {name: name for name, path in binaries.items() if path is None}


def _relays(port: int) -> bool:
    try:
        with asking(port) as asker:
            return asker.get("/ok").status == 200
    except (OSError, HTTPException):
        return False


def _edge(setting: Setting) -> Running:
    port, admin = ports.free(2)
    file = setting.folder / "edge.yaml"
    file.write_text(json.dumps(_edge_settings(setting, port, admin), indent=1))  # YAML is a superset of JSON.
    own = setting.python == Path(sys.executable).absolute()
    child = Child(
        [setting.python, "-m", "edgeproxy", "edge", "-c", file],
        core=setting.core,
        log=setting.folder / "output",
        env={"PYTHONPATH": str(_ROOT)} if own else {},
        cwd=setting.folder,
    )
    return Running("edgeproxy", child, {"plain": port, "http2": port}, admin)


def _edge_settings(setting: Setting, port: int, admin: int) -> dict[str, Any]:
    services = setting.services
    return {
        "listen": f"{HOST}:{port}",
        "admin": f"{HOST}:{admin}",
        "state": str(setting.folder / "state"),
        "workers": setting.workers,
        "tables": {"customers": 2000, "addresses": 2000, "end_users": 2000},
        "drain": "2s",
        "upstreams": {
            "good": {"endpoints": [f"http://{HOST}:{services.good}"]},
            "bad": {"endpoints": [f"http://{HOST}:{services.bad}"]},
            "h2c": {"endpoints": [f"http://{HOST}:{services.h2c}"], "protocol": "h2c"},
        },
        "routes": [
            {"name": "good", "path": "/ok", "upstream": "good", "auth": "none"},
            {"name": "h2c", "path": "/h2c/*", "upstream": "h2c", "auth": "none"},
            *({"name": path[1:], "path": path, "upstream": "bad", "auth": "none"} for path in PATHS),
        ],
        **setting.edge,
    }


def _nginx(setting: Setting) -> Running:
    port, http2_port = ports.free(2)
    services = setting.services
    pass_on = "".join(f"location {path} {{ proxy_pass http://bad; }}\n" for path in PATHS)
    child = nginx.start(
        setting.folder,
        f"""
        upstream good {{ server {HOST}:{services.good}; keepalive 128; }}
        upstream bad {{ server {HOST}:{services.bad}; keepalive 128; }}
        proxy_http_version 1.1;
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        server {{
            listen {HOST}:{port} backlog=4096;
            listen {HOST}:{http2_port} http2 backlog=4096;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            location /ok {{ proxy_pass http://good; }}
            {pass_on}
            location / {{ return 404; }}
        }}""",
        core=setting.core,
    )
    return Running("nginx", child, {"plain": port, "http2": http2_port})


def _haproxy_binary() -> str | None:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def _haproxy(setting: Setting) -> Running:
    port, http2_port = ports.free(2)
    services = setting.services
    file = setting.folder / "haproxy.cfg"
    file.write_text(f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    http-reuse always
frontend all
    bind {HOST}:{port} backlog 4096
    bind {HOST}:{http2_port} proto h2 backlog 4096
    http-request return status 404 unless {{ path_beg /ok /h2c/ {" ".join(PATHS)} }}
    use_backend good if {{ path /ok }}
    use_backend h2c if {{ path_beg /h2c/ }}
    default_backend bad
backend good
    server s {HOST}:{services.good}
backend bad
    server s {HOST}:{services.bad}
backend h2c
    server s {HOST}:{services.h2c} proto h2
""")
    child = Child([_haproxy_binary() or "haproxy", "-db", "-f", file], core=setting.core, log=setting.folder / "output")
    return Running("haproxy", child, {"plain": port, "http2": http2_port})
