"""The configuration files that commands take: their options, and loading them with every problem printed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.config.collector import Settings as CollectorSettings
    from edgeproxy.config.models import Settings
    from edgeproxy.config.regions import Settings as BeaconSettings

ConfigFile = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The configuration: edge.yaml.")]
CollectorFile = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The collector's configuration: collector.yaml.")
]

BeaconFile = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The beacon's configuration: regions.yaml.")
]


def load_file(path: Path, *, files: bool = True) -> "Settings":
    """The settings of a file, see config.load; where they cannot be used, prints every problem and exits."""
    from edgeproxy.config.load import load
    from edgeproxy.config.problems import ConfigErrors

    try:
        return load(path, os.environ, files=files)
    except ConfigErrors as errors:
        fail(str(errors), 2)


def load_collector_file(path: Path) -> "CollectorSettings":
    """Load the settings of a collector's file; where they cannot be used, print every problem and exit."""
    from edgeproxy.config.load import load_collector
    from edgeproxy.config.problems import ConfigErrors

    try:
        return load_collector(path, os.environ)
    except ConfigErrors as errors:
        fail(str(errors), 2)


def load_regions_file(path: Path) -> "BeaconSettings":
    """Load the settings of a beacon's file; where they cannot be used, print every problem and exit."""
    from edgeproxy.config.load import load_regions
    from edgeproxy.config.problems import ConfigErrors

    try:
        return load_regions(path, os.environ)
    except ConfigErrors as errors:
        fail(str(errors), 2)
