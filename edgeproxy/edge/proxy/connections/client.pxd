cimport cython
from edgeproxy.edge.proxy.connections.client_input cimport ClientInput
from edgeproxy.edge.proxy.exchange.exchange cimport Exchange as CExchange
from edgeproxy.edge.proxy.exchange.snapshot cimport Snapshot as CSnapshot

cdef class Client(ClientInput):
    cdef public object _certificate, _probes, peer, subject
    @cython.locals(exchange=CExchange, snapshot=CSnapshot, end=Py_ssize_t, seen=tuple, until=double)
    cpdef _serve(self, bytes data, double deadline=*, int served=*)
    cpdef serve_next(self)
