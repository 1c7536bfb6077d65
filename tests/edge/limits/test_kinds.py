"""The table of kinds has a row for each algorithm that operators may configure."""

from typing import get_args

from edgeproxy.config.algorithms import DEFAULT_DEPTHS, AlgorithmName
from edgeproxy.edge.limits.kinds import KINDS


def test_each_configurable_algorithm_with_a_depth_has_a_bucket() -> None:
    configured = {name: depth is not None for name, depth in DEFAULT_DEPTHS.items()}
    assert set(get_args(AlgorithmName)) == configured.keys()
    rates = {name: kind.rate for name, kind in KINDS.items()}
    assert configured == {
        name: rate is not None and rate.has_bucket for name, rate in rates.items() if name in configured
    }
