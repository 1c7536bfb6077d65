"""The table of bounds: its page is up to date, its settings exist, and each row has a test."""

import re
from pathlib import Path

import pytest

from edgeproxy.bounds.bound import BOTH, Bound, Reader, Side, Unit
from edgeproxy.bounds.clients import CLIENTS
from edgeproxy.bounds.services import CALLED, LISTENERS, SERVICES
from edgeproxy.bounds.table import BOUNDS, format_effect, format_number, render_tables
from edgeproxy.bounds.upstreams import UPSTREAMS
from tests.bounds.test_services import BODIES, SLOW_BODIES
from tests.edge.proxy.test_reader_bounds import CLIENT_CASES, CONNECTION_CASES, OTHER_NAMES, UPSTREAM_CASES

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs" / "edge" / "configuration.md").read_text()

WALKED = {*CLIENT_CASES, *UPSTREAM_CASES, *CONNECTION_CASES, *BODIES, *SLOW_BODIES} - OTHER_NAMES.keys()

CONNECTIONS = "edge/proxy/connections"
PIPELINING = f"{CONNECTIONS}/test_pipelining.py"
ATTACKS, FLOODS = f"{CONNECTIONS}/test_http2_attacks.py", "edge/http2/test_floods.py::test_a_flood_ends"
HTTP2, SERVICES_WALK = "edge/http2/test_connection.py", "bounds/test_services.py"
H2C, TIMES = f"{CONNECTIONS}/test_http2_upstream.py", "edge/proxy/test_timeouts.py"
PROBES = "edge/supervisor/test_probe.py::test_an_answer_to_a_probe_has_the_bounds_of_the_upstream"
LISTENER, HUB = "base/test_web_listener.py", "hub/test_bounds.py::test_too_large_or_invalid_answers_are_rejected"
PEERS = "e2e/test_hostile_peers.py::test_hostile_answer_ends_only_its_own_call"

HELD, REFUSED = (
    "edge/proxy/transport/test_held_budget.py",
    "test_refused_streams_are_retried_three_times_without_ejection",
)
CODING = "edge/body_usage/test_content_coding.py"
RESOLVER, STRIPE = "edge/supervisor/test_resolver.py", "collector/api/test_billing_delivery.py"
TUNNEL, TLS = "edge/proxy/exchange/test_tunnel.py", "edge/proxy/transport/test_server_tls.py"

