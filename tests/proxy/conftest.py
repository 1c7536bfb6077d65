"""The stage for transcripts, and the loop that their tests run in."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.proxy import deadlines
from tests.support.transcript import Edge


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """An edge that starts when it is first asked for something; what it left behind is checked at the end."""
    monkeypatch.setattr(deadlines, "EVERY", 0.02)
    stage = Edge(tmp_path)
    with stage.runner:
        yield stage
        stage.runner.run(stage.stops())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests that are coroutines run in their edge's loop, which is uvloop's."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["edge"].runner.run(pyfuncitem.obj(**arguments))
    return True
