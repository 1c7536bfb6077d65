from edgeproxy.edge.limits.headroom cimport Headroom as CHeadroom

cdef class Counts:
    cdef object __weakref__
    cdef public double _per_second, _retry_at, since, until
    cdef public object _foreign, _generation, _hub, _key, _local, _locals
    cdef public object _own_closed, _own_latest, _own_oldest, _ring, _runs, _settled, _siblings, _table
    cdef public object cells, more, oldest, row, runs, share, sync, width, words
    cdef public bint _is_resolved
    cdef public CHeadroom headroom
    cdef public long long cell, closed, own
    cdef public unsigned long long base, cum
    cdef public Py_ssize_t cum_at, own_at, sibling_at, sync_at
    cpdef refresh(self, double now)
    cpdef long long read_siblings(self, long long left, long long limit, long long cost, double now) except? -9223372036854775807
    cpdef sum_siblings(self)
    cpdef _bind_columns(self, object place)
