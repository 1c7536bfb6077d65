from edgeproxy.edge.proxy.connections.upstream_transport cimport UpstreamTransport

cdef class UpstreamBody(UpstreamTransport):
    cdef public object _decoder, _left, body_filter, usage
    cdef public bint _rechunk
    cdef public int _state
