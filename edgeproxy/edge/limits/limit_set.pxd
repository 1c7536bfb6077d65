cdef class SetTraits:
    cdef public bint applies, has_end_work, may_ask, shares, simple
    cdef public tuple quotas
    cdef public object credits, impossible_costs, metered, other_rates, plan_policies, sharing

cdef class LimitSet:
    cdef public SetTraits traits
    cdef public object rate, slot
    cdef public tuple several
    cpdef release(self)
