"""Files of any kind: how to detect the kind, and checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from edgeproxy.config.collector import catalog, references, regions
from edgeproxy.config.collector import settings as collector_settings
from edgeproxy.config.collector.load import load_collector_source, load_plans_source, load_regions_source
from edgeproxy.config.edge.load import load_edge_source
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.load import get_settings, pause_garbage_collection
from edgeproxy.config.source import Source

FileKind = Literal["edge", "collector", "part"]
CheckedSettings = (
    EdgeSettings | collector_settings.CollectorSettings | catalog.PlansFile | regions.BeaconSettings | None
)
"""Settings of a file of any kind. None: it is a part."""


def detect_file_kind(path: Path, environ: Mapping[str, str]) -> FileKind | None:
    """Detect the kind of a configuration file. None: it is unclear."""
    source = Source(path, environ)
    if references.is_collector_file(source.tree):
        return "collector"
    if source.tree.keys() & {"upstreams", "routes"}:
        return "edge"
    return "part" if source.is_part else None


def check_file(path: Path, environ: Mapping[str, str]) -> CheckedSettings:
    """Load a file of any kind. Raises ConfigError with every problem.

    Returns None for a part that others include, for example tiers.yaml, because it makes no settings.
    """
    with pause_garbage_collection():
        source = Source(path, environ)
        if catalog.is_plans_file(source.tree):
            return get_settings(load_plans_source(source))
        if references.is_collector_file(source.tree):
            return get_settings(load_collector_source(source, environ))
        if regions.is_regions_file(source.tree):
            return get_settings(load_regions_source(source))
        return get_settings(load_edge_source(source, parts=True))
