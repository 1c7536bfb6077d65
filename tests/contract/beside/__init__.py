"""The same bytes through other proxies: what they do with a row, for people who decide what we should do.

`peers.py` starts nginx and Caddy as plain reverse proxies, a port for each row; `observe.py` sends a row's bytes and
says in a few words what came of it; `table.py` lays that out beside what the row expects of us.
"""
