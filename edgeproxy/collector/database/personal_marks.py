"""Entries of the map of personal data: types and values for columns and tables. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Subject(StrEnum):
    """A group of people that data may concern."""

    CUSTOMER = "customers and their contacts"
    END_USER = "end users of customers"
    OPERATOR = "operators"
    PUBLIC = "the public"


class PersonalData(NamedTuple):
    """Personal data in a column: its kind, the group of people, and the purpose."""

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


class TableEntry(NamedTuple):
    """The personal data in a table."""

    retention: str = ""
    """The retention of its rows. `for good` is followed by the reason."""
    personal: Mapping[str, PersonalData] = {}
    impersonal: str = ""
    """The other text and binary columns, separated by blanks."""
    owner: Owner | None = None
    """How to find the rows of a customer; None if rows do not belong to one customer."""
    erasure: Erasure = Erasure.NONE
    cleared: tuple[str, ...] = ()
    """The columns that erasure clears."""
    ended: tuple[str, ...] = ()
    """The columns that are cleared when the retention of their year's books ends."""
    operator_fields: Mapping[str, frozenset[str]] = {}
    """For JSON columns about operators: the members that name an operator, or that an operator wrote."""
    copies: str = "backups"


_CUSTOMER, _END_USER, _OPERATOR, _PUBLIC = Subject
CUSTOMER_ID = PersonalData("id of a customer, without meaning elsewhere", _CUSTOMER, "whose row it is")
CUSTOMER_NAME = PersonalData("name of a customer, which an operator chose", _CUSTOMER, "whose row it is")
EMAIL = PersonalData("e-mail address", _CUSTOMER, "signing in, and mail about the account")
EXTERNAL_ID = PersonalData("id in the operator's own system", _CUSTOMER, "finding the customer")
LABEL = PersonalData("name or e-mail address of the person who signed in", _CUSTOMER, "knowing who acts")
OPERATOR = PersonalData("name of a token, or name or e-mail address of a person", _OPERATOR, "accountability")
REASON = PersonalData("free text of an operator", _OPERATOR, "accountability")
SETTINGS = PersonalData("settings of a customer, among them free text", _CUSTOMER, "serving the customer")
STRIPE_ID = PersonalData("id at Stripe", _CUSTOMER, "billing")
DIMENSION = PersonalData("value of a dimension, as a service or an upstream reports it", _END_USER, "splitting usage")
END_USER_ID = PersonalData("id that a service chose", _END_USER, "counting once")
FREE = PersonalData("free text of a customer", _CUSTOMER, "telling apart what the customer has")
MESSAGE = PersonalData("text or JSON about a customer's account", _CUSTOMER, "telling customers and operators")
FAILURE = PersonalData("reason of a failure, which may quote an address", _CUSTOMER, "finding the fault")
HANDLED = {"acknowledged_by": LABEL, "acknowledged_why": REASON, "assigned_to": LABEL, "assigned_by": LABEL}
"""The columns with the people who handle an alert."""
ID, NAME, DELETES, CLEARS = Owner("customer", "id"), Owner("customer", "name"), Erasure.DELETES, Erasure.CLEARS
ONE = "a row for each of a few names"
DELETION = "until 30 days after the deletion of the customer (`retention.deleted`)"
BOOKS = "for good, as the books of a business are"
BOOKS_END = "10 years from the end of its year on (`retention.invoices`)"
"""Retention of columns that are cleared when the books of their year end."""
