"""HAProxy with one thread and the edge's paths. It also stands in front, as a proxy that
the edge trusts."""

import shutil
from pathlib import Path

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.neighbours.peers.peer import HOST, PATHS, Place, Running

_DEFAULTS = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    http-reuse always"""


def binary() -> str | None:
    """The path of HAProxy, also where sbin is not on the PATH of an ordinary user."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def start(place: Place) -> Running:
    """Start it; it need not serve yet."""
    plain, http2, secure, mutual = ports.free(4)
    services, materials = place.services, place.materials
    tls = f"ssl crt {materials.joined} alpn h2,http/1.1"
    binds = (
        (plain, ""),
        (http2, "proto h2"),
        (secure, tls),
        (mutual, f"{tls} ca-file {materials.authority} verify required"),
    )
    listeners = "\n".join(
        f"    bind {address} {more} backlog 4096" for port, more in binds for address in place.listeners(port)
    )
    child = _run(
        place.folder,
        place.core,
        f"""
{_DEFAULTS}
frontend all
{listeners}
    http-request return status 401 if {{ path /keyed }} !{{ req.hdr(X-API-Key) ek_good }}
    http-request return status 429 if {{ path /spent }}
    http-request return status 404 unless {{ path /ok /keyed /refused {" ".join(PATHS)} }} or {{ path_beg /h2c/ }}
    use_backend good if {{ path /ok /keyed }}
    use_backend h2c if {{ path_beg /h2c/ }}
    use_backend refused if {{ path /refused }}
    default_backend bad
backend good
    server s {HOST}:{services.good}
backend bad
    compression algo gzip
    compression type text/plain
    server s {HOST}:{services.bad}
backend h2c
    server s {HOST}:{services.h2c} proto h2
backend refused
    server s {HOST}:{services.unused}
""",
    )
    doors = {"plain": plain, "http2": http2, "tls": secure, "tls-bytes": secure, "mutual": mutual}
    return Running("haproxy", place, child, doors)


def start_in_front(folder: Path, core: int, port: int) -> tuple[Child, dict[str, int]]:
    """Start one that passes everything to `port` over HTTP/2, on few connections, and its doors; returns both."""
    folder.mkdir()
    plain, http2 = ports.free(2)
    child = _run(
        folder,
        core,
        f"""
{_DEFAULTS}
frontend all
    bind {HOST}:{plain} backlog 4096
    bind {HOST}:{http2} proto h2 backlog 4096
    option forwardfor
    default_backend edge
backend edge
    server s {HOST}:{port} proto h2
""",
    )
    return child, {"plain": plain, "http2": http2}


def _run(folder: Path, core: int, configuration: str) -> Child:
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    return Child([binary() or "haproxy", "-db", "-f", file], core=core, log=folder / "output")
