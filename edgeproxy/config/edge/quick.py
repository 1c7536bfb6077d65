"""The settings of `edgeproxy quick`: one upstream, one open route, at most one limit, and no file."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.explain import explain_errors
from edgeproxy.config.problems import ConfigError, Problem

ROWS = {"customers": "1000", "addresses": "20000", "end_users": "1000"}
"""Rows of the tables: there are no customers, and one limit for each address."""

OPTIONS = {"upstreams": "--to", "listen": "--listen", "admin": "--admin", "tiers": "--rate"}
"""The option of each section."""


def load_quick(to: str, *, listen: str, admin: str | None, rate: str | None, state: Path) -> EdgeSettings:
    """Settings that pass everything on to the URL `to`, without keys, with `rate` for each address.

    The texts are those of the command line; raises ConfigError, whose fields are the options.
    """
    written: dict[str, object] = {
        "region": "local",
        "listen": listen,
        "state": str(state),
        "tables": ROWS,
        "tiers": {"anonymous": {"limits": [{"name": "anonymous", "rate": rate}]}} if rate else {},
        "upstreams": {"upstream": {"endpoints": [to]}},
        "routes": [{"path": "/*", "upstream": "upstream", "auth": "none"}],
        "sha256": hashlib.sha256(repr((to, listen, admin, rate)).encode()).hexdigest(),
    }
    if admin:
        written["admin"] = admin
    try:
        return EdgeSettings.model_validate(written)
    except ValidationError as error:
        raise ConfigError(
            Problem("", 0, OPTIONS[str(finding.path[0])], finding.what, finding.hint)
            for finding in explain_errors(error, lambda _: set())
        ) from None
