"""The tables of the outbox, row by row as the design has them, and what follows from them."""

from collections.abc import Mapping

import pytest

from edgeproxy.collector.billing.meter_export.outbox import (
    ABSENT_SECONDS,
    MEANINGS,
    PAUSE_SECONDS_MAX,
    RECOVERY_TRANSITIONS,
    SETTLED,
    TRANSITIONS,
    TRIED_SECONDS,
    Answer,
    Doubt,
    Reply,
    RowState,
    RowStateError,
    build_identifier,
    classify_answer,
    compute_event_time,
    compute_rest,
    interpret_reply,
    resolve_doubt,
)
from edgeproxy.collector.billing.meter_export.outbox_rows import build_transition

HOUR = 3600
DUPLICATE = "An event already exists with identifier ep_1."


@pytest.mark.parametrize(
    ("state", "leaves_to"),
    [
        ("ready", {"sending", "late", "waived"}),
        ("sending", {"accepted", "unknown", "rejected", "ready", "late"}),
        ("accepted", {"confirmed", "rejected"}),
        ("unknown", {"sending", "confirmed", "rejected", "void"}),
        ("rejected", {"void"}),
        ("confirmed", set()),
        ("late", set()),
        ("waived", set()),
        ("void", set()),
    ],
)
def test_each_outbox_state_has_its_transitions(state: str, leaves_to: set[str]) -> None:
    assert TRANSITIONS[RowState(state)] == leaves_to
    assert (RowState(state) in SETTLED) == (not leaves_to)


@pytest.mark.parametrize("transitions", [TRANSITIONS, RECOVERY_TRANSITIONS])
def test_a_step_that_the_table_lacks_is_refused(transitions: Mapping[RowState, frozenset[RowState]]) -> None:
    for before in RowState:
        for after in RowState:
            if after in transitions[before]:
                build_transition([before], after, 0, transitions)
            else:
                with pytest.raises(RowStateError, match=f"from {before} to {after}"):
                    build_transition([before], after, 0, transitions)
    with pytest.raises(RowStateError):
        build_transition([RowState.ACCEPTED, RowState.VOID], RowState.REJECTED, 0)  # One of several is enough.


def test_every_state_and_every_reply_has_its_row() -> None:
    assert set(TRANSITIONS) == set(RECOVERY_TRANSITIONS) == set(RowState)
    # Counts that Stripe has confirmed stay confirmed after any restore.
    assert not RECOVERY_TRANSITIONS[RowState.CONFIRMED] | RECOVERY_TRANSITIONS[RowState.ACCEPTED]
    assert set().union(*RECOVERY_TRANSITIONS.values()) == {RowState.CONFIRMED, RowState.VOID}
    assert set(MEANINGS) == set(Reply)
    assert all(meaning.state in TRANSITIONS[RowState.SENDING] for meaning in MEANINGS.values())


@pytest.mark.parametrize(
    ("answer", "attempted", "expected", "state"),
    [
        (Answer(200), False, "taken", "accepted"),
        (Answer(200), True, "taken", "accepted"),
        (Answer(400, DUPLICATE), True, "duplicate", "accepted"),
        (Answer(400, code="duplicate_meter_event"), True, "duplicate", "accepted"),
        (Answer(400, DUPLICATE), False, "foreign", "rejected"),
        (Answer(400, "Timestamp must be within the past 35 days"), False, "out_of_time", "late"),
        (Answer(400, code="timestamp_in_future"), False, "out_of_time", "late"),
        (Answer(400, "No such meter"), False, "refused", "rejected"),
        (Answer(402), False, "refused", "rejected"),
        (Answer(404), False, "refused", "rejected"),
        (Answer(401), False, "denied", "ready"),
        (Answer(403), False, "denied", "ready"),
        (Answer(409), False, "busy", "ready"),
        (Answer(429, reason="endpoint-rate"), False, "limited", "ready"),
        (Answer(429, code="lock_timeout"), False, "locked", "ready"),
        (Answer(500), False, "failed", "unknown"),
        (Answer(502), False, "failed", "unknown"),
        (Answer(504), False, "failed", "unknown"),
        (Answer(302), False, "failed", "unknown"),
        (Answer(408), False, "lost", "unknown"),
        (Answer(None), False, "lost", "unknown"),
    ],
)
def test_each_stripe_answer_sets_the_outbox_state(answer: Answer, attempted: bool, expected: str, state: str) -> None:
    reply = classify_answer(answer, attempted=attempted)
    assert reply == expected
    assert interpret_reply(reply, in_doubt=False).state == state


