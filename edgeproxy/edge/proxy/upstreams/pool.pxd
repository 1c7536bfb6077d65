cimport cython
from edgeproxy.edge.proxy.upstreams.idle_pool cimport IdlePool

cdef class Endpoint(IdlePool):
    cdef public object address, authorities, ejected_at, ejected_until, errors, host, port, region, scheme, sent_host
    cdef public object state, tier
    cdef public bytes answer_lines, latest_head
    cdef public tuple latest_meaning
    cdef public Service service
    cdef public bint wants_results
    cdef public long long outstanding, weight

cdef class Service:
    cdef public object _chance, _ejections, _log, _origins, _outliers, _owners, _pairs_in, affinity, attempts, breaker, budget
    cdef public object connect_timeout, endpoints, host, idle_timeout, max_buffered_bytes, max_head_bytes
    cdef public object max_idle_connections, name, next_pair, proxy_protocol, region, region_fields, request_id_field, response_seconds
    cdef public object timeouts
    cdef public bint speaks_http2
    @cython.locals(one=Endpoint, other=Endpoint)
    cpdef Endpoint select(self)
