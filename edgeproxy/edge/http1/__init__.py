"""HTTP/1.1 without I/O: reading heads and bodies strictly, deciding what is forwarded, writing the edge's answers.

Owns every rule of RFC 9110 and RFC 9112 that the edge follows about bytes. Does not own sockets, clocks, routes,
keys' validity or what a status means for billing.
"""
