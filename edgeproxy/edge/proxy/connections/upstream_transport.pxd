from edgeproxy.edge.proxy.exchange.record cimport ExchangeRecord as CExchangeRecord
from edgeproxy.edge.proxy.upstreams.pool cimport Endpoint as CEndpoint
from edgeproxy.edge.proxy.exchange.runtime cimport Runtime as CRuntime

cdef class UpstreamTransport:
    cdef public CRuntime runtime
    cdef public CEndpoint endpoint
    cdef public CExchangeRecord exchange
    cdef public object backlog, transport, write
    cdef public bint _reading_paused, half_closed, reusable, reused, write_paused
    cdef public double deadline, idle_seconds
    cpdef learn_idle_timeout(self, block)
    cpdef release(self, double now)
    cpdef resume_reading(self)
