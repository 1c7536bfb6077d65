cimport cython
from edgeproxy.edge.proxy.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.forwarding cimport Forwarding as CForwarding
from edgeproxy.edge.proxy.upstream_transport cimport UpstreamTransport

cdef class UpstreamConnection(UpstreamTransport):
    cdef public object _decoder, _head, _left, buffer, compressor, tunnel
    cdef public bint _rechunk
    cdef public int _state
    @cython.locals(exchange=CForwarding, client=CClient, end=Py_ssize_t, plain=tuple)
    cpdef data_received(self, data)
    cpdef receive_more(self, data)
