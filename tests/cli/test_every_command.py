"""Every command of the table with good and bad input: each ends with a documented code, no traceback and no secret."""

import inspect
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
from typer import Exit
from typer.models import OptionInfo
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.cli import api
from edgeproxy.cli import running as running_commands
from edgeproxy.collector.accounts.ids import build_pseudonym
from edgeproxy.collector.database.database import Database
from edgeproxy.config import environment
from edgeproxy.config.key_form import generate_key
from loadtest.testbed.collector import ADMIN, NAMED, PLANS, SOLD, Collector, sha256
from loadtest.testbed.ports import HOST
from tests.support.command_table import find_functions
from tests.support.used_database import use_database

SERVE_FOR_EVER = frozenset({"quick", "demo", "stripe-sandbox"})
"""Commands that take no configuration file and would serve."""
SERVE = frozenset({"edge", "collector", "regions"})
"""Commands that serve if their file is right."""
MARK = "hush-9c4e"
"""A text in all secrets. Nothing else has it."""
TOKEN = f"token-{MARK}"
TOKENS = ("EDGEPROXY_TOKEN", "EDGEPROXY_FROM_TOKEN", "EDGEPROXY_TO_TOKEN")
AGE = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"
"""A public key of age: somebody's identity."""
ENVIRON = {
    "EDGEPROXY_COLLECTOR": f"http://{HOST}:1",
    **dict.fromkeys(TOKENS, TOKEN),
    **dict.fromkeys(("DATABASE_PASSWORD", "PROXY_PASSWORD", "SMTP_PASSWORD"), MARK),
    "STRIPE_SECRET_KEY": f"sk_test_{MARK}",
    "STRIPE_WEBHOOK_SECRETS": f"whsec_{MARK}",
}
"""An unreachable collector, and secrets."""
SECRETS: dict[str, Any] = {
    "database": f"postgresql://me:${{DATABASE_PASSWORD}}@{HOST}:1/ledger",
    "proxy": {"url": f"http://me:${{PROXY_PASSWORD}}@{HOST}:1"},
    "alerts": {
        "channels": {
            "ops": {"smtp": f"smtps://me:${{SMTP_PASSWORD}}@{HOST}:1", "from": "a@example.com", "to": ["b@example.com"]}
        },
        "routes": {kind: ["ops"] for kind in ("page", "warn", "info")},
    },
    "billing": {"plans": PLANS, "mode": "live"},
}
"""Settings with a secret in each server's address, and a database that is away."""
CODES = (0, 1, 2)
"""The exit codes that `edgeproxy.cli.outcome` documents."""
CONFIG = ("config", "file", "path")
STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.exec"})
"""Events of `sys.audit` with the arguments and the environment of a program."""


