"""`edgeproxy` with a bug: its handlers accept any customer in a request, and list all customers without one.

It simulates a missing WHERE, to test the protection behind it: `python -m tests.support.unguarded collector -c FILE`.
"""

from edgeproxy import cli
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder


def _any_customer(_: Holder, customer: str | None) -> str | None:
    return customer


def _no_question(_: Holder, __: str | None) -> None:
    pass


if __name__ == "__main__":
    auth.customer_of = _any_customer
    auth.require_own = _no_question
    cli.app()
