"""`edgeproxy customers`, `keys`, `tokens`, `import` and `export`, against a collector that runs."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.config.key_form import REGEX
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, READ, SERVICE, Collector
from loadtest.testbed.fork_server import COMMAND
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until


def edgeproxy(collector: Collector, *arguments: str, token: str = ADMIN, given: str = "") -> tuple[int, str, str]:
    """Run a command. Return its exit code, stdout and stderr."""
    environ = {"EDGEPROXY_COLLECTOR": f"http://127.0.0.1:{collector.port}", "EDGEPROXY_TOKEN": token}
    done = CliRunner().invoke(cli.app, arguments, given, environ)
    return done.exit_code, done.stdout, done.stderr


def test_customer_and_key_commands_cover_the_life_of_a_key(sqlite_collector: Collector) -> None:
    code, shown, said = edgeproxy(
        sqlite_collector, "customers", "add", "cli", "--tier", "basic", "--set", 'metadata={"a": "b"}'
    )
    assert (code, said) == (0, "")
    assert re.search(r"^state +active$", shown, re.MULTILINE)
    named = ("--name", "server", "--scope", "read", "--rate", "10/s", "--rate", "500/h")
    code, secret, said = edgeproxy(sqlite_collector, "keys", "add", "cli", *named)
    assert code == 0
    assert re.fullmatch(REGEX + "\n", secret)
    listed = json.loads(edgeproxy(sqlite_collector, "keys", "ls", "cli", "--json")[1])
    assert [(load["name"], load["scopes"], load["state"]) for load in listed] == [("server", ["read"], "active")]
    assert [limit["rate"] for limit in listed[0]["limits"]] == ["10/s", "500/h"]
    assert listed[0]["usage_key"] == hashlib.sha256(secret.strip().encode()).hexdigest()[:16]
    assert "leaked" not in said
    assert edgeproxy(sqlite_collector, "keys", "leaked", given=secret)[0] == 0
    code, lines, _ = edgeproxy(sqlite_collector, "keys", "ls", "cli")
    assert lines.splitlines()[0].startswith("START")
    assert " revoked " in lines
    code, shown, _ = edgeproxy(sqlite_collector, "keys", "restore", listed[0]["id"])
    assert (code, "active" in shown) == (0, True)
    assert json.loads(edgeproxy(sqlite_collector, "keys", "ls", "cli", "--due", "--json")[1]) == []
    assert edgeproxy(sqlite_collector, "customers", "change", "cli", "--set", "rotate_every=0s")[0] == 0
    (due,) = json.loads(edgeproxy(sqlite_collector, "keys", "ls", "cli", "--due", "--json")[1])
    assert (due["id"], due["state"], due["rotate_by"]) == (listed[0]["id"], "due", due["created_at"])
    assert edgeproxy(sqlite_collector, "keys", "rotate", due["id"])[0] == 0
    assert json.loads(edgeproxy(sqlite_collector, "keys", "ls", "cli", "--json")[1])[0]["state"] == "rotating"
    assert edgeproxy(sqlite_collector, "keys", "leaked", given="\n")[0] == 2
    assert edgeproxy(sqlite_collector, "customers", "pause", "cli", "--why", "unpaid", "--unpaid")[0] == 0
    assert "paused" in edgeproxy(sqlite_collector, "customers", "ls", "--tier", "basic")[1]


def test_a_key_has_a_budget(sqlite_collector: Collector) -> None:
    assert edgeproxy(sqlite_collector, "customers", "add", "spender", "--tier", "basic")[0] == 0
    limited = ("keys", "add", "spender", "--budget", "100 keyed/day")
    assert edgeproxy(sqlite_collector, *limited)[0] == 0
    (spent,) = json.loads(edgeproxy(sqlite_collector, "keys", "budgets", "spender", "--json")[1])
    assert [spent[what] for what in ("amount", "meter", "per", "used")] == [100, "keyed", "day", 0]
    shown = edgeproxy(sqlite_collector, "keys", "budget", spent["key"], "none", "--json")[1]
    assert json.loads(shown)["budget"] is None
    code, _, why = edgeproxy(sqlite_collector, *limited[:4], "50/month")
    assert (code, "'50/month' is no budget, $50/month, 50 eur/month or" in why) == (1, True), why
    assert "the customer has no plan" in edgeproxy(sqlite_collector, *limited[:4], "$50/month")[2]


def test_keys_command_finds_a_key_by_secret_hash_or_prefix(sqlite_collector: Collector) -> None:
    assert edgeproxy(sqlite_collector, "customers", "add", "finder", "--tier", "basic")[0] == 0
    created = json.loads(edgeproxy(sqlite_collector, "keys", "add", "finder", "--json")[1])
    secret = created["secret"]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for ref in (created["id"], secret, digest, digest.upper(), created["start"], secret[:-1]):
        code, shown, why = edgeproxy(sqlite_collector, "keys", "show", ref, "--json")
        assert (code, json.loads(shown)["id"]) == (0, created["id"]), why
    for ref in ("edge_v1_zzzzzz", "nothing", "f" * 64):
        assert edgeproxy(sqlite_collector, "keys", "show", ref)[::2] == (1, "there is no such key [key-not-found]\n")
    assert edgeproxy(sqlite_collector, "keys", "revoke", secret)[0] == 0
    assert sqlite_collector.get(f"/v1/keys/{digest}").json()["state"] == "revoked"


def test_token_commands_cover_the_life_of_a_token(sqlite_collector: Collector) -> None:
    bound = ("--role", "edge", "--edge", "cli-edge", "--region", "eu", "--expires", "2099-01-01")
    code, first, said = edgeproxy(sqlite_collector, "tokens", "add", "cli-edges", *bound)
    assert (code, said) == (0, "cli-edges, whose secret is shown only now:\n")
    assert re.fullmatch(REGEX + "\n", first)
    code, listed, _ = edgeproxy(sqlite_collector, "tokens", "ls")
    (row,) = [line.split() for line in listed.splitlines() if line.startswith("cli-edges")]
    assert (code, row[:6], row[-1]) == (0, ["cli-edges", "edge", "-", "cli-edge", "eu", "1"], "api")
    assert row[6].startswith("2099-01-01")
    assert first.strip() not in listed
    code, second, _ = edgeproxy(sqlite_collector, "tokens", "rotate", "cli-edges", "--overlap", "0s", "--json")
    assert (code, json.loads(second)["secrets"]) == (0, 1)
    batch = Chain("cli-edge", "eu").next()
    assert sqlite_collector.post(batch, token=first.strip()).status == 401
    assert sqlite_collector.post(batch, token=json.loads(second)["secret"]).status == 200
    assert edgeproxy(sqlite_collector, "tokens", "revoke", "cli-edges") == (0, "cli-edges is revoked\n", "")
    assert sqlite_collector.post(batch, token=json.loads(second)["secret"]).status == 401
    assert edgeproxy(sqlite_collector, "tokens", "revoke", "cli-edges")[::2] == (
        1,
        "there is no such token [token-not-found]\n",
    )
    own = edgeproxy(sqlite_collector, "tokens", "add", "cli-own", "--customer", "acme")[1].strip()
    assert sqlite_collector.get("/v1/usage", token=own, customer="bolt").status == 403
    code, _, said = edgeproxy(sqlite_collector, "tokens", "add", "cli-none")
    assert (code, "write a role, or a customer instead" in said) == (1, True)
    assert "may not GET /v1/tokens" in edgeproxy(sqlite_collector, "tokens", "ls", token=READ)[2]


def test_the_jobs_of_a_collector_are_listed_with_their_locks_and_last_runs(sqlite_collector: Collector) -> None:
    def list_jobs() -> dict[str, dict[str, object]]:
        return {row["name"]: row for row in json.loads(edgeproxy(sqlite_collector, "jobs", "ls", "--json")[1])}

    until(lambda: {"maintenance", "anomalies"} <= {name for name, row in list_jobs().items() if row["result"]}, "ran")
    jobs = list_jobs()
    assert (jobs["anomalies"]["lock"], jobs["maintenance"]["lock"]) == ("anomalies", None)
    assert {(row["result"], row["succeeded_at"] is None) for row in jobs.values() if row["result"]} == {
        ("succeeded", False)
    }
    assert jobs["maintenance"]["period_s"] == 10.0
    code, lines, _ = edgeproxy(sqlite_collector, "jobs", "ls", token=READ)
    assert (code, lines.split()[:2]) == (0, ["NAME", "RESULT"])
    assert sqlite_collector.get("/v1/jobs", token=SERVICE).status == 403


def test_command_prints_why_the_collector_refuses(sqlite_collector: Collector) -> None:
    code, _, said = edgeproxy(sqlite_collector, "customers", "add", "x y", "--tier", "basik")
    assert code == 1
    assert "name: 'x y' is not a name" in said
    unknown = edgeproxy(sqlite_collector, "customers", "show", "nobody")[2]
    assert unknown == "there is no such customer [customer-not-found]\n"
    assert "may not POST /v1/customers" in edgeproxy(
        sqlite_collector, "customers", "add", "x", "--tier", "basic", token=READ
    )[2]  # fmt: skip
    assert edgeproxy(sqlite_collector, "customers", "ls", token="")[0] == 2


def test_import_and_export_by_command(sqlite_collector: Collector) -> None:
    file = str(sqlite_collector.file)
    code, output, _ = edgeproxy(sqlite_collector, "import", "-c", file, "--dry-run")
    assert code == 0
    assert "nothing was changed" in output
    assert edgeproxy(sqlite_collector, "import", "-c", file)[0] == 0
    assert "customers: 0 new, 0 changed, 3 as they were" in edgeproxy(sqlite_collector, "import", "-c", file)[1]
    code, written, _ = edgeproxy(sqlite_collector, "export", "-c", file)
    assert code == 0
    assert yaml.safe_load(written)["customers"]["acme"] == {"tier": "basic"}


def test_a_command_waits_for_a_collector_that_was_just_started(tmp_path: Path) -> None:
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"customers": [], "next": null}')

    with HTTPServer(("127.0.0.1", 0), Answering, bind_and_activate=False) as server:
        server.server_bind()  # Nobody listens there yet.
        given = {"EDGEPROXY_COLLECTOR": f"http://127.0.0.1:{server.server_port}", "EDGEPROXY_TOKEN": "t"}
        asking = Process([*COMMAND, "customers", "ls", "--json"], tmp_path / "log", environ=given)
        until(lambda: "waiting" in asking.output, "the command waits")
        server.server_activate()
        server.timeout = 60
        server.handle_request()
        assert asking.wait(60.0) == 0
        assert asking.output.endswith("[]\n")
