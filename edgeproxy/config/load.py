"""From files to settings, and from one process to another."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from edgeproxy.config import customers
from edgeproxy.config.customers import Customers
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.models import EdgeFile, Hub, Pushed, Settings
from edgeproxy.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from edgeproxy.config import catalog, collector, regions
    from edgeproxy.config.references import Fault
    from edgeproxy.config.source import Source

S = TypeVar("S")


class Loaded(NamedTuple, Generic[S]):
    """The outcome of loading a file."""

    settings: S | None
    """None where there are problems, and of a part, which makes no settings."""
    problems: list[Problem]
    """Every one, in the order of files and lines."""
    signs: dict[str, FileSignature]
    """All files that were read, or should have been, as they were then."""


def load_edge(path: Path, environ: Mapping[str, str], *, files: bool = True) -> Settings:
    """Load the settings of a file and of those that it includes. Raises ConfigError with every problem.

    Without `files` the certificates and keys that it names are not looked at: not everybody may who wants to know
    where the edge listens.
    """
    settings = _get_settings(try_load_edge(path, environ, files=files))
    assert settings is not None
    return settings


def load_collector(path: Path, environ: Mapping[str, str]) -> "collector.Settings":
    """`load_edge` of the collector's file."""
    from edgeproxy.config.source import Source

    with pause_garbage_collection():
        settings = _get_settings(_load_collector_source(Source(path, environ), environ))
    assert settings is not None
    return settings


def load_regions(path: Path, environ: Mapping[str, str]) -> "regions.BeaconSettings":
    """`load_edge` of the beacon's file."""
    from edgeproxy.config.source import Source

    settings = _get_settings(_load_regions_source(Source(path, environ)))
    assert settings is not None
    return settings


def load_customers(path: Path, environ: Mapping[str, str]) -> Pushed:
    """Load the customers and the hub of a file, which need not say what to serve. Files that it names are not read:
    nobody serves with them here. Raises ConfigError."""
    with pause_garbage_collection():
        customers = _get_settings(_load_customers_source(path, environ))
    assert customers is not None
    return customers


def load_plans(path: Path, environ: Mapping[str, str]) -> "catalog.PlansFile":
    """`load_edge` of a plans.yaml."""
    from edgeproxy.config.source import Source

    plans = _get_settings(_load_plans_source(Source(path, environ)))
    assert plans is not None
    return plans


def check_file(
    path: Path, environ: Mapping[str, str]
) -> "Settings | collector.Settings | catalog.PlansFile | regions.BeaconSettings | None":
    """`load_edge` of a file of any kind, also of one that is a part: one that others include, such as tiers.yaml. It
    makes no settings."""
    from edgeproxy.config import catalog, collector, regions
    from edgeproxy.config.source import Source

    with pause_garbage_collection():
        source = Source(path, environ)
        if catalog.is_plans_file(source.tree):
            return _get_settings(_load_plans_source(source))
        if collector.is_collector_file(source.tree):
            return _get_settings(_load_collector_source(source, environ))
        if regions.is_regions_file(source.tree):
            return _get_settings(_load_regions_source(source))
        return _get_settings(_load_edge_source(source, parts=True))


def try_load_edge(
    path: Path,
    environ: Mapping[str, str],
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[EdgeFile], Iterable[Fault]] | None" = None,
) -> Loaded[Settings]:
    """`load_edge`, or with `parts` `check_file`, for those who go on whatever comes of it.

    `also` finds what else is wrong with a configuration in which nothing is.
    """
    # Not at the top: workers restore what was loaded, and need neither a YAML parser nor the checks.
    from edgeproxy.config.source import Source

    with pause_garbage_collection():
        return _load_edge_source(Source(path, environ), parts=parts, files=files, also=also)


