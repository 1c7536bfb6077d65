from edgeproxy.edge.proxy.exchange.runtime cimport Runtime as CRuntime

cdef class ClientTransport:
    cdef public CRuntime runtime
    cdef public object _unsent_bytes, transport, write, writelines
    cdef public bint half_closed, reading, write_paused
    cdef public double _linger_until, _reset_by, _taken_by, deadline
    cdef public int copied_bytes_max, state