def test_only_a_failure_changes_the_key_and_only_a_denial_stops_the_exporter() -> None:
    assert [reply for reply in Reply if MEANINGS[reply].new_key] == ["failed"]
    assert [reply for reply in Reply if MEANINGS[reply].stops] == ["denied"]
    assert [reply for reply in Reply if MEANINGS[reply].halves] == ["limited"]
    assert [reply for reply in Reply if MEANINGS[reply].alert] == ["foreign", "out_of_time", "refused", "denied"]


@pytest.mark.parametrize("reply", list(Reply))
def test_only_acceptance_by_stripe_settles_a_doubtful_row(reply: Reply) -> None:
    meaning = interpret_reply(reply, in_doubt=True)
    if reply in (Reply.TAKEN, Reply.DUPLICATE):
        assert meaning.state is RowState.ACCEPTED
    else:
        assert meaning.state is RowState.UNKNOWN
        assert meaning.pause != "none"
    assert meaning.stops == MEANINGS[reply].stops


@pytest.mark.parametrize(
    ("reply", "attempts", "luck", "seconds"),
    [
        ("taken", 1, 1.0, 0.0),
        ("busy", 9, 0.0, 1.0),
        ("busy", 9, 1.0, 5.0),
        ("lost", 1, 0.0, 1.0),
        ("lost", 1, 1.0, 2.0),
        ("lost", 3, 1.0, 8.0),
        ("lost", 10_000, 1.0, PAUSE_SECONDS_MAX),
    ],
)
def test_retry_delay_follows_the_reply_and_the_attempts(reply: str, attempts: int, luck: float, seconds: float) -> None:
    assert compute_rest(MEANINGS[Reply(reply)], attempts, luck) == seconds


@pytest.mark.parametrize(
    ("age", "is_counted", "doubt"),
    [
        (0, None, "send"),
        (0, False, "send"),
        (0, True, "confirm"),
        (TRIED_SECONDS - 1, False, "send"),
        (TRIED_SECONDS, False, "wait"),
        (TRIED_SECONDS, True, "confirm"),
        (TRIED_SECONDS + ABSENT_SECONDS - 1, False, "wait"),
        (TRIED_SECONDS + ABSENT_SECONDS, False, "void"),
        (TRIED_SECONDS + ABSENT_SECONDS, None, "wait"),
        (TRIED_SECONDS + ABSENT_SECONDS, True, "confirm"),
    ],
)
def test_doubtful_row_is_resent_for_23_hours_and_then_decided_by_its_count(
    age: float, is_counted: bool | None, doubt: str
) -> None:
    assert resolve_doubt(age, is_counted=is_counted) == Doubt(doubt)


def test_an_identifier_is_unique_to_a_row_and_never_changes() -> None:
    row = ("acct_1", "acme", "tokens", 1_800_000_000, 0, 1_798_761_600)
    assert build_identifier(*row) == "ep_832bca60f71243b03d8b1ff76b22f2f4d1af1c0e"
    others = [
        ("acct_2", *row[1:]),
        ("acct_1", "acm", "etokens", *row[3:]),
        ("acct_1", "bolt", *row[2:]),
        (*row[:3], 1_800_001_800, *row[4:]),
        (*row[:4], 1, row[5]),
        (*row[:5], 1_800_000_000),
    ]
    assert len({build_identifier(*one) for one in (row, *others)}) == 1 + len(others)


def test_each_revision_of_a_slice_has_its_own_minute() -> None:
    start, end = 10 * HOUR, 10 * HOUR + 300
    assert [compute_event_time(start, end, revision) for revision in range(6)] == [
        *(end - 60 * revision - 1 for revision in range(5)),
        None,
    ]
