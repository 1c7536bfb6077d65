from edgeproxy.edge.proxy.exchange.overload cimport Overload as COverload
from edgeproxy.edge.proxy.observation.request_ids cimport IdGenerator as CIdGenerator
from edgeproxy.edge.proxy.exchange.snapshot cimport Snapshot as CSnapshot

cdef class Runtime:
    cdef public object _turn_log, body_space, challenges, claim_waiter, connections, connector, date_line, deadlines, endpoint_log, folder, held
    cdef public object key_lookup, metrics, passwords, spans, tasks, turns, write_batching
    cdef public CIdGenerator ids
    cdef public COverload overload
    cdef public CSnapshot snapshot
    cdef public double offset
