"""Proxies that ask the edge, with the configuration that docs/edge/authorize.md shows, and services behind them."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template

import yaml

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until
from tests.support.oidc import MODULES, NODE

DOCS = (ROOT / "docs" / "edge" / "authorize.md").read_text()
SHOWN_EDGE, SHOWN_SERVICE = "127.0.0.1:8081", "127.0.0.1:9000"
"""The addresses in the document."""

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")

STATED: dict[str, str] = {
    "nginx": "original",
    "envoy": "path",
    "traefik": "forwarded",
    "caddy": "forwarded",
    **({"haproxy": "original"} if HAPROXY else {}),
}
"""The `authorize` setting of each proxy's listener at the edge: the way that the proxy states requests."""

EXPRESS = NODE is not None and (MODULES / "node_modules/express").exists()

NGINX = Template("""
daemon off;
master_process off;
user root;
pid $folder/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    upstream app { server $service; }
$outside
    server {
        listen $address;
$shown
    }
}
""")


def shown(proxy: str, place: int = 0) -> str:
    """Return the configuration in the section of this name; `place`: of several blocks."""
    section = re.search(rf"^## {proxy}$(.*?)^## ", DOCS, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert section is not None, proxy
    return re.findall(r"^```\w+\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)[place]


def envoy_configuration(address: str, edge: str, service: str, folder: Path) -> Path:
    """Write the filter into a listener, with the two clusters that it names."""

    def endpoint(of: str) -> dict[str, object]:
        host, _, port = of.partition(":")
        return {"address": {"socket_address": {"address": host, "port_value": int(port)}}}

    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint(of)}]}]},
        }
        for name, of in (("edge", edge), ("app", service))
    ]
    chain = {"filters": [yaml.safe_load(shown("envoy").replace(SHOWN_EDGE, edge))]}
    listener = {"name": "front", **endpoint(address), "filter_chains": [chain]}
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    return file


class Companion:
    """A proxy on a port of its own, in front of a service, which asks an edge."""

    def __init__(self, name: str, folder: Path, edge: int, service: int) -> None:
        """`edge` and `service` are ports."""
        folder.mkdir(parents=True)
        self.name = name
        self._folder, self._edge, self._service = folder, f"{HOST}:{edge}", f"{HOST}:{service}"
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        commands: dict[str, Callable[[], list[str | Path]]] = {
            "nginx": self._nginx,
            "envoy": self._envoy,
            "traefik": self._traefik,
            "caddy": self._caddy,
            "haproxy": self._haproxy,
        }
        environ = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self.process = Process(commands[name](), folder / "log", environ=environ)

    @property
    def address(self) -> str:
        """HOST:PORT of the proxy."""
        return f"{HOST}:{self.port}"

    def close(self) -> None:
        """End it, and give back its port."""
        self.process.stop()
        self._ports.close()

    def _write(self, name: str, text: str) -> Path:
        file = self._folder / name
        file.write_text(text.replace(SHOWN_EDGE, self._edge).replace(SHOWN_SERVICE, self._service))
        return file

    def _nginx(self) -> list[str | Path]:
        binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert binary is not None, "a test that uses nginx must be marked nginx"
        values = {"folder": self._folder, "service": self._service, "address": self.address}
        file = self._write("nginx.conf", NGINX.substitute(values, outside=shown("nginx"), shown=shown("nginx", 1)))
        return [binary, "-p", self._folder, "-c", file, "-e", "stderr"]

    def _envoy(self) -> list[str | Path]:
        file = envoy_configuration(self.address, self._edge, self._service, self._folder)
        return [program("envoy"), "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn"]

    def _traefik(self) -> list[str | Path]:
        file = self._write("dynamic.yaml", shown("traefik"))
        quiet = ["--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=WARN"]
        front = f"--entrypoints.web.address={self.address}"
        return [program("traefik"), *quiet, front, f"--providers.file.filename={file}"]

    def _caddy(self) -> list[str | Path]:
        text = f"{{\n\tadmin off\n\tauto_https off\n\tdefault_bind {HOST}\n}}\n" + shown("caddy")
        text = text.replace(":8080 {", f"http://:{self.port} {{", 1)
        return [program("caddy"), "run", "--adapter", "caddyfile", "--config", self._write("Caddyfile", text)]

    def _haproxy(self) -> list[str | Path]:
        assert HAPROXY is not None
        script = self._write("edge.lua", shown("haproxy"))
        text = shown("haproxy", 1).replace("/etc/haproxy/edge.lua", str(script))
        text = text.replace("bind :8080", f"bind {self.address}")
        return [HAPROXY, "-db", "-f", self._write("haproxy.cfg", text)]


def program(name: str) -> Path:
    """Return the path of a program that a package of the environment has brought."""
    return Path(sys.executable).with_name(name)


class PrefixService(Process):
    """A service that serves whatever begins with a known prefix: see prefix_service.py."""

    def __init__(self, kind: str, folder: Path) -> None:
        """`kind`: flask, under gunicorn, which hands on fields with underscores as well; or express."""
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        here = Path(__file__).parent
        flask: list[str | Path] = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{self.port}", "--threads", "8"]
        flask += ["--header-map", "dangerous", "--no-control-socket", "tests.support.prefix_service:app"]
        express: list[str | Path] = [NODE or "node", here / "prefix_service.mjs", MODULES, str(self.port)]
        super().__init__({"flask": flask, "express": express}[kind], folder / f"{kind}.log")

    def close(self) -> None:
        """End it, and give back its port."""
        self.stop()
        self._ports.close()


def settle(companion: Companion, answers: Callable[[], bool]) -> None:
    """Wait until `answers`, or the proxy has ended, which fails."""
    until(lambda: answers() or not companion.process.running, f"{companion.name} asks the edge", seconds=60)
    assert companion.process.running, companion.process.output
