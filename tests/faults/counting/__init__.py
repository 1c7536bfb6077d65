"""From a count to the ledger, while everything fails: shared parts of these tests.

Simulated, in one loop: `life.py` is an edge, `wire.py` its network, `books.py` the collector, `world.py` all of them.
Real processes: `site.py` uses the parts in `tests/support/`, as the soak does. `counted.py` is an edge with a
`relay.py` before its collector, and `stepping.py` kills either at a step.
"""
