cimport cython
from edgeproxy.edge.limits.counts cimport CellWindow as CWindow
from edgeproxy.edge.limits.counts cimport Counts as CCounts
from edgeproxy.edge.limits.headroom cimport Headroom as CHeadroom

cdef class SlidingWindow:
    cdef public object _wait, rule
    cdef public CCounts counts
    cdef public long long _needs, cost, limit
    @cython.locals(counts=CCounts, window=CWindow, rings=Py_ssize_t, number=Py_ssize_t, headroom=CHeadroom, known="long long", left="long long", live="long long")
    cpdef long long left(self, double now) except? -9223372036854775807
    @cython.locals(counts=CCounts, window=CWindow, own="long long", cum="unsigned long long")
    cpdef charge(self, long long cost=*)
    @cython.locals(counts=CCounts)
    cpdef charge_late(self, long long cost)
    cpdef retry_after(self, double now, long long cost=*)
    @cython.locals(counts=CCounts, window=CWindow)
    cpdef bytes tail(self, double now)
    @cython.locals(counts=CCounts)
    cpdef long long compute_wait(self, long long left, double now, long long cost) except? -1
    @cython.locals(counts=CCounts)
    cpdef _reset(self, double now)
