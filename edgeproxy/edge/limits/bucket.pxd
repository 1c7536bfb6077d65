cimport cython
from edgeproxy.edge.limits.levels cimport LevelCounts as CLevelCounts
from edgeproxy.edge.limits.window cimport SlidingWindow

cdef class TokenBucket(SlidingWindow):
    cdef public double _room, rate
    cdef public long long _seconds, depth
    cdef public bytes _tail
    @cython.locals(counts=CLevelCounts, sync_at=Py_ssize_t)
    cpdef long long left(self, double now) except? -9223372036854775807
    cpdef _fits(self, double now)
    cpdef charge(self, long long cost=*)
    cpdef long long compute_wait(self, long long left, double now, long long cost) except? -1
    cpdef bytes tail(self, double now)
    cpdef _reset(self, double now)

cdef class Hybrid(TokenBucket):
    cdef public bint _smooths
    @cython.locals(counts=CLevelCounts, window="long long", bucket="long long")
    cpdef long long left(self, double now) except? -9223372036854775807
    cpdef long long compute_wait(self, long long left, double now, long long cost) except? -1
    cpdef _reset(self, double now)
