"""Where an edge keeps its state and is asked, of a file in which anything else may be wrong: for commands about an edge
that runs, which are needed most when its file is broken."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from edgeproxy.config import collector, parsers
from edgeproxy.config.admin import Admin, read_admin
from edgeproxy.config.source import Source

STATE = re.compile(r"^state:[ \t]*([\"']?)([^\"'#${}\[\]\s]+)\1[ \t]*(?:#.*)?$", re.MULTILINE)
"""`state` in a file that is no YAML."""

Meant = Literal["edge", "collector", "part"]


class Tables(BaseModel):
    """The field of `tables` that says where they are."""

    model_config = ConfigDict(extra="ignore")

    dir: Annotated[Path, BeforeValidator(parsers.read_folder)] | None = None


class Whereabouts(BaseModel):
    """What is to be known of an edge to ask it, or to read what it left on disk."""

    model_config = ConfigDict(extra="ignore")

    state: Annotated[Path, BeforeValidator(parsers.read_folder)] = Path("var/edge")
    tables: Tables = Tables()
    admin: Annotated[Admin, BeforeValidator(read_admin)] = Admin()


def whereabouts(path: Path, environ: Mapping[str, str]) -> Whereabouts:
    """Read what can be read; for the rest the defaults stand."""
    tree = Source(path, environ).tree
    found = {}
    for name in Whereabouts.model_fields:
        try:
            Whereabouts.model_validate({name: tree[name]})
        except (KeyError, ValidationError):
            continue
        found[name] = tree[name]
    if "state" not in found and (written := STATE.search(_text(path))):
        found["state"] = written[2]
    return Whereabouts.model_validate(found)


def meant(path: Path, environ: Mapping[str, str]) -> Meant | None:
    """Tell what kind of configuration a file is; None where it does not show."""
    source = Source(path, environ)
    if collector.is_meant(source.tree):
        return "collector"
    if source.tree.keys() & {"upstreams", "routes"}:
        return "edge"
    return "part" if source.is_part else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
