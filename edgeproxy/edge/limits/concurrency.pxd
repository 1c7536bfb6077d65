from edgeproxy.edge.limits.slots cimport Slots

cdef class Concurrency:
    cdef public object _rule
    cdef public Slots counts
    cpdef bint acquire(self, double now) except -1
    cpdef release(self)
    cpdef retry_after(self, double now, long long cost=*)

cdef class OwnConcurrency(Slots):
    cpdef bint acquire(self, double now) except -1
    cpdef retry_after(self, double now, long long cost=*)
