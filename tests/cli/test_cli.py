"""The commands: their output and their exit codes."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from edgeproxy import __version__, cli
from edgeproxy.base.build import describe_build
from edgeproxy.cli import running
from edgeproxy.cli.commands import GROUPS
from edgeproxy.collector.quotas import access
from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.key_form import REGEX
from loadtest.testbed.authority import Authority
from loadtest.testbed.edge import Edge
from loadtest.testbed.fork_server import COMMAND
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "config" / "edge.yaml")
SERVED = "upstreams: {api: {endpoints: [http://127.0.0.1:1]}}\nroutes: [{path: /*, upstream: api}]\n"
"""The rest of an edge's configuration."""
IN_CLEAR = "can be read by all on the way: write"
TRUST = {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="}
"""The environment that a user must set."""


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    """Run a command in this process, with TRUST and `environ` as its environment."""
    clean: dict[str, str | None] = dict.fromkeys(("EDGE_LISTEN", "EDGE_ADMIN", "EDGE_STATE", "API_URL"))
    return CliRunner().invoke(cli.app, arguments, env={**clean, **TRUST, **(environ or {})})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EdgeSettings, Path | None]]:
    """Record the settings to serve, instead of serving. The supervisor returns 7 at once."""
    calls: list[tuple[EdgeSettings, Path | None]] = []

    def serve(
        take_settings: Callable[[], EdgeSettings],
        path: Path | None,
        *,
        watched: Mapping[str, object] | None = None,
        template: object = None,
    ) -> int:
        settings = take_settings()
        assert path is not None or settings.state.is_dir()
        assert watched is None or [*watched] == [str(path)]
        calls.append((settings, path))
        return 7 if watched is None else 8

    monkeypatch.setattr("edgeproxy.edge.supervisor.main.run", serve)
    return calls


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A configuration with two problems."""
    path = tmp_path / "edge.yaml"
    path.write_text("drain: 5\nroutes: []\nupstreams: {api: {endpoints: [http://127.0.0.1:1]}}\n")
    return str(path)


def test_check_prints_ok_and_a_summary() -> None:
    result = run("check", "-c", EXAMPLE)
    assert result.exit_code == 0
    assert re.fullmatch(
        r"OK: region local on 127\.0\.0\.1:8080: "
        r"9 routes, 1 upstream, 4 tiers, 0 customers, 0 keys; sha256 [0-9a-f]{12}\n",
        result.stdout,
    )


def test_check_accepts_an_included_part_and_edge_refuses_it(served: list[Any], tmp_path: Path) -> None:
    part = str(ROOT / "config" / "tiers.yaml")
    result = run("check", "-c", part)
    assert (result.exit_code, result.stdout) == (0, "OK: a part, which another file has to include\n")
    result = run("edge", "-c", part)
    assert result.exit_code == 2
    said = "is a part, which another file has to include, and this command takes the configuration of an edge\n"
    assert result.stderr == f"{part} {said}"
    assert served == []


def test_check_takes_a_file_argument_and_prints_json(broken: str) -> None:
    assert run("check", EXAMPLE).stdout == run("check", "-c", EXAMPLE).stdout
    for arguments in ((), (EXAMPLE, "-c", EXAMPLE)):
        assert run("check", *arguments).stderr == "name one file: edgeproxy check FILE\n"
    result = run("check", EXAMPLE, "--json")
    body = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"OK: {body['summary']}\n" == run("check", EXAMPLE).stdout
    assert [f"warning: {warning}" for warning in body["warnings"]] == run("check", EXAMPLE).stderr.splitlines()
    assert (body["file"], body["ok"], body["problems"]) == (EXAMPLE, True, [])
    result = run("check", broken, "--json")
    body = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, body["ok"], body["summary"]) == (1, "", False, None)
    assert body["problems"][0] == {
        "file": broken, "line": 1, "field": "drain",
        "what": "'5' lacks a unit", "hint": "a time such as 250ms, 5s or 2min",
    }  # fmt: skip
    assert len(body["problems"]) == 2


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["stat"], {"status"}),
        (["alerts", ""], {"ls", "replay"}),
        (["schema", ""], {"edge", "collector"}),
        (["status", "--j"], {"--json"}),
        (["check", "conf"], set()),  # Bash completes file names by itself.
    ],
)
def test_a_shell_completes_commands_and_options(words: list[str], completed: set[str]) -> None:
    line = " ".join(f"'{word}'" for word in ("edgeproxy", *words))
    script = (
        f"PATH={Path(sys.executable).parent}:$PATH; source <(_EDGEPROXY_COMPLETE=source_bash edgeproxy)\n"
        f"complete -p edgeproxy | grep -q -e '-o default' || exit 9\n"
        f"COMP_WORDS=({line}) COMP_CWORD={len(words)}; _edgeproxy_completion edgeproxy\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    shell = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(shell.stdout.split()) == completed


def test_groups_of_commands_have_the_same_verbs() -> None:
    verbs = {verb for _, group in GROUPS.values() for verb in group}
    assert verbs >= {"ls", "show", "add"}
    assert verbs.isdisjoint({"list", "get", "new", "create", "remove", "rm"})


def test_check_reports_problems_of_a_part(tmp_path: Path) -> None:
    part = tmp_path / "tiers.yaml"
    part.write_text("tiers: {basic: {limits: [{rate: 60}]}}\ncustomers: {acme: {tier: elsewhere}}\n")
    result = run("check", "-c", str(part))
    assert result.exit_code == 1
    assert result.stderr == (
        f"{part}:1: tiers.basic.limits.0.rate: '60' is not a rate, N/UNIT such as 60/min, 200/s or 100/10s\n"
    )


def write(folder: Path, settings: str) -> str:
    """Write an edge's configuration with these settings, and return its path."""
    path = folder / "edge.yaml"
    path.write_text(f"{settings}\n{SERVED}")
    return str(path)


