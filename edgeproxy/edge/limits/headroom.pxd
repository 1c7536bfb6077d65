cdef class Headroom:
    cdef public object _table, settled
    cdef public double full_until
    cdef public long long alarmed, limit, seen, until
    cdef public unsigned long long alarm
    cdef public Py_ssize_t alarm_at
