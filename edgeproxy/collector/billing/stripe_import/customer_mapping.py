"""The mapping of Stripe customers to ours: by an existing link, metadata, the file, or e-mail. Pure.

Nothing is guessed: two of ours for one at Stripe, or two at Stripe for one of ours, are a conflict.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe.customers import CUSTOMER
from edgeproxy.collector.billing.stripe_import.map_file import MapRow

MappedBy = Literal["link", "metadata", "file", "e-mail"]


class OurCustomer(NamedTuple):
    """The fields of our customer that the mapping needs."""

    id: str
    name: str
    external_id: str | None
    emails: frozenset[str]
    """Contacts and the alert address, in lower case."""
    stripe_id: str | None
    """The linked Stripe customer."""
    is_deleting: bool


class CustomerMatch(NamedTuple):
    """A Stripe customer, and its match here."""

    stripe_customer: StripeObject
    customer: OurCustomer | None = None
    by: MappedBy | None = None
    why: str = ""
    """The reason why it has no match."""
    is_conflict: bool = False

    @property
    def stripe_id(self) -> str:
        """The id at Stripe."""
        return str(self.stripe_customer["id"])


def map_customers(
    stripe_customers: Iterable[StripeObject],
    customers: Sequence[OurCustomer],
    rows: Mapping[str, MapRow],
    metadata_key: str = CUSTOMER,
) -> list[CustomerMatch]:
    """Return the match of each Stripe customer, in order.

    Metadata and the file name our customers by name, id or `external_id`.
    """
    directory = _Directory(customers)
    # Each by itself first. Only all matches together show two that share a customer.
    matches = [_match_customer(stripe_customer, directory, rows, metadata_key) for stripe_customer in stripe_customers]
    by_customer: dict[str, list[CustomerMatch]] = defaultdict(list)
    for match in matches:
        if match.customer is not None:
            by_customer[match.customer.id].append(match)
    return [_reject_shared(match, by_customer) for match in matches]


class _Directory:
    """Our customers by their possible names."""

    def __init__(self, customers: Sequence[OurCustomer]) -> None:
        self.by_name: dict[str, dict[str, OurCustomer]] = defaultdict(dict)
        self.by_email: dict[str, dict[str, OurCustomer]] = defaultdict(dict)
        self.by_stripe_id = {customer.stripe_id: customer for customer in customers if customer.stripe_id is not None}
        for customer in customers:
            for name in {customer.id, customer.name, customer.external_id} - {None}:
                self.by_name[str(name)][customer.id] = customer
            for email in customer.emails:
                self.by_email[email][customer.id] = customer


def _match_customer(
    stripe_customer: StripeObject, directory: _Directory, rows: Mapping[str, MapRow], metadata_key: str
) -> CustomerMatch:
    """Return the match of a single Stripe customer, regardless of the others."""
    candidates: dict[str, OurCustomer] = {}
    by: MappedBy | None = None
    unknown: list[str] = []
    for way, name in _list_names(stripe_customer, rows, metadata_key):
        named = directory.by_name.get(name, {})
        if not named:
            unknown.append(f"its {way} names {name!r}, and there is no such customer")
        candidates |= named
        # The first way that names a customer is the most important one.
        by = by or (way if named else None)
    if (linked := directory.by_stripe_id.get(stripe_customer["id"])) is not None:
        candidates[linked.id] = linked
        # A link that this collector made is certain, so it is the reason to state.
        by = "link"
    # An address is the weakest sign. It counts only if nothing else names the customer, not if a name is wrong.
    if not candidates and not unknown:
        email = (stripe_customer.get("email") or "").lower()
        if not email:
            return CustomerMatch(stripe_customer, why="it has no e-mail, and neither metadata nor the file names it")
        candidates, by = directory.by_email.get(email, {}), "e-mail"
        if not candidates:
            return CustomerMatch(stripe_customer, why="no customer has its e-mail, and nothing else names it")
    if not candidates:
        return CustomerMatch(stripe_customer, why="; ".join(unknown))
    if len(candidates) > 1:
        names = ", ".join(sorted(candidate.name for candidate in candidates.values()))
        return CustomerMatch(stripe_customer, why=f"it may be each of {names}", is_conflict=True)
    (customer,) = candidates.values()
    match = CustomerMatch(stripe_customer, customer, by)
    if customer.is_deleting:
        return _reject(match, f"{customer.name} is being deleted")
    # A customer has one customer at Stripe.
    if customer.stripe_id not in (None, match.stripe_id):
        return _reject(match, f"{customer.name} is linked to {customer.stripe_id} already")
    return match


def _list_names(
    stripe_customer: StripeObject, rows: Mapping[str, MapRow], metadata_key: str
) -> list[tuple[MappedBy, str]]:
    """Return the explicit names for a Stripe customer, most important first."""
    metadata = stripe_customer.get("metadata") or {}
    names: list[tuple[MappedBy, str]] = [
        ("metadata", metadata[key]) for key in dict.fromkeys((CUSTOMER, metadata_key)) if metadata.get(key)
    ]
    if (row := rows.get(stripe_customer["id"])) is not None:
        names.append(("file", row.ours))
    return names


def _reject_shared(match: CustomerMatch, by_customer: Mapping[str, list[CustomerMatch]]) -> CustomerMatch:
    """Return a match, or a conflict if two Stripe customers match one customer. A match by e-mail yields."""
    if match.customer is None:
        return match
    others = [other for other in by_customer[match.customer.id] if other.stripe_id != match.stripe_id]
    if match.by != "e-mail":
        others = [other for other in others if other.by != "e-mail"]
    if not others:
        return match
    ids = ", ".join(sorted(other.stripe_id for other in others))
    return _reject(match, f"{match.customer.name} is {ids} as well, by {others[0].by}")


def _reject(match: CustomerMatch, why: str) -> CustomerMatch:
    return CustomerMatch(match.stripe_customer, why=why, is_conflict=True)
