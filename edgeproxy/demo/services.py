"""The services of the demonstration: each a process with its own ports, configured by the files in config/."""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from secrets import randbelow, token_bytes

import yaml

from edgeproxy.base.json_values import JsonDocument
from edgeproxy.demo import hub, identity
from edgeproxy.demo.api_description import DESCRIPTION
from edgeproxy.demo.data import Data
from edgeproxy.demo.ports import HOST, Ports
from edgeproxy.demo.process import Process

PACKED = Path(__file__).parent / "config"
"""The files of config/ in a wheel, copied by setup.py."""
CHECKOUT = None if PACKED.is_dir() else Path(__file__).parents[2]
CONFIG = PACKED if CHECKOUT is None else CHECKOUT / "config"
PYTHON = (sys.executable, "-P", "-m")
EDGEPROXY = (*PYTHON, "edgeproxy")
REGIONS = ("eu-west", "us-east")
STRIPE_KEY = "sk_test_demo"
SELLER = {"name": "Example API Ltd", "address": ["1 Sample Street", "Dublin, Ireland"], "tax_number": "IE1234567T"}
"""The company, on invoices."""
ALERTS_FROM, ALERTS_TO = "alerts@edgeproxy.example", "ops@edgeproxy.example"
TABLE_ROWS = 2000
"""Rows for limits and for addresses in an edge's tables: few, because there are few customers."""
PROMETHEUS = shutil.which("prometheus")


