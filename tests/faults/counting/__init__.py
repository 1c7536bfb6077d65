"""From a count to the ledger, while everything fails: what the tests of that share.

Simulated, in one loop: `life.py` is an edge, `wire.py` its network, `books.py` the collector, `world.py` all of them.
Real: `site.py` has the processes, `relay.py` is between them, `stepping.py` kills one at a step, `course.py` is half an
hour of everything.
"""
