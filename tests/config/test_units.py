"""Numbers with units."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeproxy.config import units
from tests.config.conftest import refusal


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("5 s", 5.0),
        ("2min", 120.0),
        ("1.5h", 5400.0),
        ("1day", 86400.0),
        ("7d", 604800.0),
        ("1e2s", 100.0),
    ],
)
def test_durations_are_seconds(written, seconds):
    assert units.read_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("5", "'5' lacks a unit", units.A_TIME),
        ("5 sec", "'sec' is not a unit", "write one of ms, s, min, h, day, d"),
        ("soon", "'soon' is not a number with a unit", units.A_TIME),
        ("-5s", "'-5s' is not a number with a unit", units.A_TIME),
        ("", "'' is not a number with a unit", units.A_TIME),
        ("1_0s", "'1_0s' is not a number with a unit", units.A_TIME),
        ("٣s", "'٣s' is not a number with a unit", units.A_TIME),
        ("401day", "'401day' is too long", "at most 400day"),
        ("1e99day", "'1e99day' is too long", "at most 400day"),
        ("0s", "is zero", units.A_TIME),
        (["5s"], "is not a single value", units.A_TIME),
        ({"s": "5"}, "is a mapping", units.A_TIME),
        ("x" * 99, f"{'x' * 59 + '…'!r} is not a number with a unit", units.A_TIME),
    ],
)
def test_invalid_duration_is_refused_with_the_reason(written, what, hint):
    assert refusal(units.read_duration, written) == (what, hint)


def test_a_wait_may_be_none_at_all():
    assert units.read_wait("0s") == 0.0


@given(st.integers(1, 10**6), st.sampled_from(sorted(units.SECONDS)))
def test_duration_equals_number_times_unit(number, unit):
    seconds = number * units.SECONDS[unit]
    assume(seconds <= units.TIME_SECONDS_MAX)
    assert units.read_duration(f"{number}{unit}") == seconds


@given(st.floats(min_value=0.001, max_value=units.TIME_SECONDS_MAX))
def test_plain_values_pass_as_they_are(seconds):
    assert units.read_duration(seconds) == seconds


@pytest.mark.parametrize(
    ("written", "size"), [("0B", 0), ("512B", 512), ("64KiB", 65536), ("10 MiB", 10 << 20), ("1.5GiB", 3 << 29)]
)
def test_sizes_are_bytes(written, size):
    assert units.read_bytes(written) == size
    assert units.read_bytes(size) == size


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("64KB", "'KB' is not a unit", "write one of B, KiB, MiB, GiB"),
        ("64", "'64' lacks a unit", units.A_SIZE),
        ("0.5B", "'0.5B' is not a whole number of bytes up to 2^50", units.A_SIZE),
        ("1e9GiB", "'1e9GiB' is not a whole number of bytes up to 2^50", units.A_SIZE),
    ],
)
def test_invalid_size_is_refused_with_the_reason(written, what, hint):
    assert refusal(units.read_bytes, written) == (what, hint)


@pytest.mark.parametrize(
    ("written", "share"), [("20%", 0.2), ("0%", 0.0), ("100%", 1.0), ("0.5 %", 0.005), ("100.0%", 1.0), ("7%", 0.07)]
)
def test_shares_are_parts_of_one(written, share):
    assert units.read_share(written) == pytest.approx(share)
    assert units.read_share(share) == share


@pytest.mark.parametrize("written", ["", "20", "0.2", "%", "101%", "100.1%", "-1%", "1e1%", "20%%", "٣%"])
def test_invalid_share_is_refused(written):
    assert refusal(units.read_share, written) == (f"{written!r} is not a share", units.A_SHARE)


def test_a_sample_is_a_share_above_zero():
    assert [units.read_sample(written) for written in ("1%", "100%", 0.25)] == [0.01, 1.0, 0.25]
    assert refusal(units.read_sample, "0%") == ("is nothing at all", units.A_SAMPLE)
    assert refusal(units.read_sample, "0.00 %") == ("is nothing at all", units.A_SAMPLE)
    assert refusal(units.read_sample, ["1%"]) == ("is not a single value", units.A_SHARE)


def test_a_size_may_have_bounds():
    head = units.Size(1024, 2048)
    assert [head("1KiB"), head("2KiB"), head(1500)] == [1024, 2048, 1500]
    assert refusal(head, "1B") == ("'1B' is out of range", "from 1KiB to 2KiB")
    assert refusal(head, "3KiB") == ("'3KiB' is out of range", "from 1KiB to 2KiB")


def test_a_time_may_have_bounds():
    every = units.Time(0.1, 60.0)
    assert [every("100ms"), every("1min"), every(5.0)] == [0.1, 60.0, 5.0]
    assert refusal(every, "99ms") == ("'99ms' is out of range", "from 100ms to 1min")
    assert refusal(every, "61s") == ("'61s' is out of range", "from 100ms to 1min")
    assert refusal(every, "5") == ("'5' lacks a unit", units.A_TIME)


def test_a_body_may_be_of_any_size():
    assert units.read_body("none") is None
    assert units.read_body(None) is None
    assert units.read_body("10MiB") == 10 << 20


@pytest.mark.parametrize(
    ("written", "count", "seconds"),
    [
        ("60/min", 60, 60.0),
        ("100/10s", 100, 10.0),
        ("200/s", 200, 1.0),
        ("1000/h", 1000, 3600.0),
        ("1e6/day", 10**6, 86400.0),
        ("10/300ms", 10, 0.3),
        ("10 / 2 min", 10, 120.0),
        ("1/400day", 1, units.TIME_SECONDS_MAX),
        (f"{units.COUNT_MAX}/s", units.COUNT_MAX, 1.0),
    ],
)
def test_rates_are_a_count_and_seconds(written, count, seconds):
    rate = units.read_rate(written)
    assert rate == units.Rate(count, seconds)
    assert units.read_rate(rate) is rate


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("60", "'60' is not a rate", units.A_RATE),
        ("60/", "'60/' is not a rate", units.A_RATE),
        ("-1/s", "'-1/s' is not a rate", units.A_RATE),
        ("60/minute", "'minute' is not a unit", "write one of ms, s, min, h, day, d"),
        ("60/0s", "the window of '60/0s' is 0 s", "from 300ms to 400day"),
        ("60/299ms", "the window of '60/299ms' is 0.299 s", "from 300ms to 400day"),
        ("60/401day", "the window of '60/401day' is 3.46464e+07 s", "from 300ms to 400day"),
        ("0/s", "the count of '0/s' is 0", f"a whole number from 1 to {units.COUNT_MAX}"),
        ("1.5/s", "the count of '1.5/s' is 1.5", f"a whole number from 1 to {units.COUNT_MAX}"),
        ("268435456/s", "the count of '268435456/s' is 268435456", "a whole number from 1 to 268435455"),
        (None, "is not a single value", units.A_RATE),
    ],
)
def test_invalid_rate_is_refused_with_the_reason(written, what, hint):
    assert refusal(units.read_rate, written) == (what, hint)


@pytest.mark.parametrize("written", ["60/min", "5000/min", "10/s", "100/10s", "1000/day", "2/h", "5/300ms", "7/90s"])
def test_a_rate_is_printed_in_the_notation_of_files(written):
    assert str(units.read_rate(written)) == written


@given(st.integers(1, units.COUNT_MAX), st.floats(units.WINDOW_SECONDS_MIN, units.TIME_SECONDS_MAX))
def test_a_rate_is_read_as_it_was_written(count, seconds):
    rate = units.Rate(count, seconds)
    assert units.read_rate(str(rate)) == rate


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T12:30:00Z", datetime(2027, 1, 1, 12, 30, tzinfo=UTC)),
        ("2027-01-01t12:30:00z", datetime(2027, 1, 1, 12, 30, tzinfo=UTC)),
        ("2027-01-01 12:30:00.5+02:00", datetime(2027, 1, 1, 10, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_moments_are_unix_seconds(written, moment):
    assert units.read_moment(written) == moment.timestamp()
    assert units.read_moment(moment.timestamp()) == moment.timestamp()


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("2027-1-1", "'2027-1-1' is not a date"),
        ("2027-01-01T12:00:00", "'2027-01-01T12:00:00' is not a date"),
        ("tomorrow", "'tomorrow' is not a date"),
        ("2027-02-30", "'2027-02-30' is not in the calendar"),
        ("2027-01-01T25:00:00Z", "'2027-01-01T25:00:00Z' is not in the calendar"),
    ],
)
def test_invalid_moment_is_refused_with_the_reason(written, what):
    assert refusal(units.read_moment, written) == (what, units.A_MOMENT)


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_rfc_3339_is_read(moment):
    assert units.read_moment(moment.isoformat().replace("+00:00", "Z")) == moment.timestamp()


def test_switches_know_the_words_of_yaml():
    assert [units.read_switch(word) for word in ("true", "Yes", "ON", True)] == [True] * 4
    assert [units.read_switch(word) for word in ("false", "no", "Off", False)] == [False] * 4
    assert refusal(units.read_switch, "1") == ("'1' is neither", "write true or false")


def test_whole_numbers_have_bounds():
    some = units.Whole(1, 10)
    assert [some("1"), some("10"), some(5)] == [1, 10, 5]
    assert refusal(some, "0") == ("0 is out of range", "a whole number from 1 to 10")
    assert refusal(some, "11") == ("11 is out of range", "a whole number from 1 to 10")
    assert refusal(some, 11) == ("11 is out of range", "a whole number from 1 to 10")
    assert refusal(some, True) == ("is not a single value", "a whole number from 1 to 10")
    assert refusal(some, "1.0") == ("'1.0' is not a whole number", "a whole number from 1 to 10")
    assert refusal(some, "9" * 30) == (f"'{'9' * 30}' is not a whole number", "a whole number from 1 to 10")


def test_requests_at_once_are_a_number_or_none():
    assert [units.read_concurrency(value) for value in ("1", 5, "none", None)] == [1, 5, None, None]
    assert [units.read_own_concurrency(value) for value in ("1", 5, "none")] == [{"max": 1}, {"max": 5}, "none"]
    for reader in (units.read_concurrency, units.read_own_concurrency):
        hint = "none, or a whole number from 1 to 268435455"
        assert refusal(reader, "0") == ("0 is out of range", hint)
        assert refusal(reader, "off") == ("'off' is not a whole number", hint)
        assert refusal(reader, ["1"]) == ("is not a single value", hint)


def test_pause_status_is_402_or_403():
    assert [units.read_pause(value) for value in ("403", "402", 402)] == [403, 402, 402]
    assert refusal(units.read_pause, "404") == ("'404' is not a status for this", units.A_PAUSE)
    assert refusal(units.read_pause, ["402"]) == ("is not a single value", units.A_PAUSE)


def test_auto_is_a_worker_for_each_core():
    assert units.read_workers("auto") == len(os.sched_getaffinity(0)) == units.count_cores()
    assert units.read_workers("3") == 3
    assert refusal(units.read_workers, "0") == ("0 is out of range", "auto, or a whole number from 1 to 224")


def test_errors_show_neither_passwords_nor_whole_pages():
    assert units.format_value("redis://user:secret@host/0") == "'redis://…@host/0'"
    assert len(units.format_value("x" * 1000)) == units.SHOWN_CHARACTERS_MAX + 2
    assert units.format_value("a\nb") == r"'a\nb'"


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:hush@a:1/0",
        "redis://me:hu/sh@a:1/0",
        "postgresql://me:hu@sh@a/b",
        "https://me:h\nush@a",
        "me:hush@a:1",
    ],
)
def test_url_password_is_redacted_for_any_characters(url):
    assert "h" not in units.redact_password(url).partition("//")[2]
    assert "sh" not in units.format_value(url)
    assert units.redact_password(url).endswith(url.rpartition("@")[2])


def test_text_without_a_password_is_shown_unchanged():
    for value in ("http://a:1/b", "a@b", "x", "/p:q@r"):
        assert units.redact_password(value) == value
