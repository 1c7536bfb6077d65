"""Settings of affinity, and refused settings that would let clients choose their endpoint."""

import pytest

from tests.config.conftest import LEAST

UPSTREAM = "upstreams: {api: {endpoints: [http://127.0.0.1:9001], balance: %s}}\n" + LEAST.splitlines()[1] + "\n"
SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("balance", "hashed", "cookie"),
    [
        ("{hash: address}", "address", None),
        ("{hash: customer, cookie: none}", "customer", None),
        (f"{{hash: header  X-Room, secret: {SECRET}}}", "header X-Room", None),
        (f"{{hash: cookie SID, secret: {SECRET}}}", "cookie SID", None),
        (f"{{cookie: edge, secret: {SECRET}}}", None, "edge"),
    ],
)
def test_balances(loaded, balance, hashed, cookie):
    settings = loaded(UPSTREAM % balance, alone=True).upstreams["api"].balance
    assert (settings.hash, settings.cookie) == (hashed, cookie)


A_SECRET = 'balance: would let clients choose their endpoint, write secret: "${AFFINITY_SECRET}"'


@pytest.mark.parametrize(
    ("balance", "problem"),
    [
        ("{}", "balance: has neither hash nor cookie, write one of them, or leave balance out"),
        ("{hash: address, cookie: a}", "balance: has both hash and cookie, write one of them, or leave balance out"),
        ("{cookie: edge}", A_SECRET),
        ("{hash: header X-Room}", A_SECRET),
        ("{hash: cookie SID, secret: ''}", A_SECRET),
        ("{cookie: edge, secret: short}", "secret: has 5 characters, fewer than 16, openssl rand -hex 16 makes one"),
        ("{hash: query x}", "hash: 'query x' is no value of a request, address, customer, header NAME or cookie NAME"),
    ],
)
def test_balances_that_cannot_be_meant(problems, balance, problem):
    (found,) = problems(UPSTREAM % balance)
    assert found.endswith(problem), found


def test_a_balance_of_another_shape_is_left_to_the_model(problems):
    assert len(problems(UPSTREAM % "hash")) == 1
