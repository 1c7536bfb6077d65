"""The stage for transcripts, and the loop that their tests run in."""

import inspect
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.base.build import COMPILED, describe_build
from edgeproxy.edge.counters import setup
from edgeproxy.edge.proxy.connections import client_states
from edgeproxy.edge.proxy.connections.client import Client
from edgeproxy.edge.proxy.exchange.exchange import Exchange
from edgeproxy.edge.proxy.observation import exchange_states
from edgeproxy.edge.proxy.transport import deadlines
from tests.edge.proxy.worker_process import Process, lived
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
    watch_states(stage, monkeypatch, Exchange, exchange_states.TRANSITIONS)
    watch_states(stage, monkeypatch, Client, client_states.TRANSITIONS)
    with stage.runner:
        yield stage
        stage.runner.run(stage.stops())


@pytest.fixture
def answering(edge: Edge) -> Edge:
    """An edge whose upstream answers by itself."""
    edge.upstream.answers(lambda request: ok())
    return edge


def watch_states(
    stage: Edge, monkeypatch: pytest.MonkeyPatch, kind: type, transitions: Mapping[Any, Collection[Any]]
) -> None:
    """Report to the stage, as an error, each state of such objects that must not follow the one before.

    Of the compiled build this cannot be asked: its types stay as they are.
    """
    if describe_build() == COMPILED:
        return

    def set_attribute(self: Any, name: str, value: Any) -> None:
        before = getattr(self, "state", value) if name == "state" else value
        if name == "state" and before != value and value not in transitions[before]:
            stage.errors.append({"message": f"{kind.__name__}: the state {value!r} after {before!r}"})
        object.__setattr__(self, name, value)

    monkeypatch.setattr(kind, "__setattr__", set_attribute)


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
