from edgeproxy.edge.proxy.transport.address cimport Address as CAddress
from edgeproxy.edge.proxy.connections.client_transport cimport ClientTransport
from edgeproxy.edge.proxy.exchange.record cimport ExchangeRecord as CExchangeRecord

cdef class ClientInput(ClientTransport):
    cdef public CExchangeRecord exchange
    cdef public object _body_size_due, backlog, body, buffer, holding
    # Those of Client that an exchange reads: it knows its client as a ClientInput.
    cdef public CAddress address
    cdef public object forwarded_lines
    cdef public tuple changing, key_place
    cdef public int heads_read
    cdef public bint expects_new_head, is_outdated, secure, trusted
    cpdef begin_stream(self, ClientInput connection)
    cpdef serve_next(self)
