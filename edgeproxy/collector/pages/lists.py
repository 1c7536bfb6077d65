"""Lists of objects that pages show a part of. Pure."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Mapping[str, object])


def paginate(whole: Sequence[T], name: str, most: int, after: str | None) -> tuple[Sequence[T], str]:
    """Return a page of objects of the API, and the cursor of the next page, which is empty on the last one.

    The page begins after the object whose field `name` is `after`.
    """
    names = [str(one[name]) for one in whole]
    first = names.index(after) + 1 if after in names else 0
    end = first + most
    return whole[first:end], names[end - 1] if end < len(names) else ""
