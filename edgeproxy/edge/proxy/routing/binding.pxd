cimport cython
from edgeproxy.edge.counters.meters cimport Histogram as CHistogram
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet
from edgeproxy.edge.proxy.upstreams.pool cimport Service as CService

cdef class Route:
    cdef public object auth, conditions, cors, error_bodies, fallback, fallback_statuses, host, idle_timeout, is_flagged, label, methods, path, patience, preauth_policy, protocols
    cdef public object response_policy, reverse_mapping, rewriter, scopes, security_lines, settings, takes_certificate, total_timeout, tunnel_timeout, users
    cdef public double head_timeout
    cdef public CHistogram overhead_seconds, request_seconds
    cdef public CService service
    @cython.locals(pending=list)
    cpdef record_times(self, double total, double own, double waited)

cdef class RareParts:
    cdef public object body_metering, counted_as, end_users, fallback, limits, metering, refusals, user
    cdef public tuple admitted_counters
    cdef public bint takes_whole_bodies

cdef class RouteBinding:
    cdef public object _usage, latest_counter, latest_refusal, latest_usage, terms
    cdef public int latest_status
    cdef public CLimitSet limit_set
    cdef public RareParts rare
    cdef public Route route
    cdef public bytes subject
