"""The state directory of a supervisor that starts."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.units import WORKERS_MAX
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.layout import COLUMNS_MAX
from edgeproxy.edge.counters.setup import layouts
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.supervisor import state
from edgeproxy.edge.usage import identity

CONFIG = """
state: {directory}/state
workers: 1
tables: {{customers: 100, addresses: 100{tables}}}
upstreams: {{api: {{endpoints: [http://127.0.0.1:9]}}}}
routes: [{{path: /*, upstream: api}}]
"""


def settings(directory: Path, tables: str | None = None) -> EdgeSettings:
    """A configuration whose tables are in this folder of `directory`, by default with the rest of the state."""
    path = directory / "edge.yaml"
    where = "" if tables is None else f", dir: {directory / tables}"
    path.write_text(CONFIG.format(directory=directory, tables=where))
    return load_edge(path, {})


@pytest.mark.parametrize(("before", "after"), [(None, "tables"), ("tables", None), ("tables", "others")])
def test_tables_are_not_looked_for_elsewhere(tmp_path: Path, before: str | None, after: str | None) -> None:
    state.prepare_store(settings(tmp_path, before)).close()
    with pytest.raises(state.StateDirectoryError) as refused:
        state.prepare_store(settings(tmp_path, after))
    folder = tmp_path / (after or "state")
    assert str(refused.value) == (
        f"the state directory {tmp_path / 'state'} cannot be used: its tables are not in {folder}, and what they count "
        "would be missing: write tables.dir as it was, or move the state directory away to begin anew"
    )
    if after is not None:
        assert not (tmp_path / after).exists()
    state.prepare_store(settings(tmp_path, before)).close()


def test_tables_in_memory_may_be_gone_after_a_reboot(tmp_path: Path) -> None:
    state.prepare_store(settings(tmp_path, "tables")).close()
    control = Control.open(tmp_path / "state" / "control")
    control.begin_boot(1, 0.0)
    control.close()
    for table in (tmp_path / "tables").iterdir():
        table.unlink()
    state.prepare_store(settings(tmp_path, "tables")).close()


def test_tables_have_columns_for_as_many_workers_as_may_be_configured() -> None:
    assert all(layout.columns <= COLUMNS_MAX for layout in layouts(WORKERS_MAX, 1, 1))


def test_unusable_state_directory_raises_one_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(state.StateDirectoryError) as refused:
        state.prepare_store(settings(tmp_path))
    assert str(refused.value) == f"the state directory {tmp_path / 'state'} cannot be used: File exists"


def test_a_directory_is_in_use_by_a_supervisor_or_by_a_worker(tmp_path: Path) -> None:
    store = state.prepare_store(settings(tmp_path))
    assert not state.is_in_use(store)
    store.identity.release()
    worker = Store.join(tmp_path / "state")
    assert state.is_in_use(store)
    store.identity.release()
    worker.close()
    assert not state.is_in_use(store)
    other = state.prepare_store(settings(tmp_path))
    assert state.is_in_use(other)
    other.close()
    store.close()


def test_a_directory_that_was_copied_is_set_aside(tmp_path: Path) -> None:
    store = state.prepare_store(settings(tmp_path))
    identity.create_identity(tmp_path / "state", 1e9)
    store.close()
    state.prepare_store(settings(tmp_path)).close()
    assert identity.list_set_aside(tmp_path / "state") == []
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(tmp_path / "state", copy / "state")
    store = state.prepare_store(settings(copy))
    assert identity.list_set_aside(copy / "state") == [copy / "state" / "aside.1"]
    assert store.control.instance != Control.open(tmp_path / "state" / "control").instance
    store.close()


@pytest.mark.parametrize("tables", [None, "tables"])
def test_copied_state_directory_is_another_host_on_the_hub(tmp_path: Path, tables: str | None) -> None:
    def instance(directory: Path) -> int:
        shared = settings(directory, tables).model_copy(update={"hub": Hub(url="redis://127.0.0.1:9/0")})
        with closing(state.prepare_store(shared)) as store:
            return store.control.instance

    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    created = instance(first)
    assert instance(first) == created
    shutil.copytree(first, copy)
    another = instance(copy)
    assert another != created, "a copied state directory is another host"
    assert instance(copy) == another
    assert instance(first) == created
    (put,) = identity.list_set_aside(copy / "state")
    # If the other directory is gone for good, its counts continue here.
    identity.discard_identity(copy / "state", copy / (tables or "state"), put.name)
    shutil.rmtree(copy)
    shutil.copytree(first, copy)
    instance(copy)
    identity.adopt_identity(copy / "state", copy / (tables or "state"))
    assert instance(copy) == created


def test_copied_state_directory_in_use_by_workers_is_refused(tmp_path: Path) -> None:
    store = state.prepare_store(settings(tmp_path))
    identity.create_identity(tmp_path / "state", 1e9)
    store.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(tmp_path / "state", copy / "state")
    worker = Store.join(copy / "state")
    with pytest.raises(state.StateDirectoryError) as refused:
        state.prepare_store(settings(copy))
    assert str(refused.value).endswith(f"cannot be used: workers of an edge use {copy / 'state'}: stop it first")
    worker.close()
