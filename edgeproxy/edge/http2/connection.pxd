cimport cython
from edgeproxy.edge.http2.head_reader cimport HeadReader as CHeadReader
from edgeproxy.edge.http2.sender cimport Sender

cdef class Http2Connection(Sender):
    cdef public object _create_stream, _head_bytes_max, breach
    cdef public CHeadReader _reader
    cdef public bytes _rest
    cdef public list _block_parts
    cdef public tuple _block_start
    cdef public long long _block_bytes, _block_frames
    cdef public bint _has_settings, _is_block_oversized, _websockets
    @cython.locals(position=Py_ssize_t, stop=Py_ssize_t)
    cpdef receive_slice(self, bytes data)
    @cython.locals(end=Py_ssize_t, last=Py_ssize_t, start=Py_ssize_t, high=int, length=Py_ssize_t, kind=int, flags=int, number="long long")
    cpdef _read_frames(self, bytes data, Py_ssize_t position, Py_ssize_t stop)
    cpdef _read_frame(self, int kind, int flags, long long number, bytes payload)
    @cython.locals(ended=bint, length="long long")
    cpdef _read_block(self, long long number, int flags, block)