def with_tls(folder: Path, authority: Authority, **issued: float) -> str:
    """A configuration whose listener has a certificate."""
    pair = authority.issue("a.test", **issued)  # type: ignore[arg-type]
    tls = f"{{cert: {pair.cert}, key: {pair.key}}}"
    return write(folder, f"listen: {{address: 127.0.0.1:8443, tls: {tls}}}\nadmin: 127.0.0.1:1")


def test_check_warns_of_certificates_that_expire(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    result = run("check", "-c", with_tls(tmp_path, authority, days=90))
    assert (result.exit_code, result.stderr) == (0, "")
    result = run("check", "-c", with_tls(tmp_path, authority, days=-1, age=90))
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: the certificate {tmp_path}/a.test-2.pem expired on ")
    assert result.stdout.startswith("OK: ")


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ("usage: {collector: 'http://127.0.0.1:9100', token: hush}", ""),
        ("usage: {collector: 'http://10.0.0.5:9100', token: hush}", f"the token for http://10.0.0.5:9100 {IN_CLEAR} https://"),
        ("hub: redis://me:hush@127.0.0.1:6379/0", ""),
        ("hub: redis://me:hush@10.0.0.5:6379/0", f"the password for redis://me@10.0.0.5:6379/0 {IN_CLEAR} rediss://"),
        (
            "hub: redis+cluster://me:hush@127.0.0.1:7000,10.0.0.5:7001",
            f"the password for redis+cluster://me@127.0.0.1:7000,10.0.0.5:7001 {IN_CLEAR} rediss+cluster://",
        ),
        (
            "access_log: HERE/no/access.log",
            "the access log HERE/no/access.log cannot be written from here: the directory HERE/no does not exist",
        ),
        ("access_log: HERE", "the access log HERE cannot be written from here: Is a directory"),
        ("access_log: HERE/access.log", ""),
        ("access_log: HERE/state/access.log", ""),
    ],
)  # fmt: skip
def test_check_warns_of_secrets_in_clear_and_of_logs_that_cannot_be_written(
    tmp_path: Path, settings: str, warning: str
) -> None:
    result = run("check", "-c", write(tmp_path, f"state: HERE/state\n{settings}".replace("HERE", str(tmp_path))))
    assert (result.exit_code, result.stdout[:3]) == (0, "OK:")
    assert result.stderr == (f"warning: {warning}\n".replace("HERE", str(tmp_path)) if warning else "")


