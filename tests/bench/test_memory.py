"""Memory as the kernel writes it."""

from loadtest.bench.measure.memory import Footprint, parse

ROLLUP = """\
557f225f4000-7ffea0e6c000 ---p 00000000 00:00 0                          [rollup]
Rss:                1764 kB
Pss:                 366 kB
Pss_Dirty:           108 kB
Private_Clean:        40 kB
Private_Dirty:       108 kB
"""


def test_a_rollup_is_resident_proportional_and_private_bytes() -> None:
    assert parse(ROLLUP) == Footprint(rss=1764 << 10, pss=366 << 10, private=148 << 10)
