"""Translation of customer names in requests and answers, if customers have pseudonyms (accounts/pseudonyms.py).

Handlers see only pseudonyms. A request may contain names or pseudonyms. Its answer contains names that the caller may
see: a customer sees its own name, edges and beacons see none.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from edgeproxy.collector.accounts.customers import has_pseudonyms
from edgeproxy.collector.accounts.pseudonyms import (
    NOBODY,
    Readers,
    fetch_display_names,
    find_pseudonyms,
    resolve_name,
    resolve_names,
    show_names,
)
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.endpoint import CSV, HTML, JSON, JSON_LINES, SHOWN_TO, TEXT
from edgeproxy.collector.api.responses import PROBLEM
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.settings import CollectorSettings

IN_QUERIES, IN_BODIES = ("customer", "name", "target"), ("customer", "customers")
"""The fields of query strings and of bodies that name existing customers."""
REVEALED = frozenset((JSON, CSV, TEXT, JSON_LINES, HTML, PROBLEM))
"""The media types of answers that show names."""
MACHINES = frozenset({"edge", "beacon"})
"""Roles that see only pseudonyms."""

M = TypeVar("M", bound=BaseModel)


class CustomerNames:
    """The translation between names and pseudonyms under the current settings."""

    def __init__(self, database: Database, get_settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._get_settings = get_settings

    @property
    def are_pseudonyms(self) -> bool:
        """True if customers have pseudonyms."""
        return has_pseudonyms(self._get_settings())

    async def resolve_path(self, parameters: Mapping[str, str]) -> Mapping[str, str]:
        """Return the parameters of a path with the customer's pseudonym."""
        if (name := parameters.get("customer")) is None:
            return parameters
        async with self._database.reading() as connection:
            return {**parameters, "customer": await resolve_name(connection, name)}

    async def resolve_fields(self, model: M, fields: Iterable[str]) -> M:
        """Return a query or a body with pseudonyms in the given fields."""
        values = {name: value for name in fields if (value := getattr(model, name, None))}
        if not values:
            return model
        async with self._database.reading() as connection:
            for field, value in values.items():
                if isinstance(value, str):
                    values[field] = await resolve_name(connection, value)
                else:
                    pseudonyms = await resolve_names(connection, value)
                    values[field] = tuple(pseudonyms.get(name, name) for name in value)
        return model.model_copy(update=values)

    async def reveal(self, request: web.Request, response: web.StreamResponse) -> None:
        """Replace pseudonyms in an answer by names that the reader may see."""
        if not isinstance(response, web.Response) or response.content_type not in REVEALED:
            return
        body, readers = response.body, request.get(SHOWN_TO, NOBODY)
        if isinstance(body, bytes) and (pseudonyms := find_pseudonyms(body, readers)):
            async with self._database.reading() as connection:
                response.body = show_names(body, await fetch_display_names(connection, pseudonyms))


def find_readers(holder: Holder | None) -> Readers:
    """Return the names that a caller may see."""
    return NOBODY if holder is None or holder.roles <= MACHINES else build_readers(holder.customer)


def build_readers(customer: str | None) -> Readers:
    """Return the names that a customer may see or, for None, an operator or a service."""
    return Readers(is_staff=True) if customer is None else Readers(pseudonyms=frozenset({customer}))
