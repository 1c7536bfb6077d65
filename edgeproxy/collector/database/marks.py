"""Marks of columns and tables: personal data, owners, erasure, export, encryption and row-level security. Pure.

A mark stands at its column or table as `info`. The maps of other modules are derived from the marks: personal_data.py,
sealed_columns.py, row_security.py, and collector/privacy/export.py. `scripts/check` fails for text and binary columns
without a mark, and for tables without one. A column of the type `ImpersonalText` needs no mark.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypedDict, Unpack, cast

import sqlalchemy as sa


class Subject(StrEnum):
    """A group of people that data may concern."""

    CUSTOMER = "customers and their contacts"
    END_USER = "end users of customers"
    OPERATOR = "operators"
    PUBLIC = "the public"


class PersonalData(NamedTuple):
    """A kind of personal data: the group of people, and the purpose."""

    what: str
    subject: Subject
    purpose: str


class Erasure(StrEnum):
    """The effect of a customer's erasure on its rows of a table."""

    DELETES = "rows are deleted"
    CLEARS = "columns are cleared"
    NONE = "nothing"


class Owner(NamedTuple):
    """The column that identifies the customer of a row."""

    column: str
    by: str
    """`id` or `name` of the customer, or the parent table whose row the column refers to."""
    key: str = "id"
    """The column of the parent table that it refers to."""


class Facts(TypedDict, total=False):
    """The facts about a text or binary column. Each is its own key in the column's `info`."""

    personal: PersonalData | None
    """None: no person is concerned."""
    is_cleared: bool
    """Erasure of the customer clears the column."""
    is_ended: bool
    """The column is cleared when the retention of its year's books ends."""
    is_sealed: bool
    """The column holds a ciphertext instead of the value, if `encryption` is set."""
    sealed_in: str
    """The column of the ciphertext. This column then holds a keyed hash."""
    binds_ciphertexts: bool
    """Ciphertexts of the row are bound to this column instead of the primary key."""
    domain_of: str
    """The column of an address. This column holds its domain, or a keyed hash of that."""
    in_clear: str
    """The reason why the column is not encrypted."""
    encryption: str
    """Another way in which the column is encrypted."""
    operator_fields: frozenset[str]
    """For JSON about operators: the members that name an operator, or that an operator wrote."""
    is_secret: bool
    """The column is not exported."""


Info = dict[str, object]
"""The argument `info` of a column or a table."""

READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
CHANGE = ("SELECT", "INSERT", "UPDATE")
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
NO_RIGHTS: tuple[str, ...] = ()

SETTING = "edgeproxy.customer"
"""The setting of a PostgreSQL session with the name of the served customer."""
SERVED_NAME = f"current_setting('{SETTING}', true)"
"""The name of the served customer in SQL; null or empty if there is none."""


class TableMark(NamedTuple):
    """The facts about a table."""

    retention: str
    """The retention of its rows. `for good` is followed by the reason."""
    owner: Owner | None = None
    """The column that finds the rows of a customer; None if rows do not belong to one customer."""
    erasure: Erasure = Erasure.NONE
    copies: str = "backups"
    not_exported: str | None = None
    """The reason why personal data of a table without an owner is not exported."""
    rights: tuple[str, ...] = NO_RIGHTS
    """Rights of a transaction that serves a customer: to the customer's rows, or to a shared table."""
    condition: str | None = None
    """The SQL condition that a row belongs to the served customer, if the owner does not say so."""
    narrowed: str | Owner | None = None
    """A further condition, or a second owner: both must be the served customer."""
    content: str | None = None
    """The content of a table without rows of single customers."""
    facts: Mapping[str, Facts] = {}
    """The facts about each column with personal data."""

    @property
    def personal(self) -> Mapping[str, PersonalData]:
        """The personal data in each column."""
        return {name: data for name, facts in self.facts.items() if (data := facts["personal"]) is not None}

    @property
    def cleared(self) -> tuple[str, ...]:
        """The columns that erasure clears."""
        return tuple(name for name, facts in self.facts.items() if facts.get("is_cleared"))

    @property
    def ended(self) -> tuple[str, ...]:
        """The columns that are cleared when the retention of their year's books ends."""
        return tuple(name for name, facts in self.facts.items() if facts.get("is_ended"))

    @property
    def operator_fields(self) -> Mapping[str, frozenset[str]]:
        """For JSON columns about operators: the members that name an operator, or that an operator wrote."""
        return {name: facts["operator_fields"] for name, facts in self.facts.items() if "operator_fields" in facts}


def personal(what: str, subject: Subject, purpose: str, **facts: Unpack[Facts]) -> Info:
    """Mark a column with personal data of its own kind."""
    return {"personal": PersonalData(what, subject, purpose), **facts}


def mark(kind: Info, **facts: Unpack[Facts]) -> Info:
    """Mark a column with personal data of a kind below, and state further facts about the column."""
    return {**kind, **facts}


IMPERSONAL: Info = {"personal": None}
SECRET: Info = {**IMPERSONAL, "is_secret": True}


