"""Shared reads: the API calls of one page read each value once."""

from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

T = TypeVar("T")
ReadValues = dict[Hashable, object]
"""Values that were read, by key."""

_VALUES: ContextVar[ReadValues | None] = ContextVar("what was read for the page of this context", default=None)


@contextmanager
def reading_once(values: ReadValues | None) -> Iterator[None]:
    """Share `values` among the `fetch_once` calls of one page; None: no sharing, for requests that change data."""
    token = _VALUES.set(values)
    try:
        yield
    finally:
        _VALUES.reset(token)


async def fetch_once(key: Hashable, fetch: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `fetch`, or its earlier result for this key and page.

    Concurrent calls may each fetch a value that is not shared yet.
    """
    values = _VALUES.get()
    if values is None:
        return await fetch()
    if key not in values:
        values[key] = await fetch()
    return cast(T, values[key])
