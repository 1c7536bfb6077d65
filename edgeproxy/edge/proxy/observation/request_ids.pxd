cimport cython

cdef class IdGenerator:
    cdef public object _random
    cdef public list _begun, _tails
    cdef public long long _millisecond
    cdef public bytes _bound, _prefix
    cpdef tuple create_ids(self, double unix_seconds)
    @cython.locals(millisecond="long long")
    cpdef bytes create_request_id(self, double unix_seconds)
