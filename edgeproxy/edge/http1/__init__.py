"""HTTP/1.1 without I/O: reading heads and bodies strictly, choosing the parts to forward, writing the edge's answers.

Contains every rule of RFC 9110 and RFC 9112 that the edge follows about bytes. Does not contain sockets, clocks,
routes, the validity of keys or the meaning of a status for billing.
"""
