cimport cython
from edgeproxy.edge.http2.patience cimport Patience as CPatience

cdef class Sender:
    cdef public object write, write_many
    cdef public dict blocked, reset_streams, streams
    cdef public long long _returnable_bytes, initial_window, last_served, last_stream, send_window, waiting_bytes
    cdef public bint _has_sent_block, is_over, write_paused
    cdef public CPatience patience
    @cython.locals(size=Py_ssize_t, number="long long")
    cpdef respond(self, stream, bytes block, body)
    cpdef _send_waiting(self, stream, bytes_max=*)
    cpdef _get_room(self, stream)
    cpdef _take_frames(self, stream, room, list frames)
    cpdef _end_response(self, stream)
    cpdef _close_if_over(self, stream)
    cpdef _close_stream(self, stream)
