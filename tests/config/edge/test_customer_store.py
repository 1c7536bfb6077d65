"""The customers of a worker: texts of customers are held once, up to a number of them."""

import pytest

from edgeproxy.config.edge import customer_store
from edgeproxy.config.edge.customer_store import Customers


def test_customers_are_found_when_no_more_texts_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_store, "TERMS_MAX", 1)
    customers = Customers()
    for line in (b'customer a {"tier":"free"}', b'customer b {"tier":"pro"}', b'customer c {"tier":"free"}'):
        customers.add(line)
    assert [customers.get_customer(name).tier for name in "abc"] == ["free", "pro", "free"]
