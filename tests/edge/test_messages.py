"""What two supervisors of one state directory say to each other, which may be of different versions."""

import pytest

from edgeproxy.edge.channel import UnknownMessageError
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.messages import FOLLOWER, LEADER, ClaimsUnused, HubAnswered, LimitRow, LimitsUsed, RateUse, TotalUse

TERMS = RateTerms(1000, 60.0, 28, 5, 2.5, "strict")
USES = LimitsUsed([RateUse.from_terms("customers", 3, 4096, 17, TERMS, True)], [TotalUse("quotas", 1, 64, 2, 100)])
USES_OF_0_1_0 = (
    b'{"type":"uses","rates":[["people",3,4096,17,1000,60.0,28,5,2.5,"strict",true]],"totals":[["quotas",1,64,2,100]]}'
)


def test_the_first_version_is_understood_and_understands() -> None:
    assert LEADER.unpack(USES_OF_0_1_0) == USES
    assert FOLLOWER.pack(USES).data[4:] == USES_OF_0_1_0
    unused = ClaimsUnused([LimitRow("customers", 3, 4096, 17)])
    for message, said in (
        (HubAnswered(), b'{"type":"heard"}'),
        (unused, b'{"type":"unused","rows":[["people",3,4096,17]]}'),
    ):
        assert FOLLOWER.unpack(said) == message
        assert LEADER.pack(message).data[4:] == said


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert LEADER.unpack(USES_OF_0_1_0.replace(b"true]", b"true,1]").replace(b'"rates"', b'"new":[],"rates"')) == USES


@pytest.mark.parametrize("said", [b'{"type":"new"}', USES_OF_0_1_0.replace(b"17", b'"17"'), b"[]"])
def test_incompatible_message_raises_unknown_message_error(said: bytes) -> None:
    with pytest.raises(UnknownMessageError):
        LEADER.unpack(said)


def test_the_terms_of_rows_that_are_held_to_the_same_are_one() -> None:
    first, other = (RateUse.from_terms("customers", 3, row, 17, TERMS, False) for row in (64, 128))
    assert first.terms == TERMS
    assert first.terms is other.terms
