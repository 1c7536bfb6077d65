"""What a page reads once, however many calls of the API it takes to show it."""

from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

T = TypeVar("T")
ReadValues = dict[Hashable, object]
"""What was read, by what it is."""

_VALUES: ContextVar[ReadValues | None] = ContextVar("what was read for the page of this context", default=None)


@contextmanager
def reading_once(values: ReadValues | None) -> Iterator[None]:
    """Have `fetch_once` look among these values meanwhile, which calls of one page share; None: for what changes
    anything.
    """
    token = _VALUES.set(values)
    try:
        yield
    finally:
        _VALUES.reset(token)


async def fetch_once(key: Hashable, fetch: Callable[[], Awaitable[T]]) -> T:
    """Return what `fetch` returns, or what it returned for this key before, where it is for the same page.

    Calls that are made side by side may each fetch what none of them has yet.
    """
    values = _VALUES.get()
    if values is None:
        return await fetch()
    if key not in values:
        values[key] = await fetch()
    return cast(T, values[key])
