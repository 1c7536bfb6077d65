"""Every command of the table with good and bad input: each ends with a documented code, and no traceback."""

import importlib
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from click.testing import Result
from typer.models import OptionInfo
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.cli import api, commands
from edgeproxy.collector.database.database import Database
from edgeproxy.config.key_form import generate_key
from loadtest.testbed.collector import PLANS
from loadtest.testbed.ports import HOST
from tests.support.used_database import use_database

SERVE_FOR_EVER = frozenset({"quick", "demo", "stripe-sandbox"})
"""Commands without a file to be wrong about: they would serve."""
SERVE = frozenset({"edge", "collector", "regions"})
"""Commands that serve if their file is right."""
ENVIRON = {
    "EDGEPROXY_COLLECTOR": f"http://{HOST}:1",
    **dict.fromkeys(("EDGEPROXY_TOKEN", "EDGEPROXY_FROM_TOKEN", "EDGEPROXY_TO_TOKEN"), "token"),
}
"""A collector that is away, and tokens for it."""
CODES = (0, 1, 2)
"""The exit codes that `edgeproxy.cli.outcome` documents."""
CONFIG = ("config", "file", "path")


def find_functions() -> dict[str, Callable[..., None]]:
    """Return the function of each command, by the words that call it."""
    places = dict(commands.COMMANDS)
    for group, (_, functions) in commands.GROUPS.items():
        places |= {f"{group} {name}": place for name, place in functions.items()}
    found = {}
    for words, place in places.items():
        module, _, name = place.partition(".")
        found[words] = getattr(importlib.import_module(f"edgeproxy.cli.{module}"), name)
    return found


FUNCTIONS = find_functions()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files to give to commands, by what is right or wrong about them."""
    folder = tmp_path_factory.mktemp("files")

    def write(name: str, database: str, **more: object) -> Path:
        settings = {
            "listen": f"{HOST}:1",
            "database": f"sqlite:///{folder}/{database}",
            "tiers": {"basic": {"limits": [{"rate": "60/min"}]}},
            "meters": {"requests": {"count": "requests"}},
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
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    return {
        "right": write("right.yaml", "right.db"),
        "encrypted": write("encrypted.yaml", "sealed.db", encryption={"file": str(folder / "master.key")}),
        "selling": write("selling.yaml", "right.db", billing={"plans": PLANS, "mode": "off"}),
        "cut database": write("cut.yaml", "cut.db"),
        "database of text": write("text.yaml", "text.db"),
        "no database": write("none.yaml", "none.db"),
        "no file": folder / "nowhere" / "collector.yaml",
        "a folder": folder,
        "bytes": folder / "binary",
        "a list": folder / "list.yaml",
    }


async def _do_nothing(_: Database) -> None:
    pass


def list_words(words: str, file: Path, text: str) -> list[str]:
    """Return the words that give each parameter a value of its type; options that can be left out are."""
    given = []
    function = FUNCTIONS[words]
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *more = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name],)
        about = more[0] if more else None
        is_path, is_option = Path in (kind, *get_args(kind)), isinstance(about, OptionInfo)
        is_config = is_path and name in CONFIG
        if name == "yes":
            given.append("--yes")
        elif parameter.default is inspect.Parameter.empty or is_config:
            value = str(file) if is_path else "1" if kind in (int, float) else text
            option = next(
                (one for one in getattr(about, "param_decls", None) or () if one.startswith("-")), f"--{name}"
            )
            given += [option, value] if is_option else [value]
    return given


def run(words: str, file: Path, text: str) -> Result:
    return CliRunner().invoke(cli.app, [*words.split(), *list_words(words, file, text)], env=ENVIRON)


@pytest.mark.parametrize("words", sorted(FUNCTIONS.keys() - SERVE_FOR_EVER))
def test_command_ends_in_a_sentence(
    words: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(api, "CONNECT_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    for about, file in files.items():
        if words in SERVE and about in ("right", "encrypted", "selling", "no database"):
            continue
        for text in ("nobody", "\udcff/\x01 ", generate_key()):
            result = run(words, file, text)
            ended = result.exception is None or isinstance(result.exception, SystemExit)
            assert ended, (about, text, repr(result.exception), result.exc_info)
            assert result.exit_code in CODES, (about, text, result.output)
            assert "Traceback" not in result.output, (about, text, result.output)
            if about in ("bytes", "a list") and "config" in inspect.signature(FUNCTIONS[words]).parameters:
                assert result.exit_code in (1, 2), (about, text, result.output)