TESTS = {
    "client token": "edge/proxy/routing/test_token_verifier.py::test_a_token_that_is_too_long_is_not_read",
    "client head time": f"{ATTACKS}::test_a_field_block_has_the_time_of_a_head_and_its_bytes_count_as_held",
    "client body pause": f"{TIMES}::test_incomplete_body_answers_408_at_the_total_timeout",
    "client body rate": f"{CONNECTIONS}/test_trickle.py::test_a_body_that_trickles_is_408",
    "client idle connection": f"{ATTACKS}::test_connection_silent_after_its_preface_is_closed",
    "client held bytes": f"{HELD}::test_endless_heads_cost_only_their_sender_503",
    "client connections": f"{CONNECTIONS}/test_caps.py::test_connections_bounds_the_whole_edge",
    "client connections of an address": f"{CONNECTIONS}/test_caps.py::test_connections_per_ip_bounds_an_address",
    "client password": "edge/proxy/routing/test_basic_users.py::test_credentials_are_read_as_the_rfc_says",
    "client passwords": "edge/proxy/routing/test_basic_users.py::test_flood_of_passwords_delays_no_other_request",
    "client rewritten path": "edge/proxy/routing/test_rewriting.py::test_path_that_cannot_be_rewritten_is_refused",
    "client read ahead": f"{PIPELINING}::test_read_ahead_is_bounded_while_no_answer_goes_out",
    "client pipelined requests": f"{PIPELINING}::test_no_more_requests_are_read_ahead_than_configured",
    "client streams": f"{HTTP2}::test_a_stream_error_ends_one_stream",
    "client handshake": f"{TLS}::test_handshake_beyond_its_bound_is_closed",
    "client empty records": f"{TLS}::test_flood_of_key_updates_ends_its_connection_and_a_few_do_not",
    "client field block": FLOODS,
    "client continuations": FLOODS,
    "client frame": f"{HTTP2}::test_a_connection_error_ends_it_with_goaway",
    "client settings": f"{HTTP2}::test_a_connection_error_ends_it_with_goaway",
    "client table": "edge/http2/test_hpack.py::test_a_block_that_cannot_be_read_is_refused_with_its_section",
    "client table sizes": "edge/http2/test_hpack.py::test_a_block_that_cannot_be_read_is_refused_with_its_section",
    "client body window": f"{HTTP2}::test_a_stream_error_ends_one_stream",
    "client idle frames": FLOODS,
    "client resets": FLOODS,
    "client unread answer": f"{ATTACKS}::test_unread_answers_leave_other_streams_their_share",
    "client unsent bytes": f"{ATTACKS}::test_client_that_reads_no_heads_is_not_read_further",
    "tunnel silence": f"{TUNNEL}::test_a_silent_websocket_gets_a_close_frame_on_both_sides",
    "tunnel close": f"{TUNNEL}::test_closed_websocket_client_frees_its_slot",
    "upstream body window": f"{H2C}::test_a_body_beyond_the_window_is_a_fault_of_the_upstream",
    "upstream streams": "edge/http2/test_requester.py::test_no_more_streams_than_the_upstream_allows",
    "upstream refused streams": f"{H2C}::{REFUSED}",
    "upstream kept request": f"{H2C}::test_a_stream_refused_within_its_body_is_retried_if_the_body_is_small",
    "upstream resets": "edge/http2/test_reset_budget.py::test_a_burst_is_bounded_and_comes_back_with_time",
    "upstream first settings": f"{H2C}::test_a_burst_waits_for_the_settings_of_a_new_connection",
    "upstream buffered body": "edge/proxy/exchange/test_buffer.py::test_a_body_that_is_too_large_is_413",
    "upstream connect": "edge/proxy/exchange/test_faults.py::test_an_upstream_that_takes_no_connection_in_time_is_504",
    "upstream answer time": f"{TIMES}::test_a_route_has_time_outs_of_its_own",
    "upstream answer pause": f"{TIMES}::test_a_routes_idle_time_cuts_an_answer_that_stops",
    "upstream total time": f"{TIMES}::test_a_request_that_takes_too_long_in_all_is_over",
    "health check head": PROBES,
    "health check interim answers": PROBES,
    "health check call head": PROBES,
    "health check call bytes": PEERS,
    "health check time": PEERS,
    "health check body": "edge/supervisor/test_probe.py::test_a_body_is_read_up_to_a_bound",
    "discovery addresses": f"{RESOLVER}::test_long_answer_of_a_name_server_is_cut_and_logged_once",
    "discovery look-up": f"{RESOLVER}::test_a_look_up_without_end_counts_as_failed_and_holds_up_no_other",
    "usage text": "edge/body_usage/test_body_usage.py::test_the_ends_of_a_long_text_are_read",
    "usage decompression": f"{CODING}::test_a_bomb_does_not_go_off",
    "usage window": f"{CODING}::test_zstd_decoder_reports_invalid_data_as_broken",
    "usage members": f"{CODING}::test_members_of_nothing_are_not_decoded_for_long",
    "usage read on": "edge/proxy/metering/test_bodies.py::test_reading_on_is_bounded_in_time_and_size",
    "issuer keys": f"{SERVICES_WALK}::test_a_key_set_has_so_many_keys_that_count",
    "collector batch": "collector/ledger/test_batches.py::test_too_long_body_is_quarantined_and_does_not_stop_its_edge",
    "collector events": "collector/events/test_event.py::test_invalid_bodies_are_refused",
    "collector event count": "collector/events/test_event.py::test_invalid_bodies_are_refused",
    "collector Stripe event": f"{STRIPE}::test_event_without_stripes_signature_is_refused_and_not_stored",
    "hub elements": HUB,
    "hub depth": HUB,
    "hub answer": "hub/test_bounds.py::test_an_endless_answer_is_rejected",
    "hub line": HUB,
    "hub time": "hub/test_hub.py::test_hanging_hub_is_unavailable_after_a_second",
    **{f"called server {name}": PEERS for name in ("head", "fields", "field", "interim answers", "framing")},
    **{f"{name} {what}": PEERS for _, name, _, _ in CALLED for what in ("body", "time")},
    **{
        f"{name} {what}": f"{LISTENER}::test_{test}"
        for _, name, _ in LISTENERS
        for what, test in (
            ("target", "heads_beyond_a_bound_get_the_status_that_names_it"),
            ("field", "heads_beyond_a_bound_get_the_status_that_names_it"),
            ("fields", "heads_beyond_a_bound_get_the_status_that_names_it"),
            ("connections", "web_listener_closes_silent_connections_for_new_requests"),
            ("connections of an address", "web_listener_closes_silent_connections_for_new_requests"),
            ("head time", "web_listener_enforces_a_deadline_for_each_head"),
            ("idle connection", "web_listener_enforces_a_deadline_for_each_head"),
        )
    },
}
"""The test of each row that is not walked: its file below tests/, and its function."""


