from edgeproxy.edge.http2.hpack cimport HpackDecoder as CHpackDecoder

cdef class HeadReader:
    cdef public object _limits
    cdef public CHpackDecoder _decoder
    cdef public tuple _heads, _open_heads
    cdef public long long _bytes
    cdef public bint _websockets
