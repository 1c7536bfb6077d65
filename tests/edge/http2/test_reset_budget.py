"""The budget of resets towards a service."""

from edgeproxy.edge.http2.reset_budget import RESETS_MAX, RESETS_PER_SECOND, YOUNG_MAX, YOUNG_SECONDS, ResetBudget

OLD = -100.0
"""When a stream was opened that is young no more."""


def test_a_burst_is_bounded_and_comes_back_with_time() -> None:
    budget = ResetBudget(0.0)
    assert [budget.spend(0.0, OLD) for _ in range(RESETS_MAX + 1)] == [True] * RESETS_MAX + [False]
    assert [budget.spend(2.0, OLD) for _ in range(2 * RESETS_PER_SECOND + 1)] == [True] * 2 * RESETS_PER_SECOND + [
        False
    ]
    assert sum(budget.spend(1000.0, OLD) for _ in range(1000)) == RESETS_MAX


def test_bounds_of_known_services_are_kept() -> None:
    """200 within 30 seconds, and half of the streams if these are 500 or more and young."""
    for opened_a_second in (1, 20, 400):
        budget, resets, young = ResetBudget(0.0), [], 0
        for number in range(120 * opened_a_second):
            now = number / opened_a_second
            budget.count_opened()
            if budget.spend(now, now):
                resets.append(now)
                young += 1
            assert number < 499 or young < (number + 1) / 2
        assert max(sum(at <= reset < at + 30 for reset in resets) for at in resets) <= 200


def test_reset_budget_always_allows_resets_of_old_streams() -> None:
    budget = ResetBudget(0.0)
    young = sum(budget.spend(float(now), float(now)) for now in range(1000))
    assert young == YOUNG_MAX
    assert budget.spend(1000.0, 1000.0 - YOUNG_SECONDS)
