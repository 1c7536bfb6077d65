"""The probe sends requests only to http:// and https:// URLs."""

import pytest

from edgeproxy.probe.fetch import create_fetch
from edgeproxy.probe.steps import ProbeError


@pytest.mark.parametrize("url", ["shop.test/pay?session=1", "file:///etc/hostname"])
def test_url_without_a_server_is_refused(url: str) -> None:
    with pytest.raises(ProbeError, match=r"is no URL of http:// or https://$") as failed:
        create_fetch(None)(url, {})
    assert "session" not in str(failed.value)
