"""Bodies of requests with many faults, which must not hold the loop of a collector."""

import pytest

from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.api.request_reader import ERRORS_MAX, EXPLAINED_ERRORS_MAX, parse_body
from edgeproxy.collector.api.responses import ProblemError


def test_some_faults_of_a_body_are_explained() -> None:
    with pytest.raises(ProblemError) as raised:
        parse_body(CreateCustomerRequest, {"flags": [1] * (EXPLAINED_ERRORS_MAX - 10)})
    problem = raised.value
    assert (problem.status, len(problem.faults)) == (422, ERRORS_MAX)


def test_too_many_faults_of_a_body_are_counted_and_not_explained() -> None:
    with pytest.raises(ProblemError, match="fields cannot be used, which are too many to list") as raised:
        parse_body(CreateCustomerRequest, {"flags": [1] * (EXPLAINED_ERRORS_MAX + 1)})
    assert (raised.value.status, raised.value.faults) == (422, [])
