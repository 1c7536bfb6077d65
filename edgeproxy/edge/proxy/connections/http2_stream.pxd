from edgeproxy.edge.proxy.exchange.exchange cimport Exchange

cdef class Http2Exchange(Exchange):
    pass
