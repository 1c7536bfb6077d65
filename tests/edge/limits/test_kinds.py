"""That the table of kinds has whatever operators may write."""

from typing import get_args

from edgeproxy.config.algorithms import DEFAULT_DEPTHS, AlgorithmName
from edgeproxy.edge.limits.kinds import KINDS


def test_each_configurable_algorithm_with_a_depth_has_a_bucket() -> None:
    written = {name: depth is not None for name, depth in DEFAULT_DEPTHS.items()}
    assert set(get_args(AlgorithmName)) == written.keys()
    rates = {name: kind.rate for name, kind in KINDS.items()}
    assert written == {name: rate is not None and rate.has_bucket for name, rate in rates.items() if name in written}
