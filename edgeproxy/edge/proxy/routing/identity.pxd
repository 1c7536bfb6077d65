cdef class Identity:
    cdef public object bindings
    cdef public double valid_until

cdef class Directory:
    cdef dict __dict__
    cdef object __weakref__
    cdef public object _identities
