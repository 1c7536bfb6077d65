"""From a count to the ledger, while everything fails: what the tests of that share.

Simulated, in one loop: `life.py` is an edge, `wire.py` its network, `books.py` the collector, `world.py` all of them.
Real processes: `site.py`, of the parts in `tests/support/`, which the soak has too: `counted.py` is an edge with a
`relay.py` before its collector, `stepping.py` kills either at a step.
"""
