"""The result of loading a file."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.problems import ConfigError, Problem

S = TypeVar("S")


class Loaded(NamedTuple, Generic[S]):
    """The result of loading a file."""

    settings: S | None
    """The settings. None: there are problems, or the file is a part."""
    problems: list[Problem]
    """All problems, in the order of files and lines."""
    signs: dict[str, FileSignature]
    """The signatures of all files that were read or could not be read."""


def get_settings(loaded: Loaded[S]) -> S | None:
    """Return the loaded settings. Raises ConfigError if there are problems."""
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded.settings


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause garbage collection. It would scan a million new objects repeatedly and find no garbage.

    That takes half of the time to load a hundred thousand keys.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
