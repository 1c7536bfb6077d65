"""The contract at byte level: for bytes of clients and upstreams, the forwarded, refused or cut-off results.

A raw client and a scripted raw upstream surround a real edge with its supervisor, its worker and its sockets. Every
case is a row of a literal table and names the section that it follows. A row has the sent bytes and all allowed
results. The rows follow the RFCs, and the design if an RFC leaves a choice. They do not follow the edge's behaviour.

`tables/` has the rows, one file for each family. `case.py` and `play.py` define three kinds of row:

- **Asked**: bytes of a client. The upstream answers every request with 200. It must receive exactly the requests in
  `seen` and no further byte. The client must get exactly `answers`. Then its connection serves another request or ends.
  Each row runs with all bytes at once and again byte by byte, with equal results.
- **Answered**: bytes of an upstream. The row names the client's result (a whole answer, 502 with its Proxy-Status, or
  an answer that is visibly cut off), and whether the upstream's connection serves the next request. It runs both ways.
- **Play**: steps of both sides: streams, tunnels, interim answers, deadlines.

Each row has a service of its own behind the edge, so that no case affects another.

    python -m pytest tests/contract                 the suite
    python -m tests.contract --beside nginx,caddy   the client bytes through other proxies, as a readable table

The second command prints the results of these proxies for the first two kinds of row. `stance.py` lists the relevant
differences with this edge's decision and its reason. Its results of other proxies were measured, and the command
reports results that have changed.
"""