class ImpersonalText(sa.Text):
    """A text that concerns no person, for example an id, a state or the name of a meter."""


def of_customers(
    owner: Owner | None,
    retention: str,
    erasure: Erasure = Erasure.NONE,
    *,
    rights: tuple[str, ...] = NO_RIGHTS,
    condition: str | None = None,
    narrowed: str | Owner | None = None,
    copies: str = "backups",
    not_exported: str | None = None,
) -> Info:
    """Mark a table with rows of customers."""
    return {TABLE: TableMark(retention, owner, erasure, copies, not_exported, rights, condition, narrowed)}


def closed(content: str, retention: str, *, copies: str = "backups", not_exported: str | None = None) -> Info:
    """Mark a table that transactions serving a customer may not use."""
    return {TABLE: TableMark(retention, copies=copies, not_exported=not_exported, content=content)}


def shared(content: str, retention: str, *, copies: str = "backups") -> Info:
    """Mark a table without customers that transactions serving a customer may read."""
    return {TABLE: TableMark(retention, copies=copies, rights=READ, content=content)}


TABLE = "table"
"""The key of a table's mark in its `info`."""


def get_facts(column: sa.Column[object]) -> Facts:
    """Return the facts about a column. A column without a mark has none."""
    return cast(Facts, IMPERSONAL if isinstance(column.type, ImpersonalText) else column.info)


def get_table_mark(table: sa.Table) -> TableMark | None:
    """Return the mark of a table, or None if it has none."""
    mark: TableMark | None = table.info.get(TABLE)
    if mark is None:
        return None
    columns = {column.name: get_facts(column) for column in table.columns}
    return mark._replace(facts={name: facts for name, facts in columns.items() if facts.get("personal") is not None})


_CUSTOMER, _END_USER, _OPERATOR, _PUBLIC = Subject
CUSTOMER_ID = personal(
    "id of a customer, without meaning elsewhere", _CUSTOMER, "whose row it is", in_clear="it means nothing elsewhere"
)
CUSTOMER_NAME = personal(
    "name of a customer, which an operator chose",
    _CUSTOMER,
    "whose row it is",
    in_clear="rows are found, joined and billed by it",
)
EMAIL = personal("e-mail address", _CUSTOMER, "signing in, and mail about the account")
SUBSCRIBER = personal("e-mail address", _PUBLIC, "mail asked for")
EXTERNAL_ID = personal("id in the operator's own system", _CUSTOMER, "finding the customer")
LABEL = personal(
    "name or e-mail address of the person who signed in",
    _CUSTOMER,
    "knowing who acts",
    in_clear="an operator's, or of a contact who handles alerts",
)
OPERATOR = personal(
    "name of a token, or name or e-mail address of a person",
    _OPERATOR,
    "accountability",
    in_clear="an operator's, who answers for it",
)
REASON = personal(
    "free text of an operator", _OPERATOR, "accountability", in_clear="an operator's, for the books or for all to read"
)
SETTINGS = personal(
    "settings of a customer, among them free text",
    _CUSTOMER,
    "serving the customer",
    in_clear="edges serve by it: the directory has it too",
)
STRIPE_ID = personal(
    "id at Stripe",
    _CUSTOMER,
    "billing",
    in_clear="rows are found by it when Stripe tells of them; it means nothing without Stripe's key",
)
DIMENSION = personal(
    "value of a dimension, as a service or an upstream reports it",
    _END_USER,
    "splitting usage",
    in_clear="usage is summed by it, and the ledger proves it",
)
END_USER_ID = personal(
    "id that a service chose", _END_USER, "counting once", in_clear="what was counted is found by it"
)
FREE = personal(
    "free text of a customer",
    _CUSTOMER,
    "telling apart what the customer has",
    in_clear="it is told to edges, and shown with each key",
)
MESSAGE = personal(
    "text or JSON about a customer's account",
    _CUSTOMER,
    "telling customers and operators",
    in_clear="written with batches, which are taken while keys are away: names of customers, and numbers",
)
FAILURE = personal(
    "reason of a failure, which may quote an address",
    _CUSTOMER,
    "finding the fault",
    in_clear="the collector's or Stripe's own words",
)

ID, NAME, DELETES, CLEARS = Owner("customer", "id"), Owner("customer", "name"), Erasure.DELETES, Erasure.CLEARS
ONE = "a row for each of a few names"
DELETION = "until 30 days after the deletion of the customer (`retention.deleted`)"
BOOKS = "for good, as the books of a business are"
BOOKS_END = "10 years from the end of its year on (`retention.invoices`)"
"""Retention of columns that are cleared when the books of their year end."""
FOR_SUMS = "for good, as usage and invoices are summed by it"
PUBLIC = "for good, as the public log of what went wrong"
EDGE = "a row for each edge, for good: its chain of batches goes on from it"
TRAFFIC = "7 days by minute, 400 days by hour (`retention.traffic_minutes`, `retention.traffic_hours`)"
