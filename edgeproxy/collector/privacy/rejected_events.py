"""Rejected events of customers, which no column says whose they are: the event itself does. Pure."""

from collections.abc import Collection

import orjson
import sqlalchemy as sa

from edgeproxy.collector.database.schema import dead_letters


def match_events(names: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a rejected event has one of these names anywhere; what it names `names_one` says."""
    return sa.or_(*(dead_letters.c.event.contains(f'"{name}"', autoescape=True) for name in names))


def names_one(event: str, names: Collection[str], *, if_cut_off: bool) -> bool:
    """Return whether a rejected event is of one of these customers: in its own form, or as a CloudEvent's subject.

    One that was cut off, and has such a name anywhere, may be theirs or another's: then it is `if_cut_off`.
    """
    try:
        content = orjson.loads(event)
    except orjson.JSONDecodeError:
        return if_cut_off
    return isinstance(content, dict) and _names_one(content.get("customer", content.get("subject")), names)


def _names_one(value: object, names: Collection[str]) -> bool:
    """Return whether a value is one of these names, or has one in it: a service may have sent a list of customers."""
    if isinstance(value, dict | list):
        return any(_names_one(one, names) for one in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value in names
