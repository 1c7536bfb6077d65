"""The outcome of loading a file."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.problems import ConfigError, Problem

S = TypeVar("S")


class Loaded(NamedTuple, Generic[S]):
    """The outcome of loading a file."""

    settings: S | None
    """The settings; None where there are problems, and for a part."""
    problems: list[Problem]
    """Every one, in the order of files and lines."""
    signs: dict[str, FileSignature]
    """The signatures of all files that were read, or should have been."""


def get_settings(loaded: Loaded[S]) -> S | None:
    """Return the settings that were loaded. Raises ConfigError where there are problems."""
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded.settings


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Stop garbage collection for a while: it would go through a million new objects again and again, and find none.

    It takes half of the time that a hundred thousand keys need.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