def test_page_has_each_row_once() -> None:
    lines = list(render_tables())
    assert len(lines) == len(Reader) + len(BOUNDS)
    assert all(line.count(" | ") == 5 for line in lines if line.startswith("| "))


def test_each_row_is_walked_or_has_a_test_of_its_own() -> None:
    assert len(BOUNDS) == len(CLIENTS) + len(UPSTREAMS) + len(SERVICES), "two rows have one name"
    assert BOUNDS.keys() == WALKED | TESTS.keys()
    assert WALKED.isdisjoint(TESTS)
    assert {bound.reader for bound in BOUNDS.values()} == set(Reader)


@pytest.mark.parametrize("test", sorted(set(TESTS.values())))
def test_the_test_of_a_row_exists(test: str) -> None:
    file, _, function = test.partition("::")
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"^(async )?def {function}\b", text, re.MULTILINE), test


def test_settings_of_rows_are_on_the_page_of_settings() -> None:
    for bound in BOUNDS.values():
        if bound.setting is not None:
            place, _, setting = bound.setting.rpartition(".")
            section = CONFIGURATION.partition(f"## `{place}`\n")[2]
            assert f"\n| `{setting}` |" in section.partition("\n## ")[0], bound.setting


def test_edge_bounds_never_report_a_connection_error_of_the_upstream() -> None:
    for bound in UPSTREAMS:
        if bound.side is Side.EDGE:
            assert bound.error not in ("connection_terminated", "connection_refused", "connection_timeout")


@pytest.mark.parametrize(
    ("number", "unit", "setting", "text"),
    [
        (4096, Unit.BYTES, None, "4 KiB"),
        (1000, Unit.BYTES, None, "1,000 bytes"),
        (16384, Unit.BYTES_PER_SECOND, None, "16 KiB a second"),
        (64 << 20, Unit.BYTES, None, "64 MiB"),
        (100, Unit.FIELDS, "limits.fields", "`limits.fields`, 100 fields"),
        (None, Unit.BYTES, "limits.body", "`limits.body`, none by default"),
        (2_000_000, Unit.ITEMS, None, "2,000,000"),
    ],
)
def test_numbers_are_shown_with_their_unit(number: float | None, unit: Unit, setting: str | None, text: str) -> None:
    bound = Bound("a", Reader.CLIENTS, BOTH, "a", number, unit, Side.CLIENT, "b", setting=setting)
    assert format_number(bound) == text


def test_effects_name_status_and_error() -> None:
    bound = Bound("a", Reader.UPSTREAMS, BOTH, "a", 1, Unit.ITEMS, Side.EDGE, "b", status=502, error="c", effect="d")
    assert format_effect(bound) == "502 `c`; d"
    assert format_effect(bound._replace(status=None, error=None)) == "d"
