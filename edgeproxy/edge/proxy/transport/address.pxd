cdef class Address:
    cdef public object _guarded, _limit_sets, connections, guard, subject, text
    cdef public bint admitted