FUNCTIONS = find_functions()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> dict[str, Path]:
    """Files for commands, by their kind or their fault."""
    folder = tmp_path_factory.mktemp("files")

    def write(name: str, stored: str, **more: object) -> Path:
        settings: dict[str, object] = {
            "listen": f"{HOST}:1",
            "database": f"sqlite:///{folder}/{stored}",
            "tokens": [{"name": "admin", "sha256": "a" * 64, "role": "admin"}],
            "tiers": {name: {} for name in ("basic", "free", "standard", "enterprise")},
            "meters": {"requests": {"count": "requests"}, **SOLD},
            "pages": {"url": "https://edge.example.com"},
            **more,
        }
        (folder / name).write_text(json.dumps(settings))
        return folder / name

    (folder / "master.key").write_bytes(bytes(range(32)))
    (folder / "master.key").chmod(0o600)
    use_database(f"sqlite:///{folder}/right.db", _do_nothing)
    content = (folder / "right.db").read_bytes()
    (folder / "cut.db").write_bytes(content[: len(content) // 2 + 1])
    (folder / "text.db").write_text("no database\n" * 500)
    shutil.copy(folder / "right.db", folder / "sealed.db")
    shutil.copy(folder / "right.db", folder / "work.db")
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    work = {
        **SECRETS,
        "database": f"sqlite:///{folder}/work.db",
        # Its user, too: programs get all variables to which no setting refers.
        "proxy": {"url": f"http://${{DATABASE_PASSWORD}}:${{PROXY_PASSWORD}}@{HOST}:1"},
        "encryption": {"command": [str(programs.with_name("service"))]},
    }
    return {
        "right": write("right.yaml", "right.db"),
        "encrypted": write("encrypted.yaml", "sealed.db", encryption={"file": str(folder / "master.key")}),
        "secrets at work": write("work.yaml", "work.db", **work),
        "selling": write("selling.yaml", "right.db", billing={"plans": PLANS, "mode": "off"}),
        "cut database": write("cut.yaml", "cut.db"),
        "database of text": write("text.yaml", "text.db"),
        "no database": write("none.yaml", "none.db"),
        "secrets": write("secrets.yaml", "", **SECRETS),
        "no file": folder / "nowhere" / "collector.yaml",
        "a folder": folder,
        "bytes": folder / "binary",
        "a list": folder / "list.yaml",
    }


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the arguments and the environment of each program that commands start, as /proc shows them.

    /proc shows most programs for a few milliseconds only. So Python reports them, and the key service reports itself,
    because uvloop starts it.
    """
    file = tmp_path_factory.mktemp("programs") / "programs"
    script = file.with_name("service")
    script.write_text(f"#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> {file}\nexec cat\n")
    script.chmod(0o755)

    def record(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS:
            environ = os.environ if arguments[-1] is None else arguments[-1]
            with file.open("a") as output:
                output.write(repr((arguments[1], dict(environ))))

    sys.addaudithook(record)
    return file


async def _do_nothing(_: Database) -> None:
    pass


def list_words(words: str, file: Path, text: str, **values: str) -> list[str]:
    """Return arguments that give each parameter a value of its type. Optional options are left out, unless they are in
    `values`."""
    given: list[str] = []
    function = FUNCTIONS[words]
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *more = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name],)
        about = more[0] if more else None
        is_path, is_option = Path in (kind, *get_args(kind)), isinstance(about, OptionInfo)
        is_config = is_path and name in CONFIG and not given  # `check` takes its file under two names.
        if name == "yes":
            given.append("--yes")
        elif parameter.default is inspect.Parameter.empty or is_config or name in values:
            value = values.get(name, str(file) if is_path else "1" if kind in (int, float) else text)
            # In Annotated, the attribute `default` has the first name of an option.
            names = (getattr(about, "default", None), *(getattr(about, "param_decls", None) or ()))
            option = next((name for name in names if isinstance(name, str) and name.startswith("-")), f"--{name}")
            given += [option, value] if is_option else [value]
    return given


def test_shipped_example_configurations_pass(files: dict[str, Path]) -> None:
    """Otherwise no command gets beyond its configuration."""
    for about in (
        "right",
        "encrypted",
        "secrets at work",
        "selling",
        "cut database",
        "database of text",
        "no database",
        "secrets",
    ):
        result = run("check", files[about], "")
        assert result.exit_code == 0, (about, result.output)


def run(words: str, file: Path, text: str, **values: str) -> Result:
    environment._referenced.clear()  # Each command knows only the variables of the files that it reads itself.
    return CliRunner().invoke(cli.app, [*words.split(), *list_words(words, file, text, **values)], env=ENVIRON)


def test_programs_get_no_secret(files: dict[str, Path], programs: Path, tmp_path: Path) -> None:
    """Commands with a key service, and the encryption of a backup, start a program."""
    for words, values in (("encryption rotate", {}), ("backup", {"to": str(tmp_path / "copy"), "recipient": AGE})):
        programs.write_text("")
        result = run(words, files["secrets at work"], "1", **values)
        assert result.exit_code == 0, result.output
        content = programs.read_text()
        assert "PATH" in content
        assert MARK not in content


@pytest.mark.parametrize("words", sorted(FUNCTIONS.keys() - SERVE_FOR_EVER))
def test_command_prints_an_error_without_traceback_or_secret(
    words: str,
    files: dict[str, Path],
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(api, "CONNECT_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    takes_all = request.config.getoption("--soak")
    programs.write_text("")
    for number, (about, file) in enumerate(files.items(), len(words)):
        if words in SERVE and about in ("right", "encrypted", "secrets at work", "selling", "no database"):
            continue
        texts = ("nobody", "\udcff/\x01 ", generate_key())
        # Few commands read their arguments before a wrong file, so each wrong file meets one text, in turn.
        for text in texts if about == "right" or takes_all else [texts[number % len(texts)]]:
            result = run(words, file, text)
            ended = result.exception is None or isinstance(result.exception, SystemExit)
            assert ended, (about, text, repr(result.exception), result.exc_info)
            assert result.exit_code in CODES, (about, text, result.output)
            assert "Traceback" not in result.output, (about, text, result.output)
            assert MARK not in result.output, (about, text, result.output)
            if about in ("bytes", "a list") and "config" in inspect.signature(FUNCTIONS[words]).parameters:
                assert result.exit_code in (1, 2), (about, text, result.output)
    assert MARK not in programs.read_text()


# ---- commands beside a running collector

NO_REFS = {
    "key add": "it writes a key of a customer of files, who has a name alone",
    "keys public-key": "it sends a file, which is another one for each name here",
    "residency move": "it needs collectors of two residencies; it finds the customer as the others do",
    "limits": "it asks an edge first: test_edge_commands_use_the_name_of_a_customer_at_the_edge",
}
"""Commands that take a customer but are exempt from the test of names and ids, each with the reason."""


def takes_customer(words: str) -> bool:
    """Return whether a command has a parameter for a customer."""
    return "customer" in inspect.signature(FUNCTIONS[words]).parameters


class Running(NamedTuple):
    """A running collector with its configuration and a database of its own."""

    collector: Collector
    file: Path
    refs: tuple[str, ...]
    """The name, id, external id and pseudonym of one customer."""

    @property
    def environ(self) -> dict[str, str]:
        url = f"http://{HOST}:{self.collector.port}"
        return ENVIRON | {"EDGEPROXY_COLLECTOR": url, **dict.fromkeys(TOKENS, TOKEN)}

    def copy_database(self, folder: Path) -> Path:
        """Return a configuration with a copy of the database."""
        shutil.copy(self.file, folder / "copy.db")
        settings = self.collector.settings | {"database": f"sqlite:///{folder}/copy.db"}
        (folder / "copy.yaml").write_text(json.dumps(settings))
        return folder / "copy.yaml"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    settings = {"privacy": {"pseudonyms": True}, "residency": "eu", "pages": {"url": "https://edge.example.com"}}
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", **settings)) as collector:
        collector.settings["tokens"].append(
            {"sha256": sha256(TOKEN), "role": "admin", **NAMED[ADMIN], "name": "marked"}
        )
        collector.start()
        for name in ("planted", "victim"):
            body = {"name": name, "tier": "basic", "external_id": f"crm-{name}"}
            assert collector.send("POST", "/v1/customers", body).status == 201
        id_ = collector.get("/v1/customers/planted").json()["id"]
        collector.end()
        shutil.copy(folder / "ledger.db", folder / "copy.db")
        collector.start()
        yield Running(collector, folder / "copy.db", ("planted", id_, "crm-planted", build_pseudonym(id_)))


@pytest.mark.parametrize("words", sorted(filter(takes_customer, FUNCTIONS.keys() - NO_REFS.keys())))
def test_customer_is_found_by_each_name_and_id(
    words: str, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command of the API makes equal calls for each name and id. The test does not send calls that change data. A
    command of the database runs on a copy of it."""
    calls: list[object] = []
    send = api.Api.call

    def call(self: api.Api, method: str, path: str, body: object = None, **options: Any) -> Any:
        query = options.get("query") or {}
        if "ref" not in query:
            calls.append((method, path, body, query))
        if method != "GET":
            raise Exit(0)
        return send(self, method, path, body, **options)

    monkeypatch.setattr(api.Api, "call", call)
    url = running.environ["EDGEPROXY_COLLECTOR"]
    outcomes = []
    for number, ref in enumerate(running.refs):
        calls.clear()
        folder = tmp_path / str(number)
        folder.mkdir()
        values = {"customer": ref, "to": str(folder / "out.zip"), "source": url, "target": url, "fields": "tier=free"}
        given = list_words(words, running.copy_database(folder), "1", **values)
        result = CliRunner().invoke(cli.app, [*words.split(), *given], env=running.environ)
        assert "no customer" not in result.output, (ref, result.output)
        outcomes.append((result.exit_code, list(calls)))
        assert calls or result.exit_code == 0, (ref, result.output)
    assert outcomes == outcomes[:1] * len(outcomes)
    if calls:
        assert "planted" in str(calls)


@pytest.mark.parametrize(
    "words",
    sorted(words for words, function in FUNCTIONS.items() if "collector" in inspect.signature(function).parameters),
)
def test_command_beside_a_collector_prints_no_traceback(
    words: str, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("one\n")
    for text in ("victim", "nobody", "a=1", "\udcff/\x01 ", generate_key()):
        given = list_words(words, tmp_path / "list", text)
        result = CliRunner().invoke(cli.app, [*words.split(), *given], env=running.environ)
        ended = result.exception is None or isinstance(result.exception, SystemExit)
        assert ended, (text, repr(result.exception), result.exc_info)
        assert result.exit_code in CODES, (text, result.output)
        assert "Traceback" not in result.output, (text, result.output)
        assert MARK not in result.output, (text, result.output)
        assert " answered 500" not in result.output, (text, result.output)


def test_edge_commands_use_the_name_of_a_customer_at_the_edge(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in running.environ.items():
        monkeypatch.setenv(name, value)
    assert {running_commands._fetch_edge_name(ref) for ref in running.refs} == {running.refs[-1]}
    assert running_commands._fetch_edge_name("nobody") == "nobody"
