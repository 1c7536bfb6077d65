"""What one request costs: edgeproxy beside its peers, in one run, on one pinned core.

Started by `scripts/bench`; not a test. The arithmetic has tests of its own (`test_*.py` here). The parts:
`peers` (what is measured), `upstream` (what they proxy to), `load` (who asks), `measure` (what is read off),
`report` (what is said about it). How to read the figures is in docs/start/performance.md.
"""
