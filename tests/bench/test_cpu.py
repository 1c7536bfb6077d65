"""CPU time as the kernel writes it, and what lies between two readings."""

import os
import time

import pytest

from loadtest.bench.measure import cpu
from loadtest.bench.measure.cpu import Spent


def test_schedstat_is_time_on_the_core_and_time_waited_for_it() -> None:
    assert cpu.parse("49528991 3352526 25\n") == Spent(ran=49528991, waited=3352526)


def test_a_process_that_began_in_between_counts_from_its_start() -> None:
    before = {10: Spent(1000, 50)}
    after = {10: Spent(1700, 60), 11: Spent(300, 5)}
    assert cpu.between(before, after) == Spent(1000, 15)


def test_a_process_that_ended_in_between_is_an_error() -> None:
    with pytest.raises(ValueError, match="process 10 ended"):
        cpu.between({10: Spent(1000, 50)}, {})


def test_own_time_is_read_to_within_a_scheduler_tick() -> None:
    """The kernel brings a running thread's figure up to date at its ticks, every 10 ms at most."""
    own, before = os.getpid(), time.process_time()
    read = cpu.of_process(own).ran / 1e9
    while time.process_time() - before < 0.1:
        pass
    assert cpu.of_process(own).ran / 1e9 - read == pytest.approx(0.1, abs=0.05)


def test_cpu_usage_splits_system_and_user_time() -> None:
    own, before = os.getpid(), cpu.of_process(os.getpid())
    began = os.times()
    with open("/dev/zero", "rb", buffering=0) as zeros:
        while os.times().system - began.system < 0.3:
            zeros.read(1 << 20)
    assert (cpu.of_process(own) - before).system_share > 0.5
    assert Spent(5, 0).system_share == 0.0
