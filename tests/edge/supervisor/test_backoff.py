from edgeproxy.edge.supervisor.backoff import FIRST_WAIT_SECONDS, LONG_LIFE_SECONDS, MAX_WAIT_SECONDS, compute_backoff


def waits(*lives: float) -> list[float]:
    """The waits after workers that lived so long, one after the other."""
    early, found = 0, []
    for lived in lives:
        early, wait = compute_backoff(early, lived)
        found.append(wait)
    return found


def test_a_worker_that_lived_long_is_replaced_at_once() -> None:
    assert waits(LONG_LIFE_SECONDS, 3600.0) == [0.0, 0.0]


def test_each_early_death_doubles_the_wait_up_to_the_longest() -> None:
    assert waits(*[0.01] * 8) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_long_life_resets_the_backoff() -> None:
    assert waits(0.0, 0.0, LONG_LIFE_SECONDS, 0.0) == [
        FIRST_WAIT_SECONDS,
        2 * FIRST_WAIT_SECONDS,
        0.0,
        FIRST_WAIT_SECONDS,
    ]


def test_a_year_of_early_deaths_does_not_overflow() -> None:
    assert compute_backoff(10_000_000, 0.0) == (10_000_001, MAX_WAIT_SECONDS)
