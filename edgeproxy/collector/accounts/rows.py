"""The rows of customers, keys, flags and tokens as queries return them. Times are Unix milliseconds; JSON is text."""

from typing import Literal, NamedTuple

Role = Literal["edge", "beacon", "service", "aggregates", "read", "support", "billing", "admin"]


class CustomerRow(NamedTuple):
    """A row of `customers`."""

    id: str
    name: str
    external_id: str | None
    tier: str
    settings: str
    """JSON as under `customers` of edge.yaml."""
    metadata: str
    """JSON: texts by name."""
    rotate_every: int | None
    """Seconds."""
    created_at: int
    deleting_since: int | None
    erased_at: int | None
    version: int
    """Grows by one with each change. It is the ETag."""
    currency: str | None = None
    """The currency of all its charges, or None if none was chosen yet."""
    display_name: str | None = None
    """The name that people know the customer by if `name` is a pseudonym, else None."""
    public_key: str | None = None
    """The JWK that encrypts the secrets of new keys, in the form of `public_keys.py`, or None."""
    plan: str | None = None
    """The name of its plan without the version. This and the following are figures of lists (list_figures.py)."""
    spent: int | None = None
    """The cost of its period at `spent_at`, in its currency's smallest unit; None without a plan or until then."""
    spent_at: int | None = None
    """A Unix second."""
    overdue: int = 0
    """The amount due of overdue invoices, in its currency's smallest unit."""
    cap_used: int | None = None
    """Hundredths of a percent of its day's spending cap; None without a cap or before its first use."""
    cap_until: int | None = None
    """The Unix second when that day ends."""
    last_call_on: int | None = None
    """The Unix second at the start of the day when one of its keys was last used."""


class KeyRow(NamedTuple):
    """A row of `keys`, with the name of its customer and that customer's `rotate_every`."""

    id: str
    customer: str
    """The id of the customer."""
    customer_name: str
    sha256: str
    start: str
    created_at: int
    version: int
    name: str | None = None
    scopes: str | None = None
    """JSON."""
    limits: str | None = None
    """JSON."""
    budget: str | None = None
    """JSON."""
    expires_at: int | None = None
    revoked_at: int | None = None
    revoked_for: str | None = None
    last_used_on: int | None = None
    """The Unix second at the start of the day."""
    successor: str | None = None
    """The id of the key that replaces it."""
    next_key: str | None = None
    """The id of the key that will replace it once its customer has collected the secret."""
    rotate_every: int | None = None
    """Seconds."""


class FlagRow(NamedTuple):
    """A row of `flags`."""

    name: str
    settings: str
    """JSON as under `flags` of edge.yaml."""
    updated_at: int
    version: int


class TokenRow(NamedTuple):
    """A row of `tokens`, with either a role or a customer."""

    name: str
    role: Role | None
    customer: str | None
    edge: str | None
    region: str | None
    created_at: int
    created_by: str
    expires_at: int | None


class TokenMatch(NamedTuple):
    """A token, and the end of the secret that matched it; None if the secret has no end."""

    token: TokenRow
    secret_ends_at: int | None
