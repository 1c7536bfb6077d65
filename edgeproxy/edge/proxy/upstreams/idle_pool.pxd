cdef class IdlePool:
    cdef public list idle
    cdef public object idle_lifetime, max_idle_connections
    cpdef release(self, server)
