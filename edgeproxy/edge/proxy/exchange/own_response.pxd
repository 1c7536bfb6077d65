cimport cython
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet
from edgeproxy.edge.limits.window cimport SlidingWindow as CPolicy
from edgeproxy.edge.proxy.exchange.record cimport ExchangeRecord as CExchangeRecord
from edgeproxy.edge.proxy.routing.binding cimport RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.exchange.snapshot cimport Snapshot as CSnapshot

@cython.locals(snapshot=CSnapshot, binding=CRouteBinding, shown=CPolicy)
cpdef bytes format_refusal(CExchangeRecord exchange, CLimitSet limit_set, bint close)
