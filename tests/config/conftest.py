"""Configurations as files, and the problems that edgeproxy finds in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.problems import ConfigError

LEAST = """\
upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}
routes: [{path: /*, upstream: api}]
"""
"""The shortest configuration that serves."""

Load = Callable[..., EdgeSettings]
Problems = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(reader: Callable[[Any], object], value: object) -> tuple[str, str]:
    """Return the error of a rejected value and its hint."""
    with pytest.raises(PydanticCustomError) as caught:
        reader(value)
    reported = caught.value.context
    assert reported is not None
    return reported["what"], reported["hint"]


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write these files into the folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def reads_files() -> bool:
    """True if named certificates must exist. Modules with tests that name missing ones override it with False."""
    return True


@pytest.fixture
def loaded(folder: Path, reads_files: bool) -> Load:
    """`loaded(text, environ, files)`: the settings of an edge.yaml that says LEAST and `text`; with `alone`, `text`."""

    def load_text(
        text: str,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> EdgeSettings:
        write(folder, {"edge.yaml": text if alone else LEAST + text, **(files or {})})
        return load_edge(Path("edge.yaml"), environ or {}, files=reads_files)

    return load_text


@pytest.fixture
def problems(folder: Path, reads_files: bool) -> Problems:
    """`problems(text, environ, files)`: the problems of an edge.yaml with this `text`, a line each."""

    def problems_of(
        text: str | bytes, environ: Mapping[str, str] | None = None, files: Mapping[str, str | bytes] | None = None
    ) -> list[str]:
        write(folder, {"edge.yaml": text, **(files or {})})
        try:
            load_edge(Path("edge.yaml"), environ or {}, files=reads_files)
        except ConfigError as error:
            return str(error).splitlines()
        return []

    return problems_of
