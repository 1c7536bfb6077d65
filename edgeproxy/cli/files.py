"""The configuration files that commands take: their options, and loading them with every problem printed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.config.collector.regions import BeaconSettings
    from edgeproxy.config.collector.settings import CollectorSettings
    from edgeproxy.config.edge.state_location import StateLocation
    from edgeproxy.config.file_kinds import FileKind

ConfigFile = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The configuration: edge.yaml.")]
CollectorFile = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The collector's configuration: collector.yaml.")
]

BeaconFile = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The beacon's configuration: regions.yaml.")
]


StateFolder = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The state directory of the edge, whatever its file says.")
]

KINDS: "dict[FileKind, str]" = {
    "edge": "the configuration of an edge",
    "collector": "the configuration of a collector",
    "part": "a part, which another file has to include",
}


def refuse_other_kind(path: Path, expected: "FileKind") -> None:
    """Exit with 2 if a file is of another kind than the expected one."""
    if why := describe_other_kind(path, expected):
        fail(why, 2)


def describe_other_kind(path: Path, expected: "FileKind") -> str:
    """Return the error if a file is of another kind than the expected one, else ""."""
    from edgeproxy.config.file_kinds import detect_file_kind

    kind = detect_file_kind(path, os.environ)
    return "" if kind in (None, expected) else f"{path} is {KINDS[kind]}, and this command takes {KINDS[expected]}"


def locate_edge(path: Path | None, state: Path | None) -> "StateLocation":
    """Locate an edge by its file, even if other settings in it are invalid, or by its state directory."""
    from edgeproxy.config.edge.state_location import StateLocation, has_no_settings, locate_state

    if path is None:
        location = StateLocation()
    elif not path.exists() and state is None:
        fail(f"{path} is not there: say --state DIR", 2)
    else:
        refuse_other_kind(path, "edge")
        location = locate_state(path, os.environ)
        if state is None and not location.model_fields_set and has_no_settings(path, os.environ):
            fail(f"{path} has no settings of an edge: say --state DIR", 2)
    return location if state is None else location.model_copy(update={"state": state})


def load_collector_file(path: Path) -> "CollectorSettings":
    """Load the settings of a collector's file. Print every problem and exit if they are invalid."""
    from edgeproxy.config.collector.load import load_collector
    from edgeproxy.config.outgoing import use_outgoing
    from edgeproxy.config.problems import ConfigError

    try:
        settings = load_collector(path, os.environ)
    except ConfigError as error:
        refuse_other_kind(path, "collector")
        fail(str(error), 2)
    use_outgoing(settings)
    return settings


def load_regions_file(path: Path) -> "BeaconSettings":
    """Load the settings of a beacon's file. Print every problem and exit if they are invalid."""
    from edgeproxy.config.collector.load import load_regions
    from edgeproxy.config.outgoing import use_outgoing
    from edgeproxy.config.problems import ConfigError

    try:
        settings = load_regions(path, os.environ)
    except ConfigError as error:
        fail(str(error), 2)
    use_outgoing(settings)
    return settings
