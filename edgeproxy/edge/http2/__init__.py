"""HTTP/2 of clients without I/O: field blocks, frames, streams and their windows, translated to HTTP/1.1 and back.

Contains every rule of RFC 9113 and RFC 7541 that the edge follows about bytes, and the bounds on the costs that a peer
may cause. Does not contain sockets, clocks, or the meaning of a request: its head becomes one of HTTP/1.1, which
`edge/http1` reads.
"""
