"""Loading edge.yaml and passing its settings between processes. Nothing is applied here: see `outgoing.py`."""

import gc
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.base.allocator import return_freed_memory, separate_large_blocks
from edgeproxy.base.sealed_memory import NO_MEMORY, MemoryReceiver, SealedMemory
from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.edge.customer_store import (
    CustomerMap,
    Customers,
    dump_customers,
    share_customers,
)
from edgeproxy.config.edge.residency import find_home
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings, Pushed
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.key_list import KeyList

if TYPE_CHECKING:
    from edgeproxy.config.references import Fault
    from edgeproxy.config.source import Source
from edgeproxy.config.load import Loaded, get_settings, pause_garbage_collection

MANY_CUSTOMERS = 10_000
"""Customers and keys in a file that is large."""
SETTINGS_MAX = 1_000
"""Different settings of customers and keys that are copied at most. Many take a third of the time of loading."""

NOT_FOR_WORKERS: "dict[str, bool | set[str]]" = {
    **dict.fromkeys(("admin", "customers", "keys", "proxy", "residency", "usage"), True),
    "tracing": {"headers", "tls"},
}
"""Settings that workers do not get, or get in another form."""


def load_edge(path: Path, environ: Mapping[str, str], *, files: bool = True) -> EdgeSettings:
    """Load the settings of a file and its includes. Raises ConfigError with every problem.

    Without `files` the certificates and keys that it names are not read. So people without access to these can find the
    edge's addresses.
    """
    settings = get_settings(try_load_edge(path, environ, files=files))
    assert settings is not None
    return settings


def load_customers(path: Path, environ: Mapping[str, str]) -> Pushed:
    """Load the customers and the hub of a file, which need not configure anything to serve. Raises ConfigError.

    Files that it names are not read, because nothing is served here.
    """
    with pause_garbage_collection():
        customers = get_settings(_load_customers_source(path, environ))
    assert customers is not None
    return customers


def try_load_edge(
    path: Path,
    environ: Mapping[str, str],
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[EdgeFile], Iterable[Fault]] | None" = None,
) -> Loaded[EdgeSettings]:
    """Load a file like `load_edge`, but return its problems. `parts`: the file may be a part of another one.

    `also` finds further faults in a configuration that has no others.
    """
    # Imported late: workers restore dumped settings, and need neither a YAML parser nor the checks. All are imported,
    # and the models are built, before a file is read. Otherwise what lives on lies between the many objects of a large
    # file, and keeps their memory: 35 MiB with 100,000 customers.
    from edgeproxy.config.edge.references import find_faults  # noqa: F401
    from edgeproxy.config.source import Source

    for model in (Customer, Key, EdgeFile):
        model.model_rebuild()
    with pause_garbage_collection():
        loaded = load_edge_source(Source(path, environ), parts=parts, files=files, also=also)
        dumped = pickle.dumps(loaded) if _keeps_memory(loaded.settings) else None
    if dumped is not None:
        del loaded
        gc.collect()  # It empties the free lists, whose objects lie between the others, too.
        loaded = pickle.loads(dumped)
    return_freed_memory()
    return loaded


def _keeps_memory(settings: EdgeSettings | None) -> bool:
    """Return whether few settings lie between the many freed objects of a large file, and keep their memory.

    Read back once they are freed too, they lie elsewhere. With 100,000 customers that leaves 20 MiB less.
    """
    if settings is None or len(settings.customers) + len(settings.keys) < MANY_CUSTOMERS:
        return False
    customers, keys = CustomerMap.from_customers(settings.customers), KeyList.from_keys(settings.keys)
    return len(customers.terms) + len(keys.list_others()) < SETTINGS_MAX


def load_edge_source(
    source: "Source",
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[EdgeFile], Iterable[Fault]] | None" = None,
) -> Loaded[EdgeSettings]:
    """Check a source and build the settings. See `try_load_edge`."""
    from edgeproxy.config.check import Check, Kind
    from edgeproxy.config.edge.references import find_faults

    written = Check(source, Kind(EdgeFile, find_faults), parts=parts, files=files, also=also).run()
    settings = None if written is None else _build_settings(written, source.sha256)
    return Loaded(settings, source.problems, source.signs)


def _build_settings(written: EdgeFile, sha256: str) -> EdgeSettings:
    """Build the settings of a file. `usage` and `directory` are the home's if residencies are configured."""
    packed = CustomerMap(written.customers)
    settings = EdgeSettings.model_construct(**{**vars(written), "customers": packed}, sha256=sha256)
    home = find_home(written.residency)
    if home is None:
        return settings
    residency = written.residency[home]
    return settings.model_copy(update={"usage": residency.usage, "directory": residency.directory})


def _load_customers_source(path: Path, environ: Mapping[str, str]) -> Loaded[Pushed]:
    from edgeproxy.config.check import Check, Kind
    from edgeproxy.config.edge.references import find_faults
    from edgeproxy.config.source import Source

    source = Source(path, environ)
    kind = Kind(Pushed, find_faults)
    pushed = Check(source, kind, files=False, lists=True).run()
    return Loaded(pushed, source.problems, source.signs)


def dump_settings(settings: EdgeSettings) -> bytes:
    """Return the settings for a worker: one line of JSON without the customers, then the packed customers and keys.

    `restore_settings` reads them. Workers do not ship usage, connect to the hub
    or answer operators, so they do not get the collector's token, the password of the hub, the tokens of the admin
    listener, or the headers for the receiver of spans.
    """
    return b"\n".join((_dump_rest(settings), dump_customers(settings)))


def share_settings(settings: EdgeSettings) -> tuple[bytes, SealedMemory | None]:
    """Return the settings for a worker as `dump_settings` does, and memory that has the customers and keys in place of
    the message. See `share_customers`.
    """
    customers, memory = share_customers(settings)
    return b"\n".join((_dump_rest(settings), customers)), memory


def _dump_rest(settings: EdgeSettings) -> bytes:
    worker_settings = settings.model_copy(update={"hub": Hub(url=settings.hub.name)})
    return worker_settings.model_dump_json(by_alias=True, exclude=NOT_FOR_WORKERS).encode()


def restore_settings(dumped: bytes, memory: MemoryReceiver = NO_MEMORY) -> tuple[EdgeSettings, Customers]:
    """Return dumped settings with their customers and keys, from the message or from `memory`.

    It may run in a thread while others work, because no single step takes long.
    """
    with pause_garbage_collection(), separate_large_blocks():
        rest, _, packed = dumped.partition(b"\n")
        settings, customers = EdgeSettings.model_validate_json(rest), Customers(packed, memory)
    return_freed_memory()
    return settings, customers
