"""From files to settings, and from one process to another."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.config.models import Settings
from edgeproxy.config.problems import ConfigErrors


def load(path: Path, environ: Mapping[str, str], *, files: bool = True) -> Settings:
    """The settings that a file makes, with those that it includes; raises ConfigErrors with every problem.

    Without `files` the certificates and keys that it names are not looked at: not everybody may who wants to know
    where the edge listens.
    """
    settings = _load(path, environ, parts=False, files=files)
    assert settings is not None
    return settings


def check(path: Path, environ: Mapping[str, str]) -> Settings | None:
    """`load`, also of a file that is a part: one that others include, such as tiers.yaml. It makes no settings."""
    return _load(path, environ, parts=True, files=True)


def _load(path: Path, environ: Mapping[str, str], *, parts: bool, files: bool) -> Settings | None:
    # Not at the top: workers restore what was loaded, and need neither a YAML parser nor the checks.
    from edgeproxy.config.check import Check
    from edgeproxy.config.source import Source

    with unswept():
        source = Source(path, environ)
        written = Check(source, parts=parts, files=files).run()
    if source.problems:
        raise ConfigErrors(source.problems)
    return None if written is None else Settings.model_construct(**vars(written), sha256=source.sha256)


def dump(settings: Settings) -> bytes:
    """Settings as JSON, for another process to `restore`."""
    return settings.model_dump_json(by_alias=True).encode()


def restore(dumped: bytes) -> Settings:
    """The settings that were dumped."""
    with unswept():
        return Settings.model_validate_json(dumped)


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
