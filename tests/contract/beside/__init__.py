"""Send the contract's bytes through other proxies, to compare their behaviour with ours.

`peers.py` starts nginx and Caddy as plain reverse proxies, one port for each row. `observe.py` sends a row's bytes and
describes the outcome in a few words. `table.py` prints it beside the row's expectation of this edge.
"""
