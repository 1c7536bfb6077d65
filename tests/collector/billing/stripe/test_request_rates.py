"""Token buckets towards Stripe."""

from edgeproxy.collector.billing.stripe.request_rates import MINUTE, Bucket, RequestPacer


def test_a_second_s_worth_at_once_and_then_the_rate() -> None:
    bucket = Bucket(10, now=100.0)
    waits = [bucket.reserve_slot(200.0) for _ in range(30)]
    assert waits[:10] == [0.0] * 10
    assert [round(wait, 6) for wait in waits[10:13]] == [0.1, 0.2, 0.3]
    assert bucket.reserve_slot(300.0) == 0.0


def test_request_rate_halves_on_refusals_and_recovers_in_quiet_minutes() -> None:
    bucket = Bucket(64, now=0.0)
    for _ in range(9):
        bucket.halve(100.0)
    assert (bucket.rate, bucket.is_crowded) == (32, True)
    for second in range(101, 120):
        bucket.halve(second)
    assert bucket.rate == 1
    bucket.reserve_slot(119 + MINUTE - 1)
    assert bucket.rate == 1
    for minute in range(1, 8):
        bucket.reserve_slot(119 + minute * MINUTE)
    assert (bucket.rate, bucket.is_crowded) == (64, False)


def test_how_long_it_was_crowded_and_quiet() -> None:
    bucket = Bucket(64, now=0.0)
    assert (bucket.crowded_seconds(3600.0), bucket.quiet_seconds(3600.0)) == (0.0, 3600.0)
    for second in (4000, 4030, 4080):
        bucket.halve(second)
    assert (bucket.crowded_seconds(4090.0), bucket.quiet_seconds(4090.0)) == (80.0, 10.0)
    assert bucket.crowded_seconds(4080.0 + MINUTE) == 0.0
    bucket.halve(5000.0)
    assert bucket.crowded_seconds(5001.0) == 0.0, "a burst is no crowd"


def test_request_pacer_limits_each_endpoint_and_all_together() -> None:
    pace = RequestPacer(whole=8, endpoint=4)
    assert [pace.reserve_slot("one", 50.0) for _ in range(6)] == [0.0] * 4 + [0.25, 0.5]
    assert [pace.reserve_slot("two", 50.0) for _ in range(4)] == [0.0, 0.0, 0.125, 0.25]
    assert pace.reserve_slot("one", 60.0) == 0.0
