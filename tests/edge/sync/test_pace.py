"""The pace of a supervisor's reports to the hub: its share of a core, and the number of open calls."""

import pytest

from edgeproxy.edge.sync.pace import CPU_SAVED_SECONDS_MAX, CPU_SHARE, LATE_SECONDS, UNDER_WAY_MAX, UNDER_WAY_MIN, Pace


def test_no_more_than_its_share_of_a_core_is_spent() -> None:
    pace, now, spent = Pace(0.0), 0.0, 0.0
    while now < 10:
        pace.charge(0.004)
        spent += 0.004
        now += 0.004 + pace.compute_pause_seconds(now + 0.004)
    assert spent / now == pytest.approx(CPU_SHARE, rel=0.01)


def test_unspent_cpu_time_is_saved_up_to_a_maximum() -> None:
    pace = Pace(0.0)
    assert pace.compute_pause_seconds(1000.0) == 0
    pace.charge(CPU_SAVED_SECONDS_MAX)
    assert pace.compute_pause_seconds(1000.0) == 0
    pace.charge(0.01)
    assert pace.compute_pause_seconds(1000.0) == pytest.approx(0.01 / CPU_SHARE)


def test_pace_window_doubles_each_round_trip_with_timely_answers() -> None:
    pace = Pace(0.0)
    for round_trip in range(3):
        for _ in range(pace.window):
            pace.record_answer(round_trip * 0.1, 0.1, 0.1)
    assert pace.window == 8 * UNDER_WAY_MIN
    for _ in range(2 * UNDER_WAY_MAX):
        pace.record_answer(1.0, 0.1, 0.1)
    assert pace.window == UNDER_WAY_MAX


def test_pace_halves_its_window_once_for_simultaneous_late_answers() -> None:
    pace = Pace(0.0)
    for _ in range(1000):
        pace.record_answer(0.0, 0.1, 0.1)
    before, late = pace.window, 0.1 + 2 * LATE_SECONDS
    for _ in range(100):
        pace.record_answer(10.0, late, 0.1)
    assert pace.window == before // 2
    for times in range(50):
        pace.record_answer(20.0 + times, late, 0.1)
    assert pace.window == UNDER_WAY_MIN


def test_reset_pace_starts_with_the_smallest_window() -> None:
    pace = Pace(0.0)
    for _ in range(1000):
        pace.record_answer(0.0, 0.1, 0.1)
    pace.reset()
    assert pace.window == UNDER_WAY_MIN
