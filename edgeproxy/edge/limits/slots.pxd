cimport cython
from edgeproxy.edge.limits.headroom cimport Headroom as CHeadroom

cdef class Gauges:
    cdef object __weakref__
    cdef public object columns, locals, rule, runs, table, words
    cdef public tuple places
    cdef public bint has_hub
    cdef public unsigned long long owner
    cdef public object retained
    cdef public double second, touched
    cdef public Py_ssize_t foreign_at, own_at

cdef class Slots:
    cdef object __weakref__
    cdef public object _generation, _local, _subject, _sync
    cdef public Gauges _gauges
    cdef public CHeadroom _headroom
    cdef public double _touched
    cdef public Py_ssize_t _row
    @cython.locals(gauges=Gauges, row=Py_ssize_t, own_at=Py_ssize_t, headroom=CHeadroom, used="long long", elsewhere="long long", total="long long")
    cpdef bint take(self, long long limit, double now, long long amount=*) except -1
    @cython.locals(gauges=Gauges, row=Py_ssize_t)
    cpdef release(self, long long amount=*)
    cpdef long long _read_gauges(self, CHeadroom headroom, long long limit) except -1
    cpdef long long _sum_gauges(self) except -1
    @cython.locals(gauges=Gauges, row=Py_ssize_t, headroom=CHeadroom, elsewhere="long long", total="long long")
    cpdef bint is_full(self, long long limit, double now, long long amount=*) except -1
    cpdef _touch(self, double now)

cdef class SharedSlots(Slots):
    pass
