"""What meters may count."""

from typing import get_args

from edgeproxy.config.meters import MEASURES, CountName, compute_request_amount


def test_whatever_may_be_written_is_in_the_table() -> None:
    assert set(get_args(CountName)) == MEASURES.keys()


def test_requests_and_their_costs_are_known_before_there_is_an_answer() -> None:
    known = {name: amount for name in get_args(CountName) if (amount := compute_request_amount(name, 5))}
    assert known == {"requests": 1, "cost": 5}
