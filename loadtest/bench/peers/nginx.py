"""nginx as a plain proxy, and nginx with Lua that does edgeproxy's job: the yardstick."""

import json
from pathlib import Path
from urllib.request import urlopen

from loadtest.bench import nginx, ports
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.people import ACME, ADDRESS_RATE, REGION, Customer

_HERE = Path(__file__).parent
_LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")


class Plain(Peer):
    """proxy_pass and nothing else: what relaying alone costs."""

    name = "nginx"
    does_job = False

    def missing(self) -> str | None:
        return None if nginx.binary() else "nginx"

    def version(self, place: Place) -> str:
        return nginx.version()

    def launch(self, place: Place) -> Running:
        port, secure_port, http2_port = ports.free(3)
        tls = "" if place.certificate is None else _tls(secure_port, place.certificate, http2=place.http2)
        if place.http2:
            tls += f"\n        listen 127.0.0.1:{http2_port} http2 backlog=4096;"
        template = (_HERE / "plain.conf").read_text()
        http = nginx.fill(template, PROXY=_proxy(place), PORT=port, TLS=tls, LOCATIONS=_locations(place, ""))
        child = nginx.start(place.folder, http, core=place.core)
        control = frozenset({child.pid})
        return Running(
            child, port, control=control, secure_port=secure_port, http2_port=http2_port if place.http2 else 0
        )


class Lua(Peer):
    """The same job as edgeproxy's in OpenResty's Lua, with counts and limits in shared dictionaries."""

    name = "nginx+lua"

    def missing(self) -> str | None:
        if not nginx.binary():
            return "nginx and libnginx-mod-http-lua"
        present = all((nginx.modules() / module).exists() for module in _LUA_MODULES)
        return None if present else "libnginx-mod-http-lua"

    def version(self, place: Place) -> str:
        return f"{nginx.version()}, LuaJIT"

    def launch(self, place: Place) -> Running:
        port, counts = ports.free(2)
        people = place.folder / "people"
        people.write_text("".join(_people_line(customer) for customer in place.customers))
        http = nginx.fill(
            (_HERE / "lua.conf").read_text(),
            PROXY=_proxy(place),
            PORT=port,
            COUNTS=counts,
            LUA=_HERE,
            PEOPLE=people,
            ADDRESS_RATE=ADDRESS_RATE,
            ROUTES=", ".join(json.dumps(route) for route in place.routes),
            SHARED=8 if place.crowd is None else 256,
            LOCATIONS=_locations(place, (_HERE / "lua_location.conf").read_text()),
        )
        child = nginx.start(place.folder, http, core=place.core, load_modules=_LUA_MODULES)
        return Running(child, port, lambda: _counted(counts), frozenset({child.pid}))


def _tls(port: int, certificate: tuple[Path, Path], *, http2: bool) -> str:
    """A listener as edgeproxy's: the same versions, tickets, no cache of sessions beside them."""
    cert, key = certificate
    return f"""
        listen 127.0.0.1:{port} ssl{" http2" if http2 else ""} backlog=4096;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;"""


def _proxy(place: Place) -> str:
    servers = "\n".join(f"        server 127.0.0.1:{port};" for port in place.upstreams)
    return nginx.fill((_HERE / "proxy.conf").read_text(), SERVERS=servers)


def _locations(place: Place, inside: str) -> str:
    """A location block for each route, with `inside` in it, where @ROUTE@ stands for the route's name."""
    template = f"        location /@ROUTE@/ {{\n{inside}            proxy_pass http://api;\n        }}"
    return "\n".join(nginx.fill(template, ROUTE=route, REGION=REGION) for route in place.routes)


def _people_line(customer: Customer) -> str:
    """Return the line of a customer in the file that edge.lua reads."""
    return f"{customer.key_sha256} {customer.name} {customer.tier} {customer.limit} {customer.at_once}\n"


def _counted(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/usage", timeout=10) as answer:
        rows = json.load(answer)
    return sum(total for row, total in rows.items() if row.split("|")[0] == ACME.name)
