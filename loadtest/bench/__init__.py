"""The bench: the cost of one request in edgeproxy and in its peers, in one run, on one pinned core.

Started by `scripts/bench`; not a test. The arithmetic has tests of its own (`test_*.py` here). The parts: `peers`
(the measured proxies), `upstream` (their upstream), `load` (the clients), `measure` (the measurements), `report`
(the results). docs/start/performance.md explains how to read the figures.
"""
