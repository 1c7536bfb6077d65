cimport cython

cdef class HpackDecoder:
    cdef public object _fields_max, _size_max
    cdef public list _lines, _names, _sizes, unindexed
    cdef public long long _limit, _size
    cdef public bint has_changed
    @cython.locals(position=Py_ssize_t, end=Py_ssize_t, first=int, index=Py_ssize_t)
    cpdef list _read_block(self, bytes block)
    @cython.locals(first=int, mask=int, index=Py_ssize_t, start=Py_ssize_t)
    cpdef _read_literal(self, bytes block, Py_ssize_t position, list lines)

cpdef tuple read_integer(bytes block, Py_ssize_t position, int mask)
@cython.locals(first=int, length=Py_ssize_t, end=Py_ssize_t)
cpdef tuple read_string(bytes block, Py_ssize_t position)
