"""The picture of docs/limits/limits.md: what each algorithm admits of the same requests, by the algorithms themselves.

`python -m loadtest.bench.picture` draws it anew and prints the table beneath it. `traffic` asks, `drawing` draws.
"""
