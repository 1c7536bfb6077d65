"""Each set-up that is shipped, with real processes: config/, the demonstration, compose, the chart, `init`.

Each has complete security fields, refuses a listener in clear text, lets a customer rotate a key in the portal, and
lets operators run checks, see baselines and preview a close over HTTP. A Prometheus with the shipped rules finds
nothing wrong in it, from its first minute on.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import yaml
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.collector.pages.rendering import SECURITY
from edgeproxy.demo import ports as demo_ports
from edgeproxy.demo.data import Data
from edgeproxy.demo.process import Process as DemoProcess
from edgeproxy.demo.services import Services
from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import sha256
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until
from tests.support.chart import ENVIRON, render
from tests.support.compose_files import read_compose
from tests.support.prometheus import SERVER as PROMETHEUS
from tests.support.prometheus import Prometheus
from tests.support.services import Httpbin
from tests.support.visitor import Visitor

CONFIG = ROOT / "config"
COMMAND = (sys.executable, "-m", "edgeproxy")
ADMIN = "admin-token"
ADMIN_ROW = {"name": "admin", "role": "admin", "sha256": sha256(ADMIN)}
EDGE_FIELDS = (
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Referrer-Policy",
)
IN_CLEAR = "behind_tls"


class SetUp(NamedTuple):
    """The files of a set-up, placed on this host."""

    edge: Path
    collector: Path
    environ: dict[str, str]
    unprotected: Callable[[], Result]
    """Checks these files with an unprotected collector: clear text at all addresses."""
    reader: str
    """A token of the files that may not do what operators do."""
    tier: str = "free"
    path: str = "/get"
    """A path of the API that needs a key."""
    admin: str = ADMIN


class Place(NamedTuple):
    """A folder and free ports."""

    folder: Path
    port: int
    edge: int
    admin: int
    api: int


def run(*arguments: str | Path, environ: dict[str, str]) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env=environ)


def move(text: str, places: dict[str, str]) -> str:
    """Return a text with these words, addresses and paths for instance, replaced in order."""
    for there, here in places.items():
        text = text.replace(there, here)
    return text


def add_admin(place: Place, shipped: Path) -> Path:
    """Write a file that adds an operator's token to a shipped one."""
    file = place.folder / "with-operator.yaml"
    file.write_text(yaml.safe_dump({"include": [str(shipped)], "tokens": [ADMIN_ROW]}))
    return file


def place_config(place: Place) -> SetUp:
    """The files of config/, with their variables."""
    environ = {
        "COLLECTOR_LISTEN": f"{HOST}:{place.port}",
        "COLLECTOR_DATABASE": f"sqlite:///{place.folder}/ledger.db",
        "COLLECTOR_URL": f"http://{HOST}:{place.port}",
        "DIRECTORY_KEY": str(place.folder / "directory.key"),
        "DIRECTORY_TRUST": directory_signatures.create_key_file(place.folder / "directory.key"),
        "PLANS": str(CONFIG / "plans.yaml"),
        "HUB_URL": "memory://",
        "API_URL": f"http://{HOST}:{place.api}",
        "EDGE_LISTEN": f"{HOST}:{place.edge}",
        "EDGE_ADMIN": f"{HOST}:{place.admin}",
        "EDGE_STATE": str(place.folder / "state"),
    }
    file = add_admin(place, CONFIG / "collector.yaml")
    in_clear = environ | {"COLLECTOR_LISTEN": "0.0.0.0:9100"}
    return SetUp(
        CONFIG / "edge.yaml", file, environ, lambda: run("check", file, environ=in_clear), reader="demo-edge-token"
    )


