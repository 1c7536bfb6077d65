"""The retry budget: time is an argument, so nothing here waits."""

import random

import pytest

from edgeproxy.edge.proxy.upstreams.retry_budget import RETRIES_ALWAYS, RetryBudget


class Service:
    """So many answers so far, and a budget for it."""

    def __init__(self, share: float = 0.2, answers: int = 0) -> None:
        self.answers = answers
        self.budget = RetryBudget(share, lambda: self.answers)

    def spends(self) -> int:
        """Retries until there is no more."""
        spent = 0
        while self.budget.spend():
            spent += 1
            assert spent < 100_000
        return spent


def test_a_service_that_is_hardly_asked_may_retry_three_times_a_second() -> None:
    service = Service()
    assert service.spends() == RETRIES_ALWAYS == 30
    service.budget.sweep(5.0)
    assert service.spends() == 0
    service.budget.sweep(15.0)
    assert service.spends() == 30


def test_retry_budget_is_a_share_of_recent_answers() -> None:
    service = Service(share=0.2)
    service.answers = 1000
    assert service.spends() == 200
    service.answers = 1010
    assert service.spends() == 2


def test_only_answers_and_retries_of_the_last_ten_seconds_matter() -> None:
    service = Service(share=0.5, answers=1_000_000)
    for half in range(100):
        service.budget.sweep(half / 2)
        service.answers += 50
    assert service.spends() == pytest.approx(500, abs=26)
    for half in range(100, 110):
        service.budget.sweep(half / 2)
    assert service.spends() == 0
    for half in range(110, 123):
        service.budget.sweep(half / 2)
    assert service.spends() == RETRIES_ALWAYS


def test_zero_retry_share_allows_no_retry() -> None:
    service = Service(share=0.0)
    service.answers = 1000
    assert service.spends() == 0


@pytest.mark.parametrize("seed", range(5))
def test_random_retries_stay_within_the_share_of_ten_seconds(seed: int) -> None:
    chance = random.Random(seed)
    service = Service(share=0.25)
    history: list[tuple[int, int]] = []
    for half in range(200):
        service.budget.sweep(half / 2)
        new = chance.choice((0, 10, 200, 1000))
        service.answers += new
        spent = sum(service.budget.spend() for _ in range(chance.choice((0, 5, 400))))
        history.append((new, spent))
        window = history[-21:]
        if spent:
            assert sum(n for _, n in window) <= max(RETRIES_ALWAYS, 0.25 * sum(n for n, _ in window))


def test_few_marks_are_kept() -> None:
    service = Service()
    for half in range(1000):
        service.budget.sweep(half / 2)
    assert len(service.budget._marks) <= 22
