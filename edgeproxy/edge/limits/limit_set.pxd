cdef class LimitSet:
    cdef public bint applies, has_end_work, may_ask, shares, simple
    cdef public tuple bounds, gated, policies, quotas, slots
    cdef public object credits, impossible_costs, metered, other_rates, plan_policies, sharing
    cpdef release(self)
