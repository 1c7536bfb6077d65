cimport cython
from edgeproxy.edge.proxy.connections.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.exchange.record cimport ExchangeRecord
from edgeproxy.edge.proxy.upstreams.pool cimport Endpoint as CEndpoint
from edgeproxy.edge.proxy.routing.binding cimport RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.connections.upstream_transport cimport UpstreamTransport as CServer

cdef class ResponseRelay(ExchangeRecord):
    @cython.locals(client=CClient, binding=CRouteBinding, endpoint=CEndpoint, arrived=double, upstream_seconds=double, written=double, total=double)
    cpdef respond_whole(self, CServer server, tuple plain, bytes data, Py_ssize_t end)
