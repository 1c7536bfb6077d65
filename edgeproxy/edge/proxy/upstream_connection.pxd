cimport cython
from edgeproxy.edge.proxy.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.forwarding cimport Forwarding as CForwarding
from edgeproxy.edge.proxy.pool cimport Endpoint as CEndpoint
from edgeproxy.edge.proxy.upstream_body cimport UpstreamBody

cdef class UpstreamConnection(UpstreamBody):
    cdef public object _head, buffer, tunnel
    @cython.locals(exchange=CForwarding, client=CClient, endpoint=CEndpoint, end=Py_ssize_t, plain=tuple, size=Py_ssize_t)
    cpdef data_received(self, bytes data)
    cpdef receive_more(self, data)