def test_queries_of_a_running_edge_do_not_read_its_key_files(served: list[Any], tmp_path: Path) -> None:
    config = with_tls(tmp_path, Authority(tmp_path))
    (tmp_path / "a.test-1.key").unlink()
    for command, code in (("check", 1), ("edge", 2)):
        result = run(command, "-c", config)
        assert result.exit_code == code
        assert result.stderr.startswith(f"{config}:1: listen.tls.key: {tmp_path}/a.test-1.key cannot be read: ")
    assert run("status", "-c", config).stderr.startswith("nobody answers at unix:var/edge/admin.sock")
    assert served == []


def test_check_prints_every_problem_and_fails(broken: str) -> None:
    result = run("check", "-c", broken)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{broken}:1: drain: '5' lacks a unit, a time such as 250ms, 5s or 2min",
        f"{broken}:2: routes: is empty, write at least one",
    ]


def test_a_command_process_shows_no_traceback(broken: str) -> None:
    for arguments, code in ((("check", "-c", EXAMPLE), 0), (("edge", "-c", broken), 2)):
        command = [sys.executable, "-m", "edgeproxy", *arguments]
        ended = subprocess.run(command, env=TRUST, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == code
        assert "Traceback" not in ended.stderr


def test_check_does_not_import_the_edge() -> None:
    look = (
        "import sys; from typer.testing import CliRunner; from edgeproxy import cli; "
        f"assert CliRunner().invoke(cli.app, ['check', '-c', {EXAMPLE!r}]).exit_code == 0; "
        "print([name for name in sys.modules if name.split('.')[0] in ('aiohttp', 'uvloop', 'cryptography') "
        "or name.startswith(('edgeproxy.edge.supervisor', 'edgeproxy.edge.proxy', 'edgeproxy.edge.counters'))])"
    )
    command = [sys.executable, "-c", look]
    ended = subprocess.run(command, env=os.environ | TRUST, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_edge_serves_a_file(served: list[tuple[EdgeSettings, Path | None]]) -> None:
    result = run("edge", "-c", EXAMPLE, environ={"EDGE_LISTEN": "127.0.0.1:1234"})
    assert result.exit_code == 7
    ((settings, path),) = served
    assert (settings.listen, path) == ((Listener(address=Address("127.0.0.1", 1234)),), Path(EXAMPLE))


def test_edge_watches_its_files_with_watch(served: list[Any], tmp_path: Path) -> None:
    assert run("edge", "-c", write(tmp_path, ""), "--watch").exit_code == 8
    assert len(served) == 1


def test_edge_does_not_start_with_a_broken_configuration(served: list[Any], broken: str) -> None:
    result = run("edge", "-c", broken)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert served == []


def test_quick_serves_without_a_file_and_leaves_nothing(served: list[tuple[EdgeSettings, Path | None]]) -> None:
    result = run("quick", "--to", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--rate", "100/s")
    assert result.exit_code == 7
    ((settings, path),) = served
    assert path is None
    assert settings.listen == (Listener(address=Address("127.0.0.1", 0)),)
    assert settings.admin.address is None
    assert settings.tiers["anonymous"].limits[0].count == 100
    assert not settings.state.exists()


def test_killing_quick_ends_its_workers(tmp_path: Path) -> None:
    with closing(Ports(1)) as ports:
        address = HOST, ports.numbers[0]
        command = [*COMMAND, "quick", "--to", "http://127.0.0.1:1", "--listen", f"{HOST}:{address[1]}"]
        quick = Process(command, tmp_path / "log", environ={"TMPDIR": str(tmp_path)})
        until(lambda: listens(address), "quick serves")
        quick.wait_after(signal.SIGKILL, 20.0)
        until(lambda: not listens(address), "the workers of quick have ended")


def listens(address: tuple[str, int]) -> bool:
    """Return whether the address accepts connections."""
    with closing(socket.socket()) as client:
        return client.connect_ex(address) == 0


def test_quick_refuses_options_that_cannot_be_used(served: list[Any]) -> None:
    result = run("quick", "--to", "nowhere", "--rate", "fast")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["--rate", "--to"]
    assert served == []


@pytest.mark.parametrize(
    "arguments", [["check"], ["edge"], ["quick"], ["limits"], ["nonsense"], [], ["key"], ["check", "-c"]]
)
def test_unusable_arguments_exit_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_schema_prints_the_schema_of_an_edge_or_a_collector() -> None:
    for arguments, title, field in (
        ((), "edgeproxy: edge.yaml", "routes"),
        (("collector",), "edgeproxy: collector.yaml", "tokens"),
    ):
        body = json.loads(run("schema", *arguments).stdout)
        assert body["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert (body["title"], field in body["properties"]) == (title, True)
        assert all("description" in field for field in body["properties"].values())


def test_key_add_prints_a_key_once_and_its_line() -> None:
    result = run("key", "add", "--customer", "acme")
    assert result.exit_code == 0
    secret, line = result.stdout.splitlines()
    assert re.fullmatch(REGEX, secret)
    assert yaml.safe_load(line) == [{"sha256": hashlib.sha256(secret.encode()).hexdigest(), "customer": "acme"}]
    assert secret not in line + result.stderr
    assert run("key", "add", "--customer", "acme").stdout.splitlines()[0] != secret


def test_key_add_needs_a_valid_name() -> None:
    result = run("key", "add", "--customer", "a b")
    assert result.exit_code == 2
    assert result.stderr.startswith("--customer: 'a b' is not a name, ")


def test_customers_name_converts_token_subjects_both_ways() -> None:
    assert run("customers", "name", "user@example.com").stdout == "sub--user_40example_2ecom\n"
    assert run("customers", "name", "--back", "sub--user_40example_2ecom").stdout == "user@example.com\n"
    for wrong in (("",), ("--back", "sha--x")):
        assert run("customers", "name", *wrong).exit_code == 2


def test_billing_rate_prints_the_price_of_usage() -> None:
    plans = ("-c", "config/plans.yaml")
    shown = run("billing", "rate", "standard@1", "llm_tokens=1234567", "seats=27", *plans).stdout.splitlines()
    assert [line.split()[-1] for line in shown] == ["$99.00", "$0.00", "$2.35", "$0.00", "$10.00", "$111.35"]
    for arguments, why in (
        (("gold@1",), "has no plan gold@1"),
        (("standard@1", "seats=1.5"), "'seats=1.5' is not METER=QUANTITY"),
        (("standard@1", "miles=3"), "standard@1 does not bill miles"),
        (("standard@1", "--currency", "jpy"), "standard@1 has no prices in jpy; it has some in usd"),
    ):
        result = run("billing", "rate", *arguments, *plans)
        assert result.exit_code == 2
        assert why in result.stderr


def test_billing_rate_accepts_a_value_with_an_equals_sign(tmp_path: Path) -> None:
    plans = tmp_path / "plans.yaml"
    plans.write_text(
        'plans: {models@1: {fee: "0", meters: {tokens: {price: "3", by: {dimension: model, prices: {"m=1": "2"}}}}}}\n'
    )
    assert run("billing", "rate", "models@1", "tokens:m=1=5", "-c", str(plans)).stdout.split()[-1] == "$10.00"


def test_billing_rate_prints_each_currency_of_a_plan(tmp_path: Path) -> None:
    plans = tmp_path / "plans.yaml"
    plans.write_text('plans: {sold@1: {fee: {usd: "99", jpy: "14800", kwd: "30.5"}}}\n')
    for currency, total in (("usd", "$99.00"), ("jpy", "¥14,800"), ("kwd", "KWD\xa030.500")):
        shown = run("billing", "rate", "sold@1", "-c", str(plans), "--currency", currency).stdout
        assert shown.rstrip().rpartition(" ")[2] == total


def test_billing_rate_prints_the_example_of_the_billing_page(tmp_path: Path) -> None:
    section = (ROOT / "docs/billing/billing.md").read_text().partition("\n### Currencies\n")[2]
    example, shown = (section.split("```")[place].partition("\n")[2] for place in (1, 3))
    plans = tmp_path / "plans.yaml"
    plans.write_text(example)
    command, _, expected = shown.removeprefix("$ edgeproxy ").partition("\n")
    result = run(*command.replace("plans.yaml", str(plans)).split())
    assert (result.exit_code, result.stdout) == (0, expected)


# ---- commands that query a running edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A serving edge without an upstream behind it."""
    people = {
        "tiers": {"basic": {"limits": [{"rate": "60/min"}, {"rate": "9/s"}]}, "free": {}},
        "customers": {"acme": {"tier": "basic"}, "unlimited": {"tier": "free"}},
        "keys": [],
    }
    with closing(Edge(tmp_path_factory.mktemp("edge"), 1, **people)) as running:
        yield running.start()


def test_status_queries_a_running_edge(edge: Edge, tmp_path: Path) -> None:
    result = run("status", "--admin", f"127.0.0.1:{edge.admin}")
    assert result.exit_code == 0
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(
        rf"edge    eu-test, serving, edgeproxy [\d.]+, (pure|compiled)\n"
        rf"config  [0-9a-f]{{12}}, loaded {moment}\nhub     memory://, up\n"
        r"usage   0 unshipped, 0 bytes in the spool\n\nworker +pid +connections +memory +descriptors +since\n"
        rf"( +[01] +\d+ +\d+ +\d+ MiB +\d+ +{moment}\n){{2}}\nupstream +up +down +trouble\napi +1 +0\n\n"
        r"table +rows +of +used\ncustomers +\d+ +2000 +\d+%\naddresses +\d+ +2000 +\d+%\n(\w+ +\d+ +\d+ +\d+%\n){4}",
        result.stdout,
    )
    config = tmp_path / "edge.yaml"
    config.write_text(yaml.safe_dump(edge.settings))
    body = json.loads(run("status", "--json", "--admin", f"127.0.0.1:{edge.admin}").stdout)
    assert [*body] == [*edge.status()]
    assert len(body["workers"]) == 2
    # Numbers may change at any moment, so they are removed.
    digits = re.compile(r" *\d+")
    assert digits.sub("", run("status", "-c", str(config)).stdout) == digits.sub("", result.stdout)


def test_limits_queries_a_running_edge(edge: Edge, tmp_path: Path) -> None:
    admin = ["--admin", f"127.0.0.1:{edge.admin}"]
    result = run("limits", "acme", *admin)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["policy", "used", "limit", "left", "reset", "window", "scope", "of", "how"],
        ["basic", "0", "60", "60", "0", "s", "1", "min", "customer", "sliding_window"],
        ["basic-2", "0", "9", "9", "0", "s", "1", "s", "customer", "sliding_window"],
    ]
    config = tmp_path / "edge.yaml"
    config.write_text(yaml.safe_dump(edge.settings))
    assert run("limits", "acme", "-c", str(config)).stdout == result.stdout
    assert run("limits", "unlimited", *admin).stdout == "unlimited has no limits\n"


def test_limits_json_equals_the_answer_of_the_edge(edge: Edge) -> None:
    admin = f"127.0.0.1:{edge.admin}"
    result = run("limits", "acme", "--json", "--admin", admin)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"policies": edge.limits("acme")}
    assert json.loads(run("limits", "unlimited", "--json", "--admin", admin).stdout) == {"policies": []}
    assert run("limits", "nobody", "--json", "--admin", admin).exit_code == 1


def test_limits_of_an_unknown_customer(edge: Edge) -> None:
    result = run("limits", "a/b c", "--admin", f"127.0.0.1:{edge.admin}")
    assert result.exit_code == 1
    assert result.stderr == "no customer is called 'a/b c' here\n"


def test_probe_asks_whether_an_edge_is_ready_or_alive(edge: Edge, tmp_path: Path) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text(yaml.safe_dump(edge.settings))
    for how in (["--admin", f"127.0.0.1:{edge.admin}"], ["-c", str(config)]):
        for question, said in (([], "ready\n"), (["--live"], "alive\n")):
            result = run("probe", *how, *question)
            assert (result.exit_code, result.stdout, result.stderr) == (0, said, "")


def test_probe_fails_without_an_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PROBE_SECONDS", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        result = run("probe", "--admin", f"127.0.0.1:{silent.getsockname()[1]}")
    assert result.exit_code == 1
    assert result.stderr.endswith("timed out\n")


def test_status_reports_a_refused_connection() -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        result = run("status", "--admin", f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert re.fullmatch(rf"nobody answers at http://127\.0\.0\.1:{port}: .*refused\n", result.stderr)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Run an admin listener that always gives this answer. Yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status, "So")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


STRANGE = "http://{}/{} does not answer as an edge does"


@pytest.mark.parametrize(
    ("command", "status", "body", "said"),
    [
        *(("status", 200, body, STRANGE) for body in (b"<html>", b"[]", b"{}")),
        *(("limits/acme", 200, body, STRANGE) for body in (b"<html>", b"{}", b"[]", b'{"policies": 7}')),
        ("limits/acme", 200, b'{"policies": [{"name": "a"}]}', STRANGE),
        *(("status", 500, body, "http://{}/{} answered 500 So") for body in (b"oops", b"[]")),
        ("status", 503, b'{"detail": "not now"}', "not now"),
        ("probe", 503, b'{"ready": false, "reason": "draining"}', "draining"),
    ],
)
def test_command_reports_an_answer_of_another_server_or_the_reason(
    command: str, status: int, body: bytes, said: str
) -> None:
    with answering(status, body) as address:
        result = run(*command.split("/"), "--admin", address)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{said.format(address, command)}\n")


def test_status_reports_an_answer_that_is_not_http() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0\r\n")

        thread = Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = run("status", "--admin", address)
        thread.join()
    assert result.exit_code == 1
    assert result.stderr == f"http://{address}/status does not answer as an edge does\n"


def test_status_of_an_edge_without_workers_exits_with_1() -> None:
    body = {
        "region": "x",
        "version": "1",
        "phase": "serving",
        "config": {
            "sha256": "ab" * 32,
            "loaded_at": 0,
            "error": {"since": 60, "at": 61, "result": "refused", "errors": ["edge.yaml:1: a: b, c", "d"]},
            "needs_restart": ["listen", "region"],
        },
        "workers": [],
        "upstreams": {
            "api": [
                {"url": "http://gone.test:80", "why": "Name or service not known", "addresses": []},
                {
                    "url": "http://a.test:80",
                    "why": "",
                    "addresses": [
                        {"address": "10.0.0.1", "up": True, "why": ""},
                        {"address": "10.0.0.2", "up": False, "why": "status 500"},
                    ],
                },
            ]
        },
        "tables": {"customers": {"used": 1, "rows": 2}},
        "hub": {"url": "memory://", "state": "up", "age_s": 0},
        "directory": None,
        "usage": {
            "unshipped": 1,
            "oldest_s": 0,
            "batches": 0,
            "edge": None,
            "watermark": None,
            "spool_bytes": 2,
            "shipping": {"state": "off", "why": "", "since": 0},
            "sealing": None,
            "aside": [],
        },
    }
    with answering(200, json.dumps(body).encode()) as address:
        result = run("status", "--admin", address)
    assert result.exit_code == 1
    assert "        edge.yaml:1: a: b, c\n        d\n" in result.stdout
    assert "http://a.test:80 at 10.0.0.2: status 500\n" in result.stdout
    assert result.stderr == "no worker is running\n"


def test_an_invalid_admin_address_exits_with_2() -> None:
    result = run("status", "--admin", "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("--admin: 'nowhere' is not an address with a port, ")


def test_without_an_admin_address_the_socket_is_queried(tmp_path: Path) -> None:
    result = run("status", "-c", write(tmp_path, f"state: {tmp_path}"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"nobody answers at unix:{tmp_path}/admin.sock: ")


@pytest.mark.parametrize(
    ("admin", "url"),
    [
        (None, "http://127.0.0.1:9090"),
        ("0.0.0.0:9", "http://127.0.0.1:9"),
        ("[::]:9", "http://[::1]:9"),
        ("[::2]:9", "http://[::2]:9"),
    ],
)
def test_a_wildcard_admin_address_is_queried_at_localhost(admin: str | None, url: str) -> None:
    assert running.get_admin_url(None, admin) == url


def test_main_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["edgeproxy", "check", "-c", EXAMPLE])
    monkeypatch.setenv("DIRECTORY_TRUST", TRUST["DIRECTORY_TRUST"])
    leave: Callable[[], None] = cli.main
    with pytest.raises(SystemExit) as ended:
        leave()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("OK: ")


def test_a_running_edge_is_found_with_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(f"state: {tmp_path / 'state'}\nupstreams: {{api: 1}}\nroutes: 7\ntiers: {{")
    for command in (("status",), ("limits", "acme"), ("probe",)):
        for how in (("-c", str(path)), ("--state", str(tmp_path / "state"))):
            result = run(*command, *how)
            assert (result.exit_code, result.stderr[:40]) == (1, f"nobody answers at unix:{tmp_path}"[:40])
    result = run("spool", "ls", "-c", str(path))
    assert (result.exit_code, result.stdout) == (0, f"nothing has been sealed in {tmp_path / 'state'} yet\n")
    assert run("spool", "ls").exit_code == 2
    result = run("status", "-c", str(tmp_path / "none.yaml"))
    assert (result.exit_code, result.stderr) == (2, f"{tmp_path / 'none.yaml'} is not there: say --state DIR\n")


@pytest.mark.parametrize(
    ("file", "kind", "taken", "commands"),
    [
        (ROOT / "config/collector.yaml", "a collector", "an edge", ("status", "limits acme", "spool ls", "edge")),
        (EXAMPLE, "an edge", "a collector", ("collector", "verify", "quarantine ls")),
    ],
)
def test_a_file_of_another_kind_is_named(file: object, kind: str, taken: str, commands: tuple[str, ...]) -> None:
    text = f"{file} is the configuration of {kind}, and this command takes the configuration of {taken}\n"
    for command in commands:
        result = run(*command.split(), "-c", str(file))
        assert (result.exit_code, result.stderr) == (2, text), command


def test_version_is_printed() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"edgeproxy {__version__} ({describe_build()})\n")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("EDGEPROXY_TOKEN", ("tokens", "ls")),
        ("EDGEPROXY_TOKEN", ("limits", "acme")),
        ("EDGEPROXY_ADMIN_TOKEN", ("status", "--admin", "127.0.0.1:1")),
        ("EDGEPROXY_PROBE_KEY", ("probe", "--through", "http://127.0.0.1:1/")),
    ],
)
def test_secret_of_a_command_is_held_to_the_one_reader(tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    for secret, why in (
        ("hush hush", f"{name} has white space"),
        ("'hush'", f"{name} begins or ends with a quote"),
        ("h\udce9sh", f"{name} is not UTF-8"),
        ("hüsh", f"{name} has characters that no token has"),
    ):
        done = run(*arguments, environ={name: secret})
        assert done.exit_code == 2
        assert why in done.output
        assert "sh'" not in done.output
    file = tmp_path / "missing"
    done = run(*arguments, environ={f"{name}_FILE": str(file)})
    assert done.exit_code == 2
    assert f"{file} cannot be read" in done.output


def test_file_of_the_owner_s_url_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    token = {"name": "admin", "role": "admin", "sha256": "a" * 64}
    file.write_text(yaml.safe_dump({"listen": f"{HOST}:0", "database": "sqlite:///ledger.db", "tokens": [token]}))
    environ = {"EDGEPROXY_DATABASE_OWNER_FILE": str(tmp_path / "missing")}
    done = run("database", "migrate", "-c", str(file), environ=environ)
    assert done.exit_code == 2
    assert "missing cannot be read" in done.output


def test_access_states_money_in_whole_units_of_its_currency() -> None:
    limits = [
        access.describe_credits(3_000_000, 3_004_000, "usd", is_charged=True),
        access.describe_credits(30_000, 29_999, "kwd", is_charged=True),
        access.describe_budget("edge_a", (None, "jpy"), 1200, 1000, "2027-02-01", is_held=True),
        access.describe_budget("edge_b", ("calls", None), 8, 10, "2027-02-01", is_held=True),
    ]
    text = running._render_access({"customer": "acme", "as_of": "", "may_call": "no", "limits": limits})
    assert [line.split(": ", 1)[1].partition(",")[0] for line in text.splitlines()[1:]] == [
        "reached 3.004 of 3.00 USD",
        "near 0.0029999 of 0.003 KWD",
        "reached 1200 of 1000 JPY",
        "near 8 of 10 calls",
    ]
