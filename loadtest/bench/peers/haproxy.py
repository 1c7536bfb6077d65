"""HAProxy that does edgeproxy's job with stick tables, maps and rules: the level to reach.

It does less of it in one point: of latencies it keeps averages, no histogram.
"""

import re
import shutil
import socket
import subprocess
from pathlib import Path

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.bench.nginx import fill
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.people import ACME, ADDRESS_RATE, REGION

_TEMPLATE = Path(__file__).with_name("haproxy.cfg")
_COUNTED = re.compile(rf"key={ACME.name}\|\S+ .*gpc0=(\d+)")


class HAProxy(Peer):
    """One process with one thread."""

    name = "haproxy"

    def missing(self) -> str | None:
        return None if _binary() else "haproxy"

    def version(self, place: Place) -> str:
        output = subprocess.run([_binary() or "", "-v"], capture_output=True, text=True, timeout=10, check=True).stdout
        return "HAProxy " + output.split()[2]

    def launch(self, place: Place) -> Running:
        port, secure_port, http2_port = ports.free(3)
        others = []
        if place.http2:
            others.append(f"    bind 127.0.0.1:{http2_port} proto h2 backlog 4096")
        if place.certificate is not None:
            pair = place.folder / "pair.pem"
            pair.write_bytes(b"".join(file.read_bytes() for file in place.certificate))
            protocols = "h2,http/1.1" if place.http2 else "http/1.1"
            others.append(f"    bind 127.0.0.1:{secure_port} ssl crt {pair} alpn {protocols} backlog 4096")
        people, asked = place.folder / "people.map", place.folder / "socket"
        rows = (
            f"{customer.key_sha256.upper()} {customer.name}:{customer.tier}:{customer.limit}:{customer.at_once}\n"
            for customer in place.customers
        )
        people.write_text("".join(rows))
        paths = place.folder / "paths"
        paths.write_text("".join(f"/{route}/\n" for route in place.routes))
        configuration = place.folder / "haproxy.cfg"
        servers = enumerate(place.upstreams)
        configuration.write_text(
            fill(
                _TEMPLATE.read_text(),
                SOCKET=asked,
                PORT=port,
                OTHERS="\n".join(others),
                PATHS=paths,
                SIZE="100k" if place.crowd is None else "2m",
                ADDRESS_RATE=ADDRESS_RATE,
                PEOPLE=people,
                REGION=REGION,
                SERVERS="\n".join(f"    server s{number} 127.0.0.1:{each}" for number, each in servers),
            )
        )
        child = Child(
            [_binary() or "haproxy", "-db", "-f", configuration], core=place.core, log=place.folder / "output"
        )
        return Running(
            child,
            port,
            lambda: _counted(asked),
            secure_port=secure_port if place.certificate else 0,
            http2_port=http2_port if place.http2 else 0,
        )


def _binary() -> str | None:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def _counted(asked: Path) -> int:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(asked))
        end.sendall(b"show table usage\n")
        text = b"".join(iter(lambda: end.recv(1 << 16), b"")).decode()
    return sum(map(int, _COUNTED.findall(text)))
