cimport cython
from edgeproxy.edge.proxy.client_input cimport ClientInput
from edgeproxy.edge.proxy.exchange cimport Exchange as CExchange

cdef class Client(ClientInput):
    cdef public object _certificate, _probes, peer, subject
    @cython.locals(exchange=CExchange, end=Py_ssize_t)
    cpdef _serve(self, data, double deadline=*)
    cpdef serve_next(self)
