cimport cython
from edgeproxy.edge.proxy.upstreams.pool cimport Endpoint as CEndpoint, Service as CService
from edgeproxy.edge.proxy.exchange.response_relay cimport ResponseRelay
from edgeproxy.edge.proxy.routing.binding cimport RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.connections.upstream_transport cimport UpstreamTransport as CServer

cdef class Forwarding(ResponseRelay):
    @cython.locals(binding=CRouteBinding, service=CService, endpoint=CEndpoint)
    cpdef select(self)
    @cython.locals(endpoint=CEndpoint, idle=list, server=CServer, now=double)
    cpdef send(self)