def _load_edge_source(
    source: "Source",
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[EdgeFile], Iterable[Fault]] | None" = None,
) -> Loaded[Settings]:
    from edgeproxy.config.check import EDGE, Check

    written = Check(source, EDGE, parts=parts, files=files, also=also).run()
    settings = None if written is None else Settings.model_construct(**vars(written), sha256=source.sha256)
    return Loaded(settings, source.problems, source.signs)


def _load_collector_source(source: "Source", environ: Mapping[str, str]) -> "Loaded[collector.Settings]":
    from edgeproxy.config import collector
    from edgeproxy.config.check import Check
    from edgeproxy.config.source import Source

    plans_file: Loaded[catalog.PlansFile] = Loaded(None, [], {})

    def also(written: collector.CollectorFile) -> "Iterable[Fault]":
        nonlocal plans_file
        if written.billing is not None:
            file = Source(written.billing.plans, environ)
            plans_file = _load_plans_source(file)
            source.add_content(file.sha256.encode())
        return () if plans_file.settings is None else collector.find_plan_faults(written, plans_file.settings.plans)

    written = Check(source, collector.KIND, also=also).run()
    problems, signs = [*source.problems, *plans_file.problems], {**source.signs, **plans_file.signs}
    if written is None or problems:
        return Loaded(None, problems, signs)
    plans = {} if plans_file.settings is None else plans_file.settings.plans
    settings = collector.Settings.model_construct(**vars(written), sha256=source.sha256, plans=plans)
    return Loaded(settings, problems, signs)


def _load_plans_source(source: "Source") -> "Loaded[catalog.PlansFile]":
    from edgeproxy.config import catalog
    from edgeproxy.config.check import Check

    return Loaded(Check(source, catalog.KIND).run(), source.problems, source.signs)


def _load_regions_source(source: "Source") -> "Loaded[regions.BeaconSettings]":
    from edgeproxy.config import regions
    from edgeproxy.config.check import Check

    written = Check(source, regions.KIND).run()
    settings = (
        None if written is None else regions.BeaconSettings.model_construct(**vars(written), sha256=source.sha256)
    )
    return Loaded(settings, source.problems, source.signs)


def _load_customers_source(path: Path, environ: Mapping[str, str]) -> Loaded[Pushed]:
    from edgeproxy.config.check import EDGE, Check, Kind
    from edgeproxy.config.source import Source

    source = Source(path, environ)
    kind = Kind(Pushed, EDGE.find_faults)
    return Loaded(Check(source, kind, files=False, lists=True).run(), source.problems, source.signs)


def _get_settings(loaded: Loaded[S]) -> S | None:
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded.settings


def dump_settings(settings: Settings) -> bytes:
    """Write settings for a worker: all but the customers as JSON on one line, then a line for each customer and key.

    `restore_settings` reads them. To write a hundred thousand keys takes a second. Workers ship nothing, ask no hub and
    answer no operator: they are not told the collector's token, nor more of the hub than which it is, nor who may ask
    the admin listener.
    """
    worker_settings = settings.model_copy(update={"hub": Hub(url=settings.hub.name)})
    rest = worker_settings.model_dump_json(by_alias=True, exclude={"admin", "customers", "keys", "usage"}).encode()
    return b"\n".join((rest, *customers.dump_customers(settings)))


def restore_settings(dumped: bytes) -> tuple[Settings, Customers]:
    """Restore settings that were dumped without customers and keys, with these.

    Can be done in a thread while others have work to do: nothing in it takes long by itself.
    """
    customer_store = Customers()
    with pause_garbage_collection():
        begin = dumped.find(b"\n") + 1
        settings = Settings.model_validate_json(dumped[: begin - 1] if begin else dumped)
        while begin:
            end = dumped.find(b"\n", begin)
            customer_store.add(dumped[begin:end] if end > 0 else dumped[begin:])
            begin = end + 1
    return settings, customer_store


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Without garbage collection: it would go through a million new objects again and again, and find none.

    It takes half of the time that a hundred thousand keys need.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
