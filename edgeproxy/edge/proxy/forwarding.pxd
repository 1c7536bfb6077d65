cimport cython
from edgeproxy.edge.proxy.pool cimport Endpoint as CEndpoint, Service as CService
from edgeproxy.edge.proxy.response_relay cimport ResponseRelay
from edgeproxy.edge.proxy.route_binding cimport RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.upstream_transport cimport UpstreamTransport as CServer

cdef class Forwarding(ResponseRelay):
    @cython.locals(binding=CRouteBinding, service=CService, endpoint=CEndpoint)
    cpdef select(self)
    @cython.locals(endpoint=CEndpoint, idle=list, server=CServer, now=double)
    cpdef send(self)
