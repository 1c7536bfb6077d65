"""Tests that fail behind the edge and pass behind nginx, each with its heading in docs/start/compatibility.md."""

UPGRADES, FIELDS, PATHS, ENDS = "Upgrades", "Fields", "Paths", "Ends"

DIFFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "express": (
        ("HEAD should output the same headers as GET requests", FIELDS),
        ("req .ip when X-Forwarded-For is present", FIELDS),
        ("req .ip when X-Forwarded-For is not present", FIELDS),
        ("req .ips when X-Forwarded-For is present", FIELDS),
        ("should default to the socket addr if X-Forwarded-Proto not present", FIELDS),
        ("res .sendFile(path, fn) should invoke the callback when client aborts", ENDS),
        ("should set the response status code to 101", UPGRADES),
        ("downloads GET /files/../index.js", PATHS),
    ),
    "aiohttp": (
        ("test_upgrade_connection_not_released_after_read", UPGRADES),
        ("test_response_101_204_no_content_length_http11[pyloop-101]", UPGRADES),
        ("test_no_body_for_1xx_204_304_responses[pyloop-version0-101]", UPGRADES),
        ("test_no_body_for_1xx_204_304_responses[pyloop-version1-101]", UPGRADES),
        ("test_sendfile_after_client_disconnect", ENDS),
    ),
    "ws": (("doesn't emit the 'connection' event if socket is closed prematurely", ENDS),),
    "axios": (("should throw an error if http server that aborts a chunked request", ENDS),),
}
"""(part of the test's name, heading), by suite."""
