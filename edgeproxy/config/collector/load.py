"""Settings from collector.yaml, plans.yaml or regions.yaml."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.config.collector import catalog, regions
    from edgeproxy.config.collector import settings as collector_settings
    from edgeproxy.config.references import Fault
    from edgeproxy.config.source import Source
from edgeproxy.config.load import Loaded, get_settings, pause_garbage_collection


def load_collector(path: Path, environ: Mapping[str, str]) -> "collector_settings.CollectorSettings":
    """Load the settings of a collector.yaml. Raises ConfigError with every problem."""
    from edgeproxy.config.source import Source

    with pause_garbage_collection():
        settings = get_settings(load_collector_source(Source(path, environ), environ))
    assert settings is not None
    return settings


def load_regions(path: Path, environ: Mapping[str, str]) -> "regions.BeaconSettings":
    """Load the settings of a regions.yaml. Raises ConfigError with every problem."""
    from edgeproxy.config.source import Source

    settings = get_settings(load_regions_source(Source(path, environ)))
    assert settings is not None
    return settings


def load_plans(path: Path, environ: Mapping[str, str]) -> "catalog.PlansFile":
    """Load a plans.yaml. Raises ConfigError with every problem."""
    from edgeproxy.config.source import Source

    plans = get_settings(load_plans_source(Source(path, environ)))
    assert plans is not None
    return plans


def load_plans_text(name: str, text: str) -> "catalog.PlansFile":
    """Load plans from the text of a request. No file is read, whatever the text names.

    Raises ConfigError with every problem.
    """
    from edgeproxy.config.check import Check
    from edgeproxy.config.collector import catalog
    from edgeproxy.config.source import TextSource

    source = TextSource(name, text)
    plans = get_settings(Loaded(Check(source, catalog.KIND, files=False).run(), source.problems, source.signs))
    assert plans is not None
    return plans


def load_collector_source(
    source: "Source", environ: Mapping[str, str]
) -> "Loaded[collector_settings.CollectorSettings]":
    """Check a collector.yaml and the plans.yaml that it names, and build the settings."""
    from edgeproxy.config.check import Check
    from edgeproxy.config.collector import references
    from edgeproxy.config.collector import settings as collector_settings
    from edgeproxy.config.source import Source

    plans_file: Loaded[catalog.PlansFile] = Loaded(None, [], {})

    def also(written: collector_settings.CollectorFile) -> "Iterable[Fault]":
        nonlocal plans_file
        if written.billing is not None:
            file = Source(written.billing.plans, environ)
            plans_file = load_plans_source(file)
            source.add_content(file.sha256.encode())
        yield from references.find_public_usage_faults(written)
        plans = {} if plans_file.settings is None else plans_file.settings.plans
        yield from references.find_sign_up_faults(written, None if plans_file.problems else plans)
        if plans_file.settings is not None:
            yield from references.find_plan_faults(written, plans_file.settings.plans)

    written = Check(source, references.KIND, also=also).run()
    problems, signs = [*source.problems, *plans_file.problems], {**source.signs, **plans_file.signs}
    if written is None or problems:
        return Loaded(None, problems, signs)
    plans = {} if plans_file.settings is None else plans_file.settings.plans
    settings = collector_settings.CollectorSettings.model_construct(
        written.model_fields_set, **vars(written), sha256=source.sha256, plans=plans
    )
    return Loaded(settings, problems, signs)


def load_plans_source(source: "Source") -> "Loaded[catalog.PlansFile]":
    """Check a plans.yaml."""
    from edgeproxy.config.check import Check
    from edgeproxy.config.collector import catalog

    return Loaded(Check(source, catalog.KIND).run(), source.problems, source.signs)


def load_regions_source(source: "Source") -> "Loaded[regions.BeaconSettings]":
    """Check a regions.yaml and build the settings."""
    from edgeproxy.config.check import Check
    from edgeproxy.config.collector import regions

    written = Check(source, regions.KIND).run()
    settings = (
        None if written is None else regions.BeaconSettings.model_construct(**vars(written), sha256=source.sha256)
    )
    return Loaded(settings, source.problems, source.signs)
