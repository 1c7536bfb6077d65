cimport cython

cdef class IdGenerator:
    cdef public object _random
    cdef public list _bare, _tails
    cdef public long long _millisecond
    cdef public bytes _bound, _prefix
    @cython.locals(millisecond="long long")
    cpdef tuple create_ids(self, double unix_seconds)
