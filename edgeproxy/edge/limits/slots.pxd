cimport cython
from edgeproxy.edge.limits.headroom cimport Headroom as CHeadroom

cdef class Slots:
    cdef object __weakref__
    cdef public object _columns, _generation, _key, _locals, _places, _retry_at, _runs, _share, _sync, _table
    cdef public CHeadroom _headroom
    cdef public double _touched
    cdef public long long _row, used
    cdef public unsigned long long _owner
    cdef public Py_ssize_t _foreign_at, _own_at, _sync_at
    @cython.locals(headroom=CHeadroom, used="long long", total="long long")
    cpdef bint acquire(self, long long limit, double now, long long amount=*) except -1
    cpdef release(self, long long amount=*)
    cpdef long long _read_gauges(self, long long limit) except -1
    cpdef long long _sum_gauges(self) except -1
    @cython.locals(headroom=CHeadroom, total="long long")
    cpdef bint is_full(self, long long limit, double now, long long amount=*) except -1
    cpdef _touch(self, double now)
