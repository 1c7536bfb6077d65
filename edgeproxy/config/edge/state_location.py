"""The state directory and the admin listener of an edge, read from a file that may have any other fault.

Commands for a running edge are needed most while its file is broken.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from edgeproxy.config import parsers
from edgeproxy.config.edge.admin import Admin, read_admin
from edgeproxy.config.source import Source

STATE = re.compile(r"^state:[ \t]*([\"']?)([^\"'#${}\[\]\s]+)\1[ \t]*(?:#.*)?$", re.MULTILINE)
"""The field `state` in a file that is not valid YAML."""


class TablesLocation(BaseModel):
    """The field of `tables` with their place."""

    model_config = ConfigDict(extra="ignore")

    dir: Annotated[Path, BeforeValidator(parsers.read_folder)] | None = None


class StateLocation(BaseModel):
    """The fields that locate a running edge, and its files on disk."""

    model_config = ConfigDict(extra="ignore")

    state: Annotated[Path, BeforeValidator(parsers.read_folder)] = Path("var/edge")
    tables: TablesLocation = TablesLocation()
    admin: Annotated[Admin, BeforeValidator(read_admin)] = Admin()


def locate_state(path: Path, environ: Mapping[str, str]) -> StateLocation:
    """Read as much as possible. The rest gets defaults."""
    tree = Source(path, environ).tree
    fields = {}
    for name in StateLocation.model_fields:
        try:
            StateLocation.model_validate({name: tree[name]})
        except (KeyError, ValidationError):
            continue
        fields[name] = tree[name]
    if "state" not in fields and (written := STATE.search(_read_text(path))):
        fields["state"] = written[2]
    return StateLocation.model_validate(fields)


def has_no_settings(path: Path, environ: Mapping[str, str]) -> bool:
    """Return whether a file cannot contain any setting, because it is binary or a list, for example."""
    return not Source(path, environ).tree and not re.search(r"^[a-z_]+:", _read_text(path), re.MULTILINE)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
