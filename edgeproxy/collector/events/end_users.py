"""End users in stored events: pseudonyms for people named in dimensions, hashes for items of `unique` meters."""

from collections.abc import Iterator, Mapping, Sequence

from edgeproxy.collector.accounts.end_user_pseudonyms import Person, get_or_create_pseudonyms, is_pseudonym
from edgeproxy.collector.accounts.end_users import fetch_secrets, get_or_create_secrets, hash_item, is_hash
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.config.dimensions import OTHER, format_dimensions, parse_dimensions
from edgeproxy.config.meters import Meter


async def replace_people(
    database: Database, meters: Mapping[str, Meter], sent: Sequence[tuple[int, UsageEvent]]
) -> Sequence[tuple[int, UsageEvent]]:
    """Return events, each with its index, with pseudonyms in place of the people named in their dimensions.

    A pseudonym sent by a service stays. Raises KeysUnavailableError and SealedValueError.
    """
    marked = {name: dimensions for name, meter in meters.items() if (dimensions := list_people(meter))}
    if not marked:
        return sent
    people = {one for _, event in sent for _, one in _find_people(marked.get(event.meter, ()), event)}
    if not people:
        return sent
    known, replaced = await get_or_create_pseudonyms(database, people), []
    for index, event in sent:
        own = {name: known[one] for name, one in _find_people(marked.get(event.meter, ()), event)}
        split = format_dimensions({**parse_dimensions(event.dimensions), **own})
        replaced.append((index, event._replace(dimensions=split)))
    return replaced


def list_people(meter: Meter) -> tuple[str, ...]:
    """Return the dimensions of a meter that name people."""
    return tuple(name for name, dimension in meter.dimensions.items() if dimension.person)


def _find_people(marked: Sequence[str], event: UsageEvent) -> Iterator[tuple[str, Person]]:
    """Yield the people of an event, each with the dimension that names it."""
    for name in marked:
        value = parse_dimensions(event.dimensions).get(name, OTHER)
        if value != OTHER and not is_pseudonym(value):
            yield name, (event.customer, value)


async def hash_events(
    database: Database, sent: Sequence[tuple[int, UsageEvent]], *, is_replay: bool = False
) -> list[tuple[int, UsageEvent]]:
    """Return events, each with its index, with their items in stored form.

    In a replay an item that is already hashed stays, because a dead letter rejected after hashing contains the hash.
    """
    clear = {
        index: event.item for index, event in sent if event.item is not None and not (is_replay and is_hash(event.item))
    }
    customers = {event.customer for index, event in sent if index in clear}
    if not customers:
        return list(sent)
    async with database.reading() as connection:
        secrets = await fetch_secrets(connection, customers)
    if customers - secrets.keys():
        async with database.writing() as connection:
            secrets = await get_or_create_secrets(connection, customers)
    hashed = []
    for index, event in sent:
        item = hash_item(secrets[event.customer], clear[index]) if index in clear else event.item
        hashed.append((index, event._replace(item=item)))
    return hashed
