"""Listeners that serve only some groups of endpoints: their paths, their clients, and the answers to all others."""

import re
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.collector.pages.sign_in import SignInPages
from edgeproxy.collector.pages.site import Site
from edgeproxy.collector.pages_service import list_signed_in_pages
from edgeproxy.config.collector.pages import Pages
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import OWN, READ, Collector, sha256
from loadtest.testbed.http_client import PATIENCE, Answer, answer_of, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until
from tests.support.secured import NAME, Secured
from tests.support.site import LINK, PLACES
from tests.support.visitor import Visitor

GROUPS = ("edges", "api", "customers", "console", "portal", "status", "webhooks", "metrics")
ROLES = {
    **dict.fromkeys(("edge", "beacon"), "edges"),
    **dict.fromkeys(("service", "aggregates", "read", "support", "billing", "admin"), "api"),
    "customer": "customers",
}
"""By role: the group of listeners that answers it."""
TOKENS = (None, "made-up", *ROLES)
"""Tokens for requests to an endpoint: none, an unknown one, and one of each role."""
OPEN = {
    "/healthz": set(GROUPS),
    "/readyz": set(GROUPS),
    "/metrics": {"metrics"},
    "/v1/openapi.json": {"api", "customers"},
    "/docs": {"api", "customers"},
    "/docs/{tag}": {"api", "customers"},
    "/billing/plans": {"api", "customers"},
    "/billing/status": {"api", "customers"},
    "/v1/keys/leaked": {"customers"},
    "/billing/webhooks/stripe": {"webhooks"},
}
"""The groups of listeners that serve the endpoints without authentication."""
SIGN_IN = {("POST", "/sign-in"): {"portal"}, "/sign-in/operator": {"console"}, "/sign-in/back": {"console"}}
SIGN_IN |= {"/sign-in/customer": {"portal"}, "/sign-in/customer/back": {"portal"}}
SOMETHING = {
    **PLACES,
    "customer": "nobody",
    "flag": "f",
    "item": "i",
    "meter": "m",
    "event": "evt_1",
    "date": "2027-01-01",
}
SOMETHING |= {"place": "1", "token": "t", "tag": "keys", "message": "msg_1", "request": "1", "move": "1"}


