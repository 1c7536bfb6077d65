"""The stage for transcripts, and the event loop of their tests."""

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
    """An edge that starts at its first use. At the end the fixture checks for leftovers."""
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 0.02)
    # The tables need not survive a loss of power, and syncing fourteen of them to disk takes longer than a test.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    # A new worker reads all connection rows.
    monkeypatch.setattr(setup, "CONNECTION_ROWS", 64)
    stage = Edge(tmp_path)
    watch_states(stage, monkeypatch, Exchange, exchange_states.TRANSITIONS)
    watch_states(stage, monkeypatch, Client, client_states.TRANSITIONS)
    with stage.runner:
        yield stage
        stage.runner.run(stage.stops())


@pytest.fixture
def answering(edge: Edge) -> Edge:
    """An edge whose upstream answers automatically."""
    edge.upstream.answers(lambda request: ok())
    return edge


def watch_states(
    stage: Edge, monkeypatch: pytest.MonkeyPatch, kind: type, transitions: Mapping[Any, Collection[Any]]
) -> None:
    """Report to the stage, as an error, each state of such an object that must not follow the state before.

    The types of the compiled build cannot be changed, so it is not checked.
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
    """Coroutine tests run in their edge's loop, a uvloop loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["edge"].runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def worker(edge: Edge) -> Iterator[Process]:
    yield from lived(edge)
