"""A command moves a customer between two residencies. After any interruption each object exists exactly once."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import orjson
import pytest
import typer
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.cli import api, residency
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.commands.database import run_on_database
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.privacy.erasure import erase_due_customers
from edgeproxy.config.collector.load import load_collector
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, Collector, checked
from loadtest.testbed.customers import key_of
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from tests.support.byte_search import search_files

CALLS_MAX = 40
"""Maximum number of API calls of a move."""
TOKENS = {"EDGEPROXY_FROM_TOKEN": ADMIN, "EDGEPROXY_TO_TOKEN": ADMIN}
TOLD = {"external_id": "crm-7", "metadata": {"note": "likes tea"}, "limits": [{"rate": "7/min"}]}


class CutOffError(Exception):
    """Ends the command at this point, as a kill does."""


class Pair:
    """The collectors of two residencies, and the move command between them."""

    def __init__(self, collectors: dict[str, Collector]) -> None:
        self.collectors = collectors

    def create(self, name: str, residency: str = "eu", **more: Any) -> str:
        """Create a customer with a key and contacts, and return its id."""
        collector = self.collectors[residency]
        body = {"name": name, "tier": "standard", **TOLD, "external_id": f"crm-{name}", **more}
        created = collector.send("POST", "/v1/customers", body)
        assert created.status == 201, created.body
        limits = [{"rate": "5/s"}]
        key = {"sha256": digest(name), "name": "laptop", "scopes": ["read"], "limits": limits}
        assert collector.send("POST", f"/v1/customers/{name}/keys", key).status == 201
        contacts = {"emails": [f"ann@{name}.example", f"ben@{name}.example"]}
        assert collector.send("PUT", f"/v1/customers/{name}/contacts", contacts).status == 200
        developer = {"email": f"ben@{name}.example", "role": "developer"}
        assert collector.send("POST", f"/v1/customers/{name}/contacts", developer).status == 200
        return str(created.json()["id"])

    def move(self, name: str, *options: str, source: str = "eu", target: str = "us") -> Result:
        """Run the command."""
        return CliRunner().invoke(cli.app, [*self.arguments(name, source, target), *options], env=TOKENS)

    def arguments(self, name: str, source: str = "eu", target: str = "us") -> list[str]:
        """Return the arguments of the command."""
        urls = {residency: f"http://{HOST}:{collector.port}" for residency, collector in self.collectors.items()}
        return ["residency", "move", name, "--from", urls[source], "--to", urls[target], "--quiet", "0", "--wait", "9"]

    def fetch(self, residency: str, name: str, what: str = "") -> Any:
        answer = self.collectors[residency].get(f"/v1/customers/{name}{what}", token=ADMIN)
        return answer.json() if answer.status == 200 else None

    def give(self, name: str, millicredits: int, residency: str = "eu", **more: Any) -> None:
        """Give credits to a customer."""
        body = {"customer": name, "millicredits": millicredits, "why": "a test", **more}
        answer = self.collectors[residency].send("POST", "/billing/credits/adjust", body)
        assert answer.status == 201, answer.body

    def balance(self, residency: str, name: str) -> int:
        answer = self.collectors[residency].get("/billing/balance", token=ADMIN, customer=name)
        return int(answer.json()["balance"])

    def prove(self) -> None:
        """Prove both ledgers, journals and audit logs."""
        for collector in self.collectors.values():
            code, output = checked(collector)
            assert code == 0, output


def digest(name: str) -> str:
    return hashlib.sha256(key_of(name).encode()).hexdigest()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("residencies")
    databases = {"eu": postgresql.database(), "us": f"sqlite:///{folder}/us/ledger.db"}
    with ExitStack() as ends:
        collectors = {
            name: ends.enter_context(
                closing(
                    Collector(folder / name, database, residency=name, privacy={"pseudonyms": "true"}, customers={})
                )
            ).start()
            for name, database in databases.items()
        }
        yield Pair(collectors)


def require_moved(pair: Pair, name: str, source: str = "eu", target: str = "us") -> None:
    """Assert that all data of a customer is at the target once, and that the source is deleting the customer."""
    there, here = pair.fetch(target, name), pair.fetch(source, name)
    assert (there["state"], here["state"], here["moved"]) == ("active", "deleting", target)
    assert "moved" not in there
    for field in ("tier", "metadata", "limits", "external_id", "rotate_every"):
        assert there[field] == here[field], field
    (key,) = pair.fetch(target, name, "/keys")["keys"]
    assert (key["usage_key"], key["name"], key["scopes"]) == (digest(name)[:16], "laptop", ["read"])
    assert key["limits"][0]["rate"] == "5/s"
    contacts = pair.fetch(target, name, "/contacts")["contacts"]
    assert [(contact["email"], contact["role"]) for contact in contacts] == [
        (f"ann@{name}.example", "owner"),
        (f"ben@{name}.example", "developer"),
    ]


def test_dry_run_lists_the_data_to_move_and_changes_nothing(pair: Pair) -> None:
    pair.create("dora")
    pair.give("dora", 5000)
    done = pair.move("dora", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    body = orjson.loads(done.output)
    assert (body["to"], body["keys"], body["contacts"], body["millicredits"]) == ("us", 1, 2, 5000)
    assert body["obstacles"] == []
    assert pair.fetch("us", "dora") is None
    assert pair.fetch("eu", "dora")["state"] == "active"
    assert not any(move["customer_id"] == pair.fetch("eu", "dora")["id"] for move in list_moves(pair, "eu"))


def list_moves(pair: Pair, residency: str) -> list[dict[str, Any]]:
    moves: list[dict[str, Any]] = pair.collectors[residency].get("/v1/moves", token=ADMIN).json()["moves"]
    return moves


def test_move_with_a_name_conflict_is_refused_before_any_change(pair: Pair) -> None:
    pair.create("nora")
    pair.create("nora", "us")
    done = pair.move("nora")
    assert done.exit_code == 1
    assert "there is a customer with this name already" in done.output
    assert pair.fetch("eu", "nora")["state"] == "active"
    assert "moved" not in pair.fetch("eu", "nora")


def test_open_request_or_plan_blocks_a_move(pair: Pair) -> None:
    id_ = pair.create("olga")
    request = {"kind": "access", "law": "gdpr", "person": "Olga", "note": "By mail.", "customer": id_}
    assert pair.collectors["eu"].send("POST", "/v1/privacy/requests", request).status == 201
    plan = pair.collectors["eu"].send("POST", "/billing/subscription?customer=olga", {"plan": "standard"})
    done = pair.move("olga")
    assert done.exit_code == 1
    assert "a request of a person about this customer is open" in done.output
    if plan.status == 201:
        assert "its plan" in done.output
    assert pair.fetch("us", "olga") is None


def test_customer_moves_with_its_keys_contacts_and_credits(pair: Pair) -> None:
    pair.create("mia")
    pair.give("mia", 7000)
    pair.give("mia", 2000, expires_at="2099-01-01T00:00:00Z")
    done = pair.move("mia")
    assert done.exit_code == 0, done.output
    assert "mia" not in done.output.replace("residency", "")
    require_moved(pair, "mia")
    assert (pair.balance("eu", "mia"), pair.balance("us", "mia")) == (0, 9000)
    # Keys can be changed at the target only: a revocation at the source would have no effect.
    (key,) = pair.fetch("eu", "mia", "/keys")["keys"]
    answer = pair.collectors["eu"].send("DELETE", f"/v1/keys/{key['id']}")
    assert answer.status == 409
    again = pair.move("mia")
    assert again.exit_code == 0, again.output
    assert pair.balance("us", "mia") == 9000
    pair.prove()


def cut_off_after(count: int) -> Callable[..., Any]:
    """Return a replacement for `Api.call` that ends the command after `count` answered calls."""
    call, left = api.Api.call, count

    def counted(self: api.Api, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        answer = call(self, *arguments, **options)
        if "ref" in (options.get("query") or {}):
            return answer  # The lookup of the customer is not a step of the move.
        left -= 1
        if left == 0:
            raise CutOffError
        return answer

    return counted


def cut_and_go_on(pair: Pair, count: int) -> bool:
    """Cut a move off after `count` calls, then run it again. Return False if the first run was already complete."""
    name = f"cut-{count}"
    pair.create(name)
    pair.give(name, 4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Api, "call", cut_off_after(count))
        first = pair.move(name)
    if first.exit_code == 0:
        return False
    assert isinstance(first.exception, CutOffError), first.output
    done = pair.move(name)
    assert done.exit_code == 0, done.output
    require_moved(pair, name)
    assert (pair.balance("eu", name), pair.balance("us", name)) == (0, 4000)
    ids = [pair.fetch("eu", name)["id"], pair.fetch("us", name)["id"]]
    assert [move["peer"] for move in list_moves(pair, "us") if move["customer_id"] == ids[1]] == ids[:1]
    return True


def test_interrupted_move_can_be_continued(pair: Pair) -> None:
    """The cuts follow the creation at the target, the booking of credits there, and the switch of the edges."""
    for count in (6, 9, 10):
        assert cut_and_go_on(pair, count)
    pair.prove()


@pytest.mark.soak
def test_move_interrupted_after_any_call_can_be_continued(pair: Pair) -> None:
    counts = next(count for count in range(11, CALLS_MAX) if not cut_and_go_on(pair, count))
    assert counts > 12
    assert all(cut_and_go_on(pair, count) for count in (1, 2, 3, 4, 5, 7, 8))
    pair.prove()


def test_late_credit_usage_is_moved_before_the_erasure(pair: Pair) -> None:
    pseudonym = f"c-{pair.create('lea')}"
    chain = Chain(since=int(time.time()) - 60)
    assert pair.collectors["eu"].post(chain.next((pseudonym, "cost", "v1", 300))).status == 200
    pair.give("lea", 1000)
    done = pair.move("lea", "--wait", "0")
    assert done.exit_code == 1
    assert f"edges that were not heard of since: {chain.edge}" in done.output
    assert pair.fetch("eu", "lea")["state"] == "active"
    chain.since = int(time.time()) + 5
    assert pair.collectors["eu"].post(chain.next((pseudonym, "requests", "v1", 1))).status == 200
    done = pair.move("lea")
    assert done.exit_code == 0, done.output
    before = (pair.balance("eu", "lea"), pair.balance("us", "lea"))
    assert sum(before) == 1000
    # An edge that was offline ships its usage to the old residency.
    assert pair.collectors["eu"].post(chain.next((pseudonym, "requests", "v1", 5))).status == 200
    done = pair.move("lea", "--json")
    assert "late usage, which came here after the move: 5 requests" in done.output
    # An operator adds credits at the old residency: the customer is not erased there until they are moved.
    pair.give("lea", 250)
    assert erase(pair, "eu", pseudonym) is False
    assert pair.move("lea").exit_code == 0
    assert (pair.balance("eu", "lea"), pair.balance("us", "lea")) == (before[0], before[1] + 250)
    assert erase(pair, "eu", pseudonym) is (before[0] == 0)
    retired = pair.collectors["eu"].send("PATCH", f"/v1/edges/{chain.edge}", {"retired": True})
    assert retired.status == 200, retired.body
    pair.prove()


def test_move_fails_until_each_edge_reaches_the_other_residency(pair: Pair) -> None:
    pair.create("kim")
    chain = Chain(since=int(time.time()) - 600)
    for since in (chain.since, int(time.time()) - 5):  # Long ago, and recently but before the edges switch.
        chain.since = since
        assert pair.collectors["us"].post(chain.next(("other", "requests", "v1", 1))).status == 200
        done = pair.move("kim", "--wait", "0")
        assert (done.exit_code, chain.edge in done.output) == (1, True), done.output
        assert pair.fetch("eu", "kim")["state"] == "active"
    chain.since = int(time.time()) + 5
    assert pair.collectors["us"].post(chain.next(("other", "requests", "v1", 1))).status == 200
    done = pair.move("kim")
    assert done.exit_code == 0, done.output
    assert pair.collectors["us"].send("PATCH", f"/v1/edges/{chain.edge}", {"retired": True}).status == 200


def erase(pair: Pair, residency: str, pseudonym: str) -> bool:
    """Erase customers that are due. Return whether this customer was among them."""
    names: list[str] = []

    async def do(database: Database) -> str:
        names.extend(customer.name for customer in await erase_due_customers(database, now_ms() + 1))
        return ""

    code, output = run_on_database(load_collector(pair.collectors[residency].file, os.environ), do)
    assert code == 0, output
    return pseudonym in names


def test_customer_keeps_its_id_after_moving_back(pair: Pair) -> None:
    id_ = pair.create("rita")
    pair.give("rita", 600)
    assert pair.move("rita").exit_code == 0
    assert pair.collectors["us"].patch("/v1/customers/rita", b'{"metadata": {"note": "moved"}}').status == 200
    back = pair.move("rita", source="us", target="eu")
    assert back.exit_code == 0, back.output
    require_moved(pair, "rita", "us", "eu")
    assert pair.fetch("eu", "rita")["id"] == id_
    assert (pair.balance("eu", "rita"), pair.balance("us", "rita")) == (600, 0)
    # A key revoked at the target stays revoked after the return, and the customer can move again.
    (key,) = pair.fetch("eu", "rita", "/keys")["keys"]
    assert pair.collectors["eu"].send("DELETE", f"/v1/keys/{key['id']}").status == 200
    again = pair.move("rita")
    assert again.exit_code == 0, again.output
    assert [key["state"] for key in pair.fetch("us", "rita", "/keys")["keys"]] == []
    pair.prove()


def test_moving_back_does_not_duplicate_credits(pair: Pair) -> None:
    pair.create("vera")
    assert pair.move("vera").exit_code == 0
    pair.give("vera", 250)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Api, "call", cut_off_after(6))
        assert isinstance(pair.move("vera").exception, CutOffError)
    assert (pair.balance("eu", "vera"), pair.balance("us", "vera")) == (250, 250)
    back = pair.move("vera", source="us", target="eu")
    assert (back.exit_code, "are not booked here" in back.output) == (1, True), back.output
    for source, target in (("eu", "us"), ("us", "eu")):
        done = pair.move("vera", source=source, target=target)
        assert done.exit_code == 0, done.output
    assert (pair.balance("eu", "vera"), pair.balance("us", "vera")) == (250, 0)


def run_at_once(runs: list[tuple[Pair, str, str, str]]) -> list[int]:
    """Run several moves concurrently. Return the exit code of each."""

    def run(one: tuple[Pair, str, str, str]) -> int:
        pair, name, *urls = one
        try:
            residency.move(name, *(f"http://{HOST}:{pair.collectors[side].port}" for side in urls), quiet=0.0, wait=9.0)
        except typer.Exit as error:
            return error.exit_code
        return 0

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(run, runs))


def test_target_of_an_earlier_version_is_refused_before_any_change(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier version answers as any collector does to an unknown path."""
    pair.create("ulf")
    call = api.Api.call

    def call_earlier(self: api.Api, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        return call(self, method, path.replace("/v1/moves", "/v1/unheard-of"), *arguments, **options)

    monkeypatch.setattr(api.Api, "call", call_earlier)
    done = pair.move("ulf")
    assert (done.exit_code, "is of an earlier version" in done.output) == (1, True), done.output
    assert "moved" not in pair.fetch("eu", "ulf")
    assert pair.fetch("us", "ulf") is None


def test_simultaneous_opposite_moves_leave_one_customer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.create("ole")
    pair.give("ole", 800)
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    assert pair.move("ole").exit_code == 0
    back, again = run_at_once([(pair, "ole", "us", "eu"), (pair, "ole", "eu", "us")])
    assert back == 0, "the one that has begun anew; the other one has nothing to do, or an obstacle"
    assert again in (0, 1)
    require_moved(pair, "ole", "us", "eu")
    assert (pair.balance("eu", "ole"), pair.balance("us", "ole")) == (800, 0)
    pair.prove()


def test_simultaneous_equal_moves_act_as_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.create("tom")
    pair.give("tom", 900)
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    assert 0 in run_at_once([(pair, "tom", "eu", "us")] * 2)
    assert pair.move("tom").exit_code == 0
    require_moved(pair, "tom")
    assert (pair.balance("eu", "tom"), pair.balance("us", "tom")) == (0, 900)
    pair.prove()


def test_move_can_be_withdrawn_before_edges_switch_and_restarted(pair: Pair) -> None:
    pair.create("wim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Api, "call", cut_off_after(8))
        pair.move("wim")
    assert [move["state"] for move in list_moves(pair, "eu")][:1] == ["created"]
    done = pair.move("wim", "--withdraw")
    assert done.exit_code == 0, done.output
    assert "moved" not in pair.fetch("eu", "wim")
    assert pair.fetch("us", "wim") is None, "the customer never existed in that region"
    assert pair.move("wim", "--withdraw").exit_code == 0, "once more changes nothing"
    assert pair.move("wim").exit_code == 0
    require_moved(pair, "wim")
    assert pair.move("wim", "--withdraw").exit_code == 1


def test_customer_cannot_be_deleted_during_a_move(pair: Pair) -> None:
    pair.create("eva")
    for count in (8, 5):  # Up to the creation at the target, and up to the switch of the edges.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api.Api, "call", cut_off_after(count))
            assert isinstance(pair.move("eva").exception, CutOffError)
        refused = pair.collectors["eu"].send("DELETE", "/v1/customers/eva")
        assert refused.status == 409, refused.body
        assert refused.json()["detail"].startswith("the customer is on its way to us: end that move")
    assert [move["state"] for move in list_moves(pair, "eu")][:1] == ["gone"]
    assert pair.move("eva").exit_code == 0
    require_moved(pair, "eva")
    assert pair.collectors["us"].send("DELETE", "/v1/customers/eva").status == 202


def test_withdrawn_arrival_leaves_no_personal_data(pair: Pair) -> None:
    """This holds if the command died before it knew of the arrival, and if one of its calls comes late."""
    pair.create("planted-100", metadata={"note": "the one of planted-100"})
    late: list[tuple[Any, ...]] = []

    def keep_arrival(self: api.Api, method: str, path: str, body: object = None, **options: Any) -> Any:
        answer = call(self, method, path, body, **options)
        if method == "PUT" and options.get("dry_run") is None:
            late.append((method, path, body))
            raise CutOffError
        return answer

    call = api.Api.call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Api, "call", keep_arrival)
        assert isinstance(pair.move("planted-100").exception, CutOffError)
    target = pair.collectors["us"]
    folder = target.file.parent
    assert pair.fetch("us", "planted-100")["external_id"] == "crm-planted-100"
    assert pair.move("planted-100", "--withdraw").exit_code == 0
    ((method, path, body),) = late
    refused = target.send(method, path, body)
    assert (refused.status, refused.json()["detail"]) == (409, "the move is withdrawn")
    target.end()  # Which empties the write-ahead log.
    found = search_files(folder)
    assert found.get("planted-100") is None
    target.start()
    pair.prove()


def test_late_call_of_a_withdrawn_move_creates_no_customer(pair: Pair) -> None:
    """The command is killed while its first call waits, so the other collector does not know the move."""
    pair.create("finn")
    late: list[tuple[Any, ...]] = []

    def lose_arrival(self: api.Api, method: str, path: str, body: object = None, **options: Any) -> Any:
        if method == "PUT" and options.get("dry_run") is None:
            late.append((method, path, body))
            raise CutOffError
        return call(self, method, path, body, **options)

    call = api.Api.call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Api, "call", lose_arrival)
        assert isinstance(pair.move("finn").exception, CutOffError)
    assert pair.move("finn", "--withdraw").exit_code == 0
    ((method, path, body),) = late
    refused = pair.collectors["us"].send(method, path, body)
    assert (refused.status, refused.json()["detail"]) == (409, "the move is withdrawn")
    assert pair.fetch("us", "finn") is None
    assert pair.move("finn").exit_code == 0, "another move is another one"
    require_moved(pair, "finn")
