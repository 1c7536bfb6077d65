"""The settings of `edgeproxy quick`: one upstream, one open route, at most one limit, no file."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.explain import explain_errors
from edgeproxy.config.problems import ConfigError, Problem

ROWS = {"customers": "1000", "addresses": "20000", "end_users": "1000"}
"""Rows of the tables. There are no customers, and one limit per address."""

OPTIONS = {"upstreams": "--to", "listen": "--listen", "admin": "--admin", "tiers": "--rate"}
"""The option of each section."""


def load_quick(to: str, *, listen: str, admin: str | None, rate: str | None, state: Path) -> EdgeSettings:
    """Return settings that forward everything to the URL `to` without keys, with the limit `rate` per address.

    The texts come from the command line. Raises ConfigError, whose fields are the options.
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
