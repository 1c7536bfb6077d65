cimport cython

cdef class Slots:
    cdef object __weakref__
    cdef public object _columns, _generation, _generation_at, _key, _locals, _places, _retry_at, _runs, _share, _sync, _table
    cdef public double _touched
    cdef public long long _row, used
    cdef public unsigned long long _owner
    cdef public Py_ssize_t _foreign_at, _own_at, _sync_at
    @cython.locals(used="long long", total="long long")
    cpdef bint acquire(self, long long limit, double now, long long amount=*) except -1
    cpdef release(self, long long amount=*)
    @cython.locals(total="long long")
    cpdef bint is_full(self, long long limit, double now, long long amount=*) except -1
    cpdef _touch(self, double now)