class Parted(Collector):
    """A collector with a listener for everything, and one for each group."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "collector", f"sqlite:///{folder}/ledger.db", pages={})
        self._others = Ports(len(GROUPS))
        self.ports = dict(zip(GROUPS, self._others.numbers, strict=True))
        own = [{"address": f"{HOST}:{port}", "serve": [group]} for group, port in self.ports.items()]
        self.settings["listen"] = [f"{HOST}:{self.port}", *own]
        whose: dict[str, dict[str, str]] = {role: {"role": role} for role in ROLES} | {
            "customer": {"customer": "bound"}
        }
        self.settings["tokens"] = [
            {"name": f"the-{role}", "sha256": sha256(role), **bounds} for role, bounds in whose.items()
        ]

    def close(self) -> None:
        super().close()
        self._others.close()


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parted]:
    with closing(Parted(tmp_path_factory.mktemp("parted"))) as made:
        made.start()
        yield made


def opened(folder: Path, *listeners: dict[str, Any], **settings: Any) -> Collector:
    """Start a collector with these listeners beside one that serves everything."""
    collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", **settings)
    collector.settings["listen"] = [collector.settings["listen"], *listeners]
    return collector.start()


class Asking:
    """A client of one listener that keeps its connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=30)

    def __call__(self, method: str, path: str, token: str | None = None) -> Answer:
        fields = {"Content-Length": "0"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._connection.request(method, path, headers=fields)
        return answer_of(self._connection.getresponse())

    def close(self) -> None:
        self._connection.close()


def known(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return an answer's status, body and fields without its date."""
    return answer.status, answer.body, [field for field in answer.fields if field[0] != "date"]


def find_status(table: Mapping[tuple[str, str], Collection[str]], group: str, path: str) -> int:
    """Return the status for a method that a listener does not serve: 405 if it serves another one of the path."""
    return 405 if any(other == path and group in groups for (_, other), groups in table.items()) else 404


def test_endpoint_is_answered_only_by_listeners_of_its_group(parted: Parted) -> None:
    described = ask(parted.port, "/v1/openapi.json").json()["paths"]
    table = {
        (method.upper(), path): {ROLES[role] for role in operation.get("x-roles", ())} or OPEN[path]
        for path, operations in described.items()
        for method, operation in operations.items()
    }
    assert len(table) > 90
    assert {
        role for path in described.values() for it in path.values() for role in it.get("x-roles", ())
    } == ROLES.keys()
    served = dict.fromkeys(GROUPS, 0)
    for group, port in parted.ports.items():
        with closing(Asking(port)) as listener:
            for number, ((method, path), groups) in enumerate(table.items()):
                at = path.format(**SOMETHING)
                unknown = known(listener("LOCK", at))
                # A listener that does not serve an endpoint reads no token, so one token per endpoint is enough.
                tokens = TOKENS if group in groups else [TOKENS[number % len(TOKENS)]]
                for token in tokens:
                    answer = listener(method, at, token)
                    about = (group, method, path, token, answer)
                    if group not in groups:
                        assert known(answer) == unknown, about
                        assert answer.status == find_status(table, group, path), about
                        assert answer.status == 404 or method not in answer["allow"], about
                        continue
                    assert known(answer) != unknown, about
                    served[group] += 1
                    if path in OPEN:
                        continue
                    if token in (None, "made-up"):
                        assert answer.status == 401, about
                    elif ROLES[token] != group:
                        assert answer.status == 403, about
                        assert f"does not serve {ROLES[token]}".encode() in answer.body, about
                    else:
                        assert b"does not serve" not in answer.body, about
    assert min(served.values()) >= 2 * len(ROLES), served


def test_page_is_served_only_by_listeners_of_its_group(parted: Parted) -> None:
    site: Any = Site(Any, Pages(), "https://a.test", Any, Any, Any)  # type: ignore[arg-type]
    pages = [*list_signed_in_pages(sells=True), *SignInPages(site, None).pages()]
    table = {(page.method, page.path): {"console", "portal"} for page in pages}
    table |= {("GET", path): {"status"} for path in ("/status", "/status.json", "/status.atom")}
    for method, path in table:
        if path.startswith(("/console", "/account")):
            table[method, path] = {"console" if path.startswith("/console") else "portal"}
        table[method, path] = SIGN_IN.get((method, path), SIGN_IN.get(path, table[method, path]))
    stylesheet = re.search(r'href="(/[^"]+\.css[^"]*)"', ask(parted.port, "/sign-in").body.decode())
    assert stylesheet is not None
    table["GET", stylesheet[1]] = {"console", "portal", "status"}
    assert len(table) > 70
    for group, port in parted.ports.items():
        with closing(Asking(port)) as listener:
            for (method, path), groups in table.items():
                at = path.format(**SOMETHING)
                answer, unknown = listener(method, at), known(listener("LOCK", at))
                assert (known(answer) != unknown) == (group in groups), (group, method, path, answer)
                assert group in groups or answer.status == find_status(table, group, path), (
                    group,
                    method,
                    path,
                    answer,
                )


def test_openapi_of_a_listener_has_only_its_endpoints_and_roles(parted: Parted) -> None:
    ports = (parted.port, parted.ports["customers"], parted.ports["api"])
    whole, own, api = (ask(port, "/v1/openapi.json").json()["paths"] for port in ports)
    assert {"/v1/batches", "/v1/audit", "/billing/webhooks/stripe"} <= whole.keys()
    assert {"/v1/batches", "/v1/audit", "/billing/webhooks/stripe"} & own.keys() == set()
    assert own["/v1/customers/{customer}/keys"].keys() == {"get", "post"}
    assert own["/v1/customers/{customer}/keys"]["post"]["x-roles"] == ["customer"]
    assert api["/v1/customers/{customer}/keys"]["post"]["x-roles"] == ["admin"]
    assert api.keys() & {"/v1/batches", "/v1/directory"} == set()


def test_admin_token_is_denied_and_audited_at_a_customer_listener(tmp_path: Path) -> None:
    with closing(Parted(tmp_path)) as collector:
        collector.start()
        public = collector.ports["customers"]
        denied = collector.metric("collector_denied_total")
        for token, status in (("admin", 403), ("customer", 200)):
            fields = {"Authorization": f"Bearer {token}"}
            assert ask(public, "/v1/customers", fields=fields).status == status
        assert collector.metric("collector_denied_total") == denied + 1
        collector.end()
        collector.start()
        (entry,) = collector.get("/v1/audit", token="admin", action="denied").json()["entries"]
        assert (entry["actor"], entry["target"]) == ("the-admin", "GET /v1/customers")
        assert entry["after"]["why"].endswith("here: this listener does not serve api")


def test_operators_and_customers_sign_in_at_their_own_listeners(parted: Parted) -> None:
    until(lambda: LINK.search(parted.output) is not None, "the link is printed")
    link = LINK.findall(parted.output)[0]
    secret = link.partition("/sign-in")[2]
    console, portal = (f"http://{HOST}:{parted.ports[group]}" for group in ("console", "portal"))
    with Visitor(console) as operator, Visitor(portal) as thief:
        thief.get(f"{portal}/sign-in{secret}")
        thief.send("/sign-in/link")
        assert thief.status == 403, "an operator's link begins no session where the console is not"
        operator.get(f"{console}/sign-in{secret}")
        operator.send("/sign-in/link")
        assert (operator.status, operator.answer.url.path) == (200, "/console")
        operator.get("/console/new-customer")
        operator.send("/console/customers", name="carol", tier="basic")
        assert operator.status == 200, "the console changes things where no API is served"
        assert not [link for link in operator.read.links if link == "/status"]
        # Cookies are shared between ports: the browser sends the session, but the portal has no operator pages.
        thief.client.cookies = operator.client.cookies
        assert "carol" not in thief.get("/console/customers").text
        assert thief.status == 404
        assert (thief.get("/").text, thief.answer.url.path)[1] == "/sign-in"
        assert thief.get("/account").text
        assert thief.status == 403
    assert "Operators" not in ask(parted.ports["portal"], "/sign-in").body.decode()
    assert "Operators" in ask(parted.ports["console"], "/sign-in").body.decode()


ELSEWHERE, PROXY = "127.0.0.2", "127.0.0.3"


def test_listener_rejects_other_networks_and_trusts_its_proxies(tmp_path: Path) -> None:
    with closing(Ports(2)) as ports:
        inner, near = ports.numbers
        own = {"address": f"{HOST}:{inner}", "serve": ["api"], "allow": [ELSEWHERE]}
        with_proxy = {"address": f"{HOST}:{near}", "serve": ["api"], "allow": [ELSEWHERE, PROXY]}
        with closing(opened(tmp_path, own, with_proxy, trusted_proxies=[PROXY])) as collector:

            def ask_from(source: str, path: str = "/v1/edges", client: str | None = None, port: int = inner) -> Answer:
                fields = {"Authorization": f"Bearer {READ}"} | ({"X-Forwarded-For": client} if client else {})
                return ask(port, path, source=source, fields=fields)

            assert ask_from(ELSEWHERE).status == 200
            for client in (None, ELSEWHERE):
                with pytest.raises(OSError, match=r"(?i)closed|reset|aborted|Remote end"):
                    ask_from(HOST, client=client)
            assert ask_from(PROXY, client=ELSEWHERE).status == 200
            for client in (None, "198.51.100.7", f"{ELSEWHERE}, 198.51.100.7", "nonsense"):
                for path in ("/v1/edges", "/nowhere"):
                    answer = ask_from(PROXY, path, client)
                    assert (answer.status, b"this listener is not for" in answer.body) == (403, True), answer
                assert ask_from(PROXY, "/healthz", client).status == 200
            # An allowed proxy does not pass on clients that it names in an invalid form or not at all.
            for client in ("198.51.100.7:4711", "[2001:db8::1]:443", "nonsense", "unknown", "198.51.100.7,"):
                assert ask_from(PROXY, client=client, port=near).status == 403, client
            for client in (None, ELSEWHERE, f"{ELSEWHERE}:4711", f"[::ffff:{ELSEWHERE}]:443"):
                assert ask_from(PROXY, client=client, port=near).status == 200, client
            assert collector.get("/v1/edges").status == 200, "the other listener is for everybody"
            assert "connections refused: the listener is not for this address" in collector.output


def test_full_listener_does_not_block_another_listener(tmp_path: Path) -> None:
    head = f"POST /v1/customers/bound/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OWN}\r\n"
    with closing(Ports(1)) as ports, ExitStack() as held:
        (public,) = ports.numbers
        own = {"address": f"{HOST}:{public}", "serve": ["customers"]}
        with closing(opened(tmp_path, own)) as collector:
            # An address may have this many connections. Each waits for a body, so none is closed for others.
            for _ in range(500):
                one = held.enter_context(socket.create_connection((HOST, public), timeout=PATIENCE))
                one.sendall(f"{head}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
                assert one.recv(100).startswith(b"HTTP/1.1 100")
            assert collector.get("/v1/edges").status == 200


def test_each_listener_has_its_own_tls(tmp_path: Path) -> None:
    with closing(Ports(2)) as ports, closing(Secured(tmp_path)) as collector:
        plain, other = ports.numbers
        shown = collector.authority.issue("other.test", HOST)
        collector.settings["listen"] = [
            collector.settings["listen"],
            {"address": f"{HOST}:{plain}", "serve": ["metrics"], "tls": "off"},
            {"address": f"{HOST}:{other}", "serve": ["edges"], "tls": {"cert": str(shown.cert), "key": str(shown.key)}},
        ]
        collector.start()
        assert ask(plain, "/metrics").status == 200
        assert collector.ship(Chain().next(), collector.context()).status == 403, "no certificate is shown"
        collector.port, first = other, collector.port
        assert collector.ship(Chain().next(), collector.context(), "other.test").status == 200
        with pytest.raises(OSError, match="Hostname mismatch"):
            collector.ship(Chain().next(), collector.context(), NAME)
        collector.port = first
        expiries = re.findall(
            r"^collector_tls_expiry_seconds{(.*)}", ask(plain, "/metrics").body.decode(), re.MULTILINE
        )
        assert len(expiries) == 2
