"""From files to settings, and from one process to another."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from edgeproxy.config import customers
from edgeproxy.config.customers import Customers
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.models import Hub, Pushed, Settings, Written
from edgeproxy.config.problems import ConfigErrors, Problem

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


def load(path: Path, environ: Mapping[str, str], *, files: bool = True) -> Settings:
    """Load the settings of a file and of those that it includes. Raises ConfigErrors with every problem.

    Without `files` the certificates and keys that it names are not looked at: not everybody may who wants to know
    where the edge listens.
    """
    settings = _unless_wrong(attempt(path, environ, files=files))
    assert settings is not None
    return settings


def load_collector(path: Path, environ: Mapping[str, str]) -> "collector.Settings":
    """`load` of the collector's file."""
    from edgeproxy.config.source import Source

    with unswept():
        settings = _unless_wrong(_of_collector(Source(path, environ), environ))
    assert settings is not None
    return settings


def load_regions(path: Path, environ: Mapping[str, str]) -> "regions.Settings":
    """`load` of the beacon's file."""
    from edgeproxy.config.source import Source

    settings = _unless_wrong(_of_regions(Source(path, environ)))
    assert settings is not None
    return settings


def load_customers(path: Path, environ: Mapping[str, str]) -> Pushed:
    """`load` for the sake of customers and the hub alone: the file need not say what to serve. Files that it names are
    not looked at; nobody serves with them here."""
    with unswept():
        found = _unless_wrong(_of_customers(path, environ))
    assert found is not None
    return found


def load_plans(path: Path, environ: Mapping[str, str]) -> "catalog.Written":
    """`load` of a plans.yaml."""
    from edgeproxy.config.source import Source

    found = _unless_wrong(_of_plans(Source(path, environ)))
    assert found is not None
    return found


def check(
    path: Path, environ: Mapping[str, str]
) -> "Settings | collector.Settings | catalog.Written | regions.Settings | None":
    """`load` of a file of any kind, also of one that is a part: one that others include, such as tiers.yaml. It
    makes no settings."""
    from edgeproxy.config import catalog, collector, regions
    from edgeproxy.config.source import Source

    with unswept():
        source = Source(path, environ)
        if catalog.is_meant(source.tree):
            return _unless_wrong(_of_plans(source))
        if collector.is_meant(source.tree):
            return _unless_wrong(_of_collector(source, environ))
        if regions.is_meant(source.tree):
            return _unless_wrong(_of_regions(source))
        return _unless_wrong(_of_edge(source, parts=True))


def attempt(
    path: Path,
    environ: Mapping[str, str],
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[Written], Iterable[Fault]] | None" = None,
) -> Loaded[Settings]:
    """`load`, or with `parts` `check`, for those who go on whatever comes of it.

    `also` finds what else is wrong with a configuration in which nothing is.
    """
    # Not at the top: workers restore what was loaded, and need neither a YAML parser nor the checks.
    from edgeproxy.config.source import Source

    with unswept():
        return _of_edge(Source(path, environ), parts=parts, files=files, also=also)


def _of_edge(
    source: "Source",
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[Written], Iterable[Fault]] | None" = None,
) -> Loaded[Settings]:
    from edgeproxy.config.check import EDGE, Check

    written = Check(source, EDGE, parts=parts, files=files, also=also).run()
    settings = None if written is None else Settings.model_construct(**vars(written), sha256=source.sha256)
    return Loaded(settings, source.problems, source.signs)


def _of_collector(source: "Source", environ: Mapping[str, str]) -> "Loaded[collector.Settings]":
    from edgeproxy.config import collector
    from edgeproxy.config.check import Check
    from edgeproxy.config.source import Source

    sold: Loaded[catalog.Written] = Loaded(None, [], {})

    def also(written: collector.Written) -> "Iterable[Fault]":
        nonlocal sold
        if written.billing is not None:
            file = Source(written.billing.plans, environ)
            sold = _of_plans(file)
            source.add(file.sha256.encode())
        return () if sold.settings is None else collector.faults_of_plans(written, sold.settings.plans)

    written = Check(source, collector.KIND, also=also).run()
    problems, signs = [*source.problems, *sold.problems], {**source.signs, **sold.signs}
    if written is None or problems:
        return Loaded(None, problems, signs)
    plans = {} if sold.settings is None else sold.settings.plans
    settings = collector.Settings.model_construct(**vars(written), sha256=source.sha256, plans=plans)
    return Loaded(settings, problems, signs)


def _of_plans(source: "Source") -> "Loaded[catalog.Written]":
    from edgeproxy.config import catalog
    from edgeproxy.config.check import Check

    return Loaded(Check(source, catalog.KIND).run(), source.problems, source.signs)


def _of_regions(source: "Source") -> "Loaded[regions.Settings]":
    from edgeproxy.config import regions
    from edgeproxy.config.check import Check

    written = Check(source, regions.KIND).run()
    settings = None if written is None else regions.Settings.model_construct(**vars(written), sha256=source.sha256)
    return Loaded(settings, source.problems, source.signs)


def _of_customers(path: Path, environ: Mapping[str, str]) -> Loaded[Pushed]:
    from edgeproxy.config.check import EDGE, Check, Kind
    from edgeproxy.config.source import Source

    source = Source(path, environ)
    kind = Kind(Pushed, EDGE.faults)
    return Loaded(Check(source, kind, files=False, lists=True).run(), source.problems, source.signs)


def _unless_wrong(loaded: Loaded[S]) -> S | None:
    if loaded.problems:
        raise ConfigErrors(loaded.problems)
    return loaded.settings


def dump(settings: Settings) -> bytes:
    """Settings for a worker to `restore`: all but the customers as JSON on one line, then a line for each of these.

    Takes a second for a hundred thousand keys. Workers ship nothing, ask no hub and answer no operator: they are not
    told the collector's token, nor more of the hub than which it is, nor who may ask the admin listener.
    """
    told = settings.model_copy(update={"hub": Hub(url=settings.hub.name)})
    rest = told.model_dump_json(by_alias=True, exclude={"admin", "customers", "keys", "usage"}).encode()
    return b"\n".join((rest, *customers.dump(settings)))


def restore(dumped: bytes) -> tuple[Settings, Customers]:
    """Restore settings that were dumped without customers and keys, with these.

    Can be done in a thread while others have work to do: nothing in it takes long by itself.
    """
    known = Customers()
    with unswept():
        begin = dumped.find(b"\n") + 1
        settings = Settings.model_validate_json(dumped[: begin - 1] if begin else dumped)
        while begin:
            end = dumped.find(b"\n", begin)
            known.add(dumped[begin:end] if end > 0 else dumped[begin:])
            begin = end + 1
    return settings, known


@contextmanager
def unswept() -> Iterator[None]:
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