def place_compose(place: Place) -> SetUp:
    """The environment of the services of compose.yaml, which use config/."""
    services = read_compose("compose.yaml")["services"]
    places = {
        "http://upstream:9001": f"http://{HOST}:{place.api}",
        "redis://redis:6379/0": "memory://",
        "http://collector:9100": f"http://{HOST}:{place.port}",
        ":9100": f":{place.port}",
        ":8080": f":{place.edge}",
        ":9090": f":{place.admin}",
        "/etc/edgeproxy": str(CONFIG),
        "/var/lib/edgeproxy": str(place.folder),
    }
    environ = {}
    for name, written in {**services["collector"]["environment"], **services["edge"]["environment"]}.items():
        environ[name] = move(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", written), places)
    environ["DIRECTORY_TRUST"] = directory_signatures.create_key_file(place.folder / "directory.key")
    file = add_admin(place, CONFIG / "collector.yaml")
    in_clear = environ | {"COLLECTOR_BEHIND_TLS": "false"}
    assert environ["COLLECTOR_LISTEN"] == f"0.0.0.0:{place.port}"
    return SetUp(
        CONFIG / "edge.yaml", file, environ, lambda: run("check", file, environ=in_clear), reader="demo-edge-token"
    )


class WrittenServices(Services):
    """The demonstration's services. The test writes only their files."""

    def __init__(self, data: Data, claimed: demo_ports.Ports) -> None:
        super().__init__(data, claimed, ["eu-west"], with_hub=False)
        self.files: list[Path] = []

    def _start(self, name: str, command: Any, *, stdin: bytes = b"") -> DemoProcess:
        self.files.append(Path(command[-1]))
        return None  # type: ignore[return-value]


def place_demo(place: Place) -> SetUp:
    """The files that the demonstration writes, on other ports."""
    with closing(demo_ports.Ports()) as claimed:
        services = WrittenServices(Data(place.folder / "demo"), claimed)
        trust = directory_signatures.create_key_file(place.folder / "demo" / "directory.key")
        services.configure_collector("whsec_demo", sha256(ADMIN))
        services.start_collector()
        services.start_edge("eu-west", trust)
        ports = {services.collector: place.port, services.edge("eu-west"): place.edge}
        ports |= {services.admin("eu-west"): place.admin, services.api: place.api}
    for file in services.files:
        places = {url.removeprefix("http://"): f"{HOST}:{port}" for url, port in ports.items()}
        file.write_text(move(file.read_text(), places))
    collector, edge = services.files
    settings = yaml.safe_load(collector.read_text())
    exposed = place.folder / "exposed.yaml"
    exposed.write_text(yaml.safe_dump({**settings, "listen": "0.0.0.0:9100"}))
    return SetUp(edge, collector, {}, lambda: run("check", exposed, environ={}), reader="demo-edge-token")


def place_chart(place: Place) -> SetUp:
    """The configurations that the chart renders from the first values of its page, with plans."""
    plans = {"plans": {"basic@1": {"fee": "0", "meters": {"requests": {"included": 100, "cap": "soft"}}}}}
    sold = {"settings": {"billing": {"plans": "/etc/edgeproxy/plans.yaml"}}, "plans": plans}
    manifests = render(place.folder, collector=sold)
    places = {
        "/var/run/secrets/edgeproxy": str(place.folder),
        "/etc/edgeproxy": str(place.folder / "collector"),
        "/var/lib/edgeproxy": str(place.folder / "state"),
        "http://acme-collector:9100": f"http://{HOST}:{place.port}",
        ":9100": f":{place.port}",
        ":8080": f":{place.edge}",
        ":9090": f":{place.admin}",
        "http://api.default.svc:8000": f"http://{HOST}:{place.api}",
        f"ed25519:{'A' * 43}=": directory_signatures.create_key_file(place.folder / "directory.key"),
        # httpbin has no /v1/, and a probe of the admin listener sends this host's address.
        "/v1/*": "/*",
    }
    for component in ("edge", "collector"):
        (place.folder / component).mkdir()
        for name, text in manifests["ConfigMap", f"acme-{component}"]["data"].items():
            (place.folder / component / name).write_text(move(text, places))
    environ = {**ENVIRON, "EDGE_TOKEN": "demo-edge-token", "DATABASE_URL": f"sqlite:///{place.folder}/ledger.db"}
    rendered = place.folder / "collector" / "collector.yaml"
    exposed = place.folder / "collector" / "exposed.yaml"
    exposed.write_text(rendered.read_text().replace("behind_tls: true", "behind_tls: false"))
    assert rendered.read_text() != exposed.read_text()
    return SetUp(
        place.folder / "edge" / "edge.yaml",
        add_admin(place, rendered),
        environ,
        lambda: run("check", exposed, environ=environ),
        reader="demo-edge-token",
        tier="basic",
    )


def place_init(place: Place) -> SetUp:
    """The files of `edgeproxy init`."""
    folder = place.folder / "first"
    addresses = ["--listen", f"{HOST}:{place.edge}", "--admin", f"{HOST}:{place.admin}"]
    upstream = ["--upstream", f"http://{HOST}:{place.api}"]
    done = run("init", folder, *addresses, *upstream, "--collector", f"{HOST}:{place.port}", environ={})
    assert done.exit_code == 0, done.output
    token = re.search(r"EDGEPROXY_TOKEN=(\w+)", (folder / "operator.env").read_text())
    assert token is not None
    edge = yaml.safe_load((folder / "edge.yaml").read_text())
    return SetUp(
        folder / "edge.yaml",
        folder / "collector.yaml",
        {},
        lambda: run("init", place.folder / "second", *addresses, "--collector", "0.0.0.0:9100", environ={}),
        reader=edge["usage"]["token"],
        path="/v1/get",
        admin=token[1],
    )


SET_UPS = {
    "config": place_config,
    "demo": place_demo,
    "compose": place_compose,
    "chart": place_chart,
    "init": place_init,
}


class Running:
    """The running collector and edge of a set-up."""

    def __init__(self, place: Place, files: SetUp, ends: ExitStack) -> None:
        self.place, self.files = place, files
        for port, kind, file in ((place.port, "collector", files.collector), (place.edge, "edge", files.edge)):
            process = Process([*COMMAND, kind, "-c", file], place.folder / f"{kind}.log", environ=files.environ)
            ends.callback(process.stop)
            until(lambda process=process, port=port: self._answers(process, port), f"the {kind} answers")  # type: ignore[misc]

    @staticmethod
    def _answers(process: Process, port: int) -> bool:
        assert process.running, process.output
        try:
            return ask(port, "/readyz").status in (200, 401, 404)  # An edge answers it at its admin listener alone.
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> Answer:
        """Ask the collector, by default as an operator."""
        fields = {"Authorization": f"Bearer {token or self.files.admin}", "Content-Type": "application/json"}
        return ask(
            self.place.port, path, method=method, fields=fields, body=None if body is None else orjson.dumps(body)
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Ask the collector as an operator. Require success, and return the answer."""
        answer = self.ask(method, path, body)
        assert answer.status < 300, (method, path, answer)
        return answer.json()


@pytest.fixture(params=SET_UPS)
def running(request: pytest.FixtureRequest, tmp_path: Path, httpbin: Httpbin) -> Iterator[Running]:
    with ExitStack() as ends:
        ports = ends.enter_context(closing(Ports(3)))
        place = Place(tmp_path, *ports.numbers, httpbin.port)
        yield Running(place, SET_UPS[request.param](place), ends)


def check_security_fields(running: Running) -> None:
    """The edge's own answers and each page have all fields."""
    for path in (running.files.path, "/no/such/route"):
        answer = ask(running.place.edge, path)
        assert answer.status in (401, 404), path
        assert [name for name in EDGE_FIELDS if name.lower() not in answer] == []
    for path in ("/sign-in", "/status", "/no/such/page"):
        page = ask(running.place.port, path, fields={"Accept": "text/html"})
        assert [name for name in SECURITY if page.all(name.lower()) != [SECURITY[name]]] == [], (path, page)


def check_rotation(running: Running) -> None:
    """A due key is replaced by its owner in the portal, which shows the new one once. The old one works meanwhile."""
    running.call("POST", "/v1/customers", {"name": "rota", "tier": running.files.tier, "rotate_every": "0s"})
    old = running.call("POST", "/v1/customers/rota/keys", {"name": "first"})

    def works(key: str) -> bool:
        return ask(running.place.edge, running.files.path, key=key).status in (200, 404)

    until(lambda: works(old["secret"]), "the edge knows the key")
    assert running.call("GET", "/v1/customers/rota/key-rotation")["deliver"] == "portal"
    link = run("sign-in", "--customer", "rota", "-c", running.files.collector, environ=running.files.environ)
    assert link.exit_code == 0, link.output
    assert link.stdout.startswith(f"http://{HOST}:{running.place.port}/sign-in/"), "a browser of this host opens it"
    with Visitor(f"http://{HOST}:{running.place.port}") as owner:
        owner.get(link.stdout.strip())
        owner.send("/sign-in/link")
        owner.get("/account/keys?lang=en")
        form = next(form for form in owner.read.forms if form.action.endswith(f"/{old['id']}/rotate"))
        owner.post(form.action, form.fields)
        secret = owner.read.secret
        assert secret
        assert secret not in owner.get("/account/keys").text, "the secret is shown once"
    until(lambda: works(secret), "the edge knows the new key")
    assert works(old["secret"]), "during the grace"
    states = {key["id"]: key["state"] for key in running.call("GET", "/v1/customers/rota/keys")["keys"]}
    assert states[old["id"]] == "rotating"
    (entry,) = running.call("GET", "/v1/audit?action=key.rotate")["entries"]
    assert entry["target"] == f"rota/{old['id']}"


def check_operators_actions(running: Running) -> None:
    """Operators run checks, which is on record, see a baseline and preview a close. An edge's token may not."""
    assert set(running.call("POST", "/v1/checks")) >= {"usage", "spending", "alerted"}
    (entry,) = running.call("GET", "/v1/audit?action=checks.run")["entries"]
    assert entry["actor"]
    assert running.call("GET", "/v1/customers/rota/baselines")["baselines"] == []
    assert "invoices" in running.call("GET", "/billing/invoices/closing?period=2026-01")
    for method, path in (
        ("POST", "/v1/checks"),
        ("GET", "/v1/customers/rota/baselines"),
        ("GET", "/billing/invoices/closing?period=2026-01"),
    ):
        assert running.ask(method, path, token=running.files.reader).status == 403, path


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine")
def test_shipped_rules_find_nothing_wrong_in_a_set_up(running: Running, tmp_path: Path) -> None:
    """As operators see it who have no probe yet."""
    targets = {"edgeproxy": running.place.admin, "collector": running.place.port}
    with closing(Prometheus(tmp_path / "prometheus", targets)) as prometheus:
        began = datetime.now(UTC)
        until(lambda: is_well(prometheus, began), "nothing is wrong", step=1.0)


def is_well(prometheus: Prometheus, since: datetime) -> bool:
    """Return whether all rules were evaluated, and no alert but the watchdog is pending or firing."""
    alerts = prometheus.list_alerts(since)
    print(alerts)  # pytest shows it if the test failed
    return alerts is not None and [labels["alertname"] for labels in alerts] == ["Watchdog"]


def test_set_up_rotates_keys_has_security_fields_and_serves_operators(running: Running) -> None:
    check_security_fields(running)
    check_rotation(running)
    check_operators_actions(running)
    refused = running.files.unprotected()
    assert refused.exit_code != 0
    assert IN_CLEAR in refused.stderr, refused.stderr
