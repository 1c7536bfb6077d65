from edgeproxy.edge.http2.connection cimport Http2Connection
from edgeproxy.edge.proxy.connections.client cimport Client
from edgeproxy.edge.proxy.connections.frame_writer cimport FrameWriter as CFrameWriter

cdef class ClientHttp2Connection(Http2Connection):
    cdef public object client

cdef class Http2Client(Client):
    cdef public object _account, _late_block
    cdef public long long _last_swept, _new_streams
    cdef public ClientHttp2Connection http2
    cdef public CFrameWriter _writer
    cpdef on_stream(self, stream)
    cpdef on_stream_closed(self, stream)
