"""The picture of docs/limits.md: what each algorithm admits of the same requests, asked of the algorithms themselves.

`python -m loadtest.bench.picture` draws it anew and prints the table beneath it. `traffic` asks, `drawing` draws.
"""
