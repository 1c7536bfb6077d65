"""The soak: mixed traffic on a real edge while everything happens to it that an operator or a bad day can do.

`kinds.py` says who sends what, `traffic.py` sends it, `service.py` is what stands behind the edge, `site.py` does
things to all of it, `way.py` to what its counts pass until they are in the ledger, `course.py` decides when, `watch.py`
looks on, `sums.py` says what must agree, and `verdict.py` judges what was written down.
"""
