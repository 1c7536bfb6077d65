cdef class FrameWriter:
    cdef public object _call_soon, _transport, streams
    cdef public list _parts
    cdef public bint _is_scheduled, is_held
    cdef public Py_ssize_t _size
    cpdef write(self, data)
    cpdef write_many(self, list parts)
    cpdef flush(self)
    cpdef _schedule(self)
