cimport cython
from edgeproxy.edge.proxy.connections.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.exchange.forwarding cimport Forwarding as CForwarding
from edgeproxy.edge.proxy.upstreams.pool cimport Endpoint as CEndpoint
from edgeproxy.edge.proxy.connections.upstream_body cimport UpstreamBody

cdef class UpstreamConnection(UpstreamBody):
    cdef public object _head, buffer, tunnel
    @cython.locals(exchange=CForwarding, client=CClient, endpoint=CEndpoint, end=Py_ssize_t, plain=tuple, size=Py_ssize_t)
    cpdef data_received(self, bytes data)
    cpdef receive_more(self, data)
