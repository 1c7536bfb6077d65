"""Every problem of the collector, by its code."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.problems import account_codes, billing_codes, operation_codes, page_codes, request_codes

SECTIONS: Final = tuple(
    tuple(code for code in vars(module).values() if isinstance(code, ProblemCode))
    for module in (request_codes, account_codes, billing_codes, operation_codes, page_codes)
)
"""The codes of each module of this room, in its order."""
CODES: Final = {code.name: code for section in SECTIONS for code in section}