class Services:
    """The addresses of all services, and how to start each."""

    def __init__(self, data: Data, ports: Ports, regions: Sequence[str], *, with_hub: bool) -> None:
        """Claim the ports; raises NoFreePortError."""
        self._data = data
        self.regions = tuple(regions)
        self._edges = {
            region: (ports.claim(region, 8080 + at), ports.claim(f"admin of {region}", 9090 + at))
            for at, region in enumerate(self.regions)
        }
        self._hub = ports.claim("Redis", 6379) if with_hub else None
        self._prometheus = ports.claim("Prometheus", 9190) if PROMETHEUS else None
        self._api, self._collector = ports.claim("API", 9001), ports.claim("collector", 9100)
        self._stripe = ports.claim("Stripe sandbox", 12111)
        self._smtp, self._mailbox = ports.claim("mail", 1025), ports.claim("mailbox", 8025)

    @property
    def api(self) -> str:
        """The URL of the API behind the edges."""
        return _url(self._api)

    @property
    def collector(self) -> str:
        """The URL of the collector."""
        return _url(self._collector)

    @property
    def stripe(self) -> str:
        """The URL of the Stripe sandbox."""
        return _url(self._stripe)

    @property
    def mailbox(self) -> str:
        """The URL of the page with mails."""
        return _url(self._mailbox)

    @property
    def second_factor(self) -> str:
        """The code by which an operator shows a second factor."""
        return self._data.secret("second factor", lambda: f"{randbelow(10**6):06}")

    @property
    def _client_secret(self) -> str:
        return self._data.secret("client secret")

    @property
    def prometheus(self) -> str | None:
        """The URL of Prometheus; None if it is not installed."""
        return None if self._prometheus is None else _url(self._prometheus)

    @property
    def hub(self) -> str | None:
        """The address of the hub, without credentials; None without a hub."""
        return None if self._hub is None else f"{HOST}:{self._hub}"

    def edge(self, region: str) -> str:
        """Return the URL of an edge."""
        return _url(self._edges[region][0])

    def admin(self, region: str) -> str:
        """Return the URL of an edge's admin listener."""
        return _url(self._edges[region][1])

    @property
    def collector_file(self) -> Path:
        """The collector's configuration."""
        return self._data.path("collector.yaml")

    # ---- processes

    def start_api(self) -> Process:
        """Start httpbin, the API on sale."""
        server: list[str | Path] = [*PYTHON, "gunicorn", "--bind", f"{HOST}:{self._api}"]
        shape = ["--worker-class", "gthread", "--threads", "16", "--keep-alive", "75", "--no-control-socket"]
        return self._start("the API", [*server, *shape, "httpbin:app"])

    def start_hub(self) -> Process:
        """Start Redis with the users of edges and of the loader."""
        assert self._hub is not None
        assert hub.SERVER is not None
        folder = self._data.path("redis/data").parent
        text = hub.build_configuration(self._hub, str(folder), self._password("edge"), self._password("loader"))
        return self._start("Redis", [hub.SERVER, "-"], stdin=text.encode())

    def start_hub_loader(self) -> Process:
        """Start the command that loads the functions which edges call; it ends by itself."""
        file = self._data.write("hub.yaml", yaml.safe_dump({"hub": self._hub_url("loader")}))
        return self._start("edgeproxy hub load", [*EDGEPROXY, "hub", "load", "-c", file])

    def start_stripe(self) -> Process:
        """Start the Stripe sandbox."""
        state = str(self._data.path("stripe.db"))
        options = ["--listen", f"{HOST}:{self._stripe}", "--state", state, "--rates", "off"]
        return self._start("the Stripe sandbox", [*EDGEPROXY, "stripe-sandbox", *options])

    def start_mailbox(self) -> Process:
        """Start the mailbox, with the identity provider."""
        options = [str(self._smtp), str(self._mailbox), str(self._data.path("mail")), f"{self.collector}/sign-in/back"]
        stdin = f"{self._client_secret}\n{self.second_factor}\n".encode()
        return self._start("the mailbox", [*PYTHON, "edgeproxy.demo.mailbox", *options], stdin=stdin)

    def start_history(self) -> subprocess.Popen[bytes]:
        """Start the writer of the months before the first start. It waits for Stripe, and prints the keys of Atlas."""
        arguments = [str(self.collector_file), self.stripe]
        command = ["setpriv", "--pdeathsig", "KILL", *PYTHON, "edgeproxy.demo.past", *arguments]
        with self._log("the history").open("wb") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=self._environ)

    def start_collector(self) -> Process:
        """Start the collector."""
        return self._start("the collector", [*EDGEPROXY, "collector", "-c", self.collector_file])

    def configure_collector(self, webhook_secret: str, admin_token_hash: str) -> None:
        """Write the collector's configuration: config/collector.yaml, and a mailbox for its mails."""
        settings = _read("collector.yaml")
        settings["listen"] = f"{HOST}:{self._collector}"
        settings["database"] = f"sqlite:///{self._data.path('ledger.db')}"
        settings["directory"]["key"] = str(self._data.path("directory.key"))
        settings["tokens"].append(
            {"name": "demo-operator", "role": "admin", "sensitive": True, "sha256": admin_token_hash}
        )
        settings["billing"] |= {
            "plans": str(CONFIG / "plans.yaml"),
            "mode": "live",
            "seller": SELLER,
            "freeze": "0s",  # Late usage is waited for elsewhere: here an invoice closes when its period ends.
            "stripe": {
                "base": self.stripe,
                "key": str(self._data.write("stripe.key", STRIPE_KEY)),
                "webhook_secrets": str(self._data.write("stripe.webhook", webhook_secret)),
            },
        }
        mail = {"smtp": f"smtp://{HOST}:{self._smtp}", "from": ALERTS_FROM, "to": [ALERTS_TO]}
        settings["alerts"] = {"channels": {"mail": mail}, "routes": {"info": ["mail"]}, "customers": "mail"}
        settings["pages"]["mail"] = {"server": f"{HOST}:{self._smtp}", "sender": ALERTS_FROM, "tls": "none"}
        checks = {region: {"url": f"{self.admin(region)}/readyz", "latency": "300ms"} for region in self.regions}
        settings["pages"]["status"] |= {"regions": checks, "every": "2s"}
        settings["pages"]["sign_up"] = {"tier": "free", "plan": "free"}
        description = self._data.write("openapi.json", json.dumps(DESCRIPTION))
        first = self.edge(self.regions[0])
        settings["pages"]["api"] = {"url": first, "example": "/get", "openapi": str(description)}
        encryption = self._data.secret("webhook encryption", lambda: b64encode(token_bytes(32)).decode())
        settings["pages"] |= {"client": identity.CLIENT, "client_secret": self._client_secret}
        settings["operators"] = {
            "issuer": f"{self.mailbox}{identity.PATH}",
            "audience": identity.CLIENT,
            "roles": {"admin": [identity.GROUP]},
        }
        settings["webhooks"] = {"encryption": encryption, "networks": ["127.0.0.0/8"]}
        self._data.write("collector.yaml", yaml.safe_dump(settings, sort_keys=False))

    def start_edge(self, region: str, trust: str) -> Process:
        """Start the edge of a region: config/edge.yaml, with small tables."""
        settings = _read("edge.yaml")
        port, admin = self._edges[region]
        settings |= {
            "region": region,
            "listen": f"{HOST}:{port}",
            "state": str(self._data.path(f"{region}/state").parent),
            "hub": "memory://" if self._hub is None else self._hub_url("edge"),
            "tables": {"customers": TABLE_ROWS, "addresses": TABLE_ROWS},
        }
        settings["admin"]["address"] = f"{HOST}:{admin}"
        settings["usage"]["collector"] = self.collector
        settings["directory"]["trust"] = trust
        settings["upstreams"]["api"]["endpoints"] = [self.api]
        file = self._data.write(f"{region}.yaml", yaml.safe_dump(settings, sort_keys=False))
        return self._start(f"the edge {region}", [*EDGEPROXY, "edge", "-c", file])

    def start_prometheus(self) -> Process:
        """Start Prometheus with the jobs and rules of config/prometheus/."""
        assert PROMETHEUS is not None
        settings = _read("prometheus/prometheus.yml")
        settings["rule_files"] = [str(CONFIG / "prometheus" / name) for name in settings["rule_files"]]
        edges = [
            {"targets": [f"{HOST}:{admin}"], "labels": {"region": region}} for region, (_, admin) in self._edges.items()
        ]
        collector = [{"targets": [f"{HOST}:{self._collector}"]}]
        settings["global"]["scrape_interval"] = "5s"
        del settings["alerting"]  # There is no Alertmanager here: the collector's alerts are in the mailbox.
        settings["scrape_configs"] = [
            {"job_name": "edgeproxy", "static_configs": edges},
            {"job_name": "collector", "static_configs": collector},
        ]
        file = self._data.write("prometheus.yml", yaml.safe_dump(settings, sort_keys=False))
        storage = f"--storage.tsdb.path={self._data.path('prometheus')}"
        listen = f"--web.listen-address={HOST}:{self._prometheus}"
        return self._start("Prometheus", [PROMETHEUS, f"--config.file={file}", storage, listen])

    def _start(self, name: str, command: Sequence[str | Path], *, stdin: bytes = b"") -> Process:
        return Process(name, command, log=self._log(name), environ=self._environ, stdin=stdin)

    @property
    def _environ(self) -> dict[str, str]:
        # Variables that configure the shipped files elsewhere must not affect these.
        own = {"no_proxy": HOST, "EDGEPROXY_COLLECTOR": self.collector}
        return os.environ | own | dict.fromkeys(("METRICS_TOKENS", "STRIPE_SECRET_KEY"), "")

    def _log(self, name: str) -> Path:
        return self._data.path(f"logs/{name.removeprefix('the ').replace(' ', '-').lower()}.log")

    def _hub_url(self, user: str) -> str:
        return f"redis://{user}:{self._password(user)}@{self.hub}/0"

    def _password(self, user: str) -> str:
        return self._data.secret(f"redis-{user}")


def _read(name: str) -> dict[str, JsonDocument]:
    """Return a shipped file, with absolute paths of its includes."""
    settings: dict[str, JsonDocument] = yaml.safe_load((CONFIG / name).read_text())
    if "include" in settings:
        settings["include"] = [str(CONFIG / file) for file in settings["include"]]
    return settings


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"
