"""Fields that calls of several objects set alike."""

import re
from collections.abc import Mapping

from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction

EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def set_fields(body: Body, params: Fields, *names: str) -> None:
    """Set these parameters as fields; an empty one unsets."""
    for name in names:
        if name in params:
            body[name] = None if params[name] == "" else params[name]


def merge_metadata(body: Body, params: Fields, name: str = "metadata") -> None:
    """Merge metadata: an empty value removes its key, an empty string all keys."""
    metadata = dict(body.get(name) or {})
    change = params.get(name)
    if change == "":
        metadata = {}
    for key, value in (change or {}).items():
        if value == "":
            metadata.pop(key, None)
        else:
            metadata[key] = value
    body[name] = metadata


def compute_previous_attributes(before: Fields, after: Fields) -> Body:
    """Return `previous_attributes` of an event: the former values of changed fields.

    New fields have null. An object has only its changed fields.
    """
    changed: Body = {}
    for name in sorted({*before, *after}):
        was, is_now = before.get(name), after.get(name)
        if name.startswith("_") or was == is_now:
            continue
        if isinstance(was, Mapping) and isinstance(is_now, Mapping) and was.get("object") != "list":
            changed[name] = compute_previous_attributes(was, is_now)
        else:
            changed[name] = was
    return changed


def require_email(params: Fields, name: str) -> None:
    """Refuse a parameter that is no e-mail address; an empty one unsets."""
    if (email := params.get(name)) and not EMAIL.fullmatch(email):
        raise invalid_request(f"Invalid email address: {email}", name, "email_invalid")


def require_supported(params: Fields, *names: str) -> None:
    """Refuse parameters that Stripe knows and the sandbox does not."""
    for name in names:
        if params.get(name) not in (None, "", [], {}):
            raise unsupported(f"the parameter {name}", name)


def get_customer(tx: Transaction, params: Fields) -> Body:
    """Return the customer of a call; raises the refusal of an unknown one."""
    require_supported(params, "customer_account")
    if "customer" not in params:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    return tx.get("customer", params["customer"], "customer")


def set_test_clock(body: Body, customer: Fields) -> Body:
    """Set an object's test clock to its customer's test clock."""
    body["test_clock"] = customer.get("test_clock")
    return body
