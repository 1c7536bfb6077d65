cdef class Counter:
    cdef public object _words
    cdef public Py_ssize_t _at
    cdef public unsigned long long _total
    cpdef add(self, unsigned long long n=*)

cdef class UsageCounter:
    cdef public object _words
    cdef public Py_ssize_t _at
    cpdef add(self, unsigned long long n=*)

cdef class Gauge:
    cdef public object _words
    cdef public Py_ssize_t _at

cdef class Histogram:
    cdef object __weakref__
    cdef public object _words, _sum
    cdef public Py_ssize_t _at, _sum_at
    cdef public list pending
