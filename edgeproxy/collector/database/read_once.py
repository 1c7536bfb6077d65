"""Shared reads: the API calls of one page read each value once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

T = TypeVar("T")
ReadValues = dict[Hashable, asyncio.Future[object]]
"""Values that were or are being read, by key."""

_VALUES: ContextVar[ReadValues | None] = ContextVar("what was read for the page of this context", default=None)


@contextmanager
def reading_once(values: ReadValues | None) -> Iterator[None]:
    """Share `values` among the `fetch_once` calls of one page; None: no sharing, for requests that change data."""
    token = _VALUES.set(values)
    try:
        yield
    finally:
        _VALUES.reset(token)


def compute_once(key: Hashable, compute: Callable[[], T]) -> T:
    """Return the result of the pure function `compute`, or its earlier result for this key and page."""
    values = _VALUES.get()
    if values is None:
        return compute()
    if (shared := values.get(key)) is None:
        shared = values[key] = asyncio.get_running_loop().create_future()
        shared.set_result(compute())
    return cast(T, shared.result())


async def fetch_once(key: Hashable, fetch: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `fetch`, or the result of another call for this key and page.

    A concurrent call waits for the one that fetches, and fetches itself if that one fails.
    """
    values = _VALUES.get()
    if values is None:
        return await fetch()
    while (shared := values.get(key)) is not None:
        if not shared.done():
            await asyncio.wait([shared])
        if not shared.cancelled():
            return cast(T, shared.result())
    result: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    values[key] = result
    try:
        value = await fetch()
    except BaseException:
        del values[key]
        result.cancel()
        raise
    result.set_result(value)
    return value
