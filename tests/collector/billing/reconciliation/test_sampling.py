"""Which sums are read: all of few; of many those in doubt, the dearest, and each of the others once a week."""

from edgeproxy.collector.billing.reconciliation.sampling import DAYS, Weight, choose_pairs

PAIRS = {(f"customer-{number}", "tokens"): Weight(number % 50 != 7, number) for number in range(1000)}


def test_small_sample_reads_every_pair() -> None:
    assert choose_pairs(PAIRS, 20_000, 1000) == set(PAIRS)


def test_of_many_each_is_read_within_a_week_and_some_each_day() -> None:
    days = [choose_pairs(PAIRS, 20_000 + day, 999) for day in range(DAYS)]
    assert set().union(*days) == set(PAIRS)
    doubtful = {pair for pair, weight in PAIRS.items() if not weight.is_confirmed}
    dearest = {pair for pair, weight in PAIRS.items() if weight.cents >= 990}
    assert len(dearest) == 10
    for day in days:
        assert doubtful | dearest <= day
        assert 100 < len(day) < 250
    assert choose_pairs(PAIRS, 20_000 + DAYS, 999) == days[0]
