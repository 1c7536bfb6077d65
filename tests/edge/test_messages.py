"""Messages between two supervisors of one state directory. They may have different versions."""

import pytest

from edgeproxy.edge.channel import UnknownMessageError
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.messages import FOLLOWER, LEADER, ClaimsUnused, HubAnswered, LimitRow, LimitsUsed, RateUse, TotalUse

TERMS = RateTerms(1000, 60.0, 28, 5, 2.5, "strict")
USES = LimitsUsed([RateUse.from_terms("customers", 3, 4096, 17, TERMS, True)], [TotalUse("quotas", 1, 64, 2, 100)])
USES_AS_JSON = (
    b'{"type":"uses","rates":[["customers",3,4096,17,1000,60.0,28,5,2.5,"strict",true]],'
    b'"totals":[["quotas",1,64,2,100]]}'
)


def test_json_form_of_messages_between_supervisors_stays() -> None:
    assert LEADER.unpack(USES_AS_JSON) == USES
    assert FOLLOWER.pack(USES).data[4:] == USES_AS_JSON
    unused = ClaimsUnused([LimitRow("customers", 3, 4096, 17)])
    for message, said in (
        (HubAnswered(), b'{"type":"heard"}'),
        (unused, b'{"type":"unused","rows":[["customers",3,4096,17]]}'),
    ):
        assert FOLLOWER.unpack(said) == message
        assert LEADER.pack(message).data[4:] == said


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert LEADER.unpack(USES_AS_JSON.replace(b"true]", b"true,1]").replace(b'"rates"', b'"new":[],"rates"')) == USES


@pytest.mark.parametrize("said", [b'{"type":"new"}', USES_AS_JSON.replace(b"17", b'"17"'), b"[]"])
def test_incompatible_message_raises_unknown_message_error(said: bytes) -> None:
    with pytest.raises(UnknownMessageError):
        LEADER.unpack(said)


def test_the_terms_of_rows_that_are_held_to_the_same_are_one() -> None:
    first, other = (RateUse.from_terms("customers", 3, row, 17, TERMS, False) for row in (64, 128))
    assert first.terms == TERMS
    assert first.terms is other.terms
