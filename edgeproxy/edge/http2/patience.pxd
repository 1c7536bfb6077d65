cdef class Patience:
    cdef public long long _scale, frames, maximum, resets
    cpdef spend(self)
    cpdef spend_reset(self)
    cpdef regain(self, long long frames, long long resets=*)
