"""The contract at byte level: what clients and upstreams may send, and what then passes, is refused, or is cut off.

A raw client and a scripted raw upstream stand around a real edge: its supervisor, its worker, its sockets. Every case
is a row of a literal table with the section that it follows; a row says what is sent, and everything that may come of
it. Nothing is expected because the edge does it: the rows follow the RFCs, and the design where an RFC leaves a choice.

`tables/` holds the rows, a file for each family. There are three kinds of row, in `case.py` and `play.py`:

- **Asked**: bytes of a client. The upstream, which answers every request with 200, must have got exactly the requests
  in `seen` and no byte more; the client must get exactly `answers`, and its connection then serves another request, or
  ends. Run with the bytes in one piece, and again with one at a time: nothing may depend on how they come.
- **Answered**: bytes of an upstream. Says what the client gets (a whole answer, 502 with its Proxy-Status, or an answer
  that is visibly cut off) and whether the connection to the upstream serves the next request. Run in both ways too.
- **Play**: what both sides do, step by step: streams, tunnels, interim answers, deadlines.

Each row has a service of its own behind the edge, so that no case can owe its outcome to another.

    python -m pytest tests/contract                 the suite
    python -m tests.contract --beside nginx,caddy   the same client bytes through other proxies, as a table for people

The second prints what these proxies do with the rows of the first two kinds. `stance.py` says of every difference that
is worth knowing which side we took and why; what it says of others was measured, and the command says where that no
longer holds.
"""
