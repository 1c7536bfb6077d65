"""The stage for transcripts, and the loop that their tests run in."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.edge.counters import setup
from edgeproxy.edge.proxy import client, deadlines
from edgeproxy.edge.proxy.exchange import Exchange
from edgeproxy.edge.proxy.states import TRANSITIONS
from tests.edge.proxy.process import Process, lived
from tests.support.transcript import Edge, ok


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """An edge that starts when it is first asked for something; what it left behind is checked at the end."""
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 0.02)
    # Its tables are to outlive no loss of power, and a disk takes longer over fourteen of these than a test does.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    # A worker goes over all rows of connections when it begins.
    monkeypatch.setattr(setup, "CONNECTION_ROWS", 64)
    stage = Edge(tmp_path)
    monkeypatch.setattr(client, "Exchange", watched(stage))
    with stage.runner:
        yield stage
        stage.runner.run(stage.stops())


@pytest.fixture
def answering(edge: Edge) -> Edge:
    """An edge whose upstream answers by itself."""
    edge.upstream.answers(lambda request: ok())
    return edge


def watched(stage: Edge) -> type[Exchange]:
    """An Exchange that tells the stage, as an error, of every state that must not follow the one before."""

    class Watched(Exchange):
        __slots__ = ()

        def __setattr__(self, name: str, value: Any) -> None:
            before = getattr(self, "state", None) if name == "state" else None
            if before is not None and value not in TRANSITIONS[before]:
                stage.errors.append({"message": f"{value.name} after {before.name}"})
            super().__setattr__(name, value)

    return Watched


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests that are coroutines run in their edge's loop, which is uvloop's."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["edge"].runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def worker(edge: Edge) -> Iterator[Process]:
    yield from lived(edge)
