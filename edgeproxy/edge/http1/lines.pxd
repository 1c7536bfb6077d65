cimport cython

cdef class Field:
    cdef public object flags, host, kind, length, line, tail, trace, value
    cdef public bint dropped

cdef class RequestLines:
    cdef public object cache, names, passes, passing, recall, rules
    @cython.locals(field=Field)
    cpdef parse_field(self, bytes line)

@cython.locals(field=Field)
cpdef _read_traceparent(kind, bytes line, bytes value)
