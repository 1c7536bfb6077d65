cimport cython
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet
from edgeproxy.edge.limits.window cimport SlidingWindow as CPolicy
from edgeproxy.edge.proxy.connections.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.routing.identity cimport Identity as CIdentity
from edgeproxy.edge.proxy.upstreams.pool cimport Endpoint as CEndpoint
from edgeproxy.edge.proxy.routing.binding cimport Route as CRoute, RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.exchange.runtime cimport Runtime as CRuntime
from edgeproxy.edge.proxy.exchange.snapshot cimport Snapshot as CSnapshot
from edgeproxy.edge.proxy.connections.upstream_transport cimport UpstreamTransport as CServer

cdef class ExchangeRecord:
    cdef public double arrived, idle_timeout, now, sent_at, started, waiting_seconds, waiting_since
    cdef public object buffered_body, bytes_in, bytes_out, collected, credentials, exhausted_policies, head, interim_count, keep, refusals
    cdef public object length, message, metering, method, minor, notes, path, received_lines, request_counters, request_line
    cdef public object response_counters, rid, site, span, state, status, trace, tried_endpoints, upstream_request_id, wait
    cdef public long long shown_left
    cdef public bint accepts_whole, is_patient, usage_requested, streamed_body
    cdef public CClient client
    cdef public CRuntime runtime
    cdef public CSnapshot snapshot
    cdef public CRouteBinding binding
    cdef public CRoute route
    cdef public CEndpoint endpoint
    cdef public CIdentity identity
    cdef public CLimitSet limit_set
    cdef public CPolicy shown_policy
    cdef public CServer server
    cpdef bytes get_request_id(self)
    cpdef format_rate_fields(self)
    @cython.locals(limit_set=CLimitSet, binding=CRouteBinding)
    cpdef charge_reported(self, bytes head)
    @cython.locals(limit_set=CLimitSet)
    cpdef settle_limits(self, status)
    cpdef release(self)
