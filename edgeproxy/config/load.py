"""From files to settings, and from one process to another."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.config import people
from edgeproxy.config.models import Settings, Written
from edgeproxy.config.people import People
from edgeproxy.config.problems import ConfigErrors, Problem
from edgeproxy.config.signs import Sign

if TYPE_CHECKING:
    from edgeproxy.config.references import Fault


class Loaded(NamedTuple):
    """What came of loading a file."""

    settings: Settings | None
    """None where there are problems, and of a part, which makes no settings."""
    problems: list[Problem]
    """Every one, in the order of files and lines."""
    signs: dict[str, Sign]
    """All files that were read, or should have been, as they were then."""


def load(path: Path, environ: Mapping[str, str], *, files: bool = True) -> Settings:
    """The settings that a file makes, with those that it includes; raises ConfigErrors with every problem.

    Without `files` the certificates and keys that it names are not looked at: not everybody may who wants to know
    where the edge listens.
    """
    settings = _unless_wrong(attempt(path, environ, files=files))
    assert settings is not None
    return settings


def check(path: Path, environ: Mapping[str, str]) -> Settings | None:
    """`load`, also of a file that is a part: one that others include, such as tiers.yaml. It makes no settings."""
    return _unless_wrong(attempt(path, environ, parts=True))


def attempt(
    path: Path,
    environ: Mapping[str, str],
    *,
    parts: bool = False,
    files: bool = True,
    also: "Callable[[Written], Iterable[Fault]] | None" = None,
) -> Loaded:
    """`load`, or with `parts` `check`, for those who go on whatever comes of it.

    `also` finds what else is wrong with a configuration in which nothing is.
    """
    # Not at the top: workers restore what was loaded, and need neither a YAML parser nor the checks.
    from edgeproxy.config.check import Check
    from edgeproxy.config.source import Source

    with unswept():
        source = Source(path, environ)
        written = Check(source, parts=parts, files=files, also=also).run()
    settings = None if written is None else Settings.model_construct(**vars(written), sha256=source.sha256)
    return Loaded(settings, source.problems, source.signs)


def _unless_wrong(loaded: Loaded) -> Settings | None:
    if loaded.problems:
        raise ConfigErrors(loaded.problems)
    return loaded.settings


def dump(settings: Settings) -> bytes:
    """Settings for another process to `restore`: all but the people as JSON on one line, then a line for each of these.

    Takes a second for a hundred thousand keys.
    """
    rest = settings.model_dump_json(by_alias=True, exclude={"customers", "keys"}).encode()
    return b"\n".join((rest, *people.dump(settings)))


def restore(dumped: bytes) -> tuple[Settings, People]:
    """The settings that were dumped, without customers and keys, and these.

    Can be done in a thread while others have work to do: nothing in it takes long by itself.
    """
    known = People()
    with unswept():
        begin = dumped.find(b"\n") + 1
        settings = Settings.model_validate_json(dumped[: begin - 1] if begin else dumped)
        while begin:
            end = dumped.find(b"\n", begin)
            known.add(dumped[begin:end] if end > 0 else dumped[begin:])
            begin = end + 1
    return settings, known


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
