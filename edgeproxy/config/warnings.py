"""Warnings about settings that edges, collectors and beacons share. Pure."""

from collections.abc import Iterator, Sequence

from edgeproxy.config.addresses import Network, is_internal_network
from edgeproxy.config.tracing import Tracing

DEMONSTRATION = frozenset(
    (
        "31541e48aed7e89e6a111731ebb31fa5c3fa9b9b483803331061f5d2ae165595",  # ek_demo_basic
        "913a34558ad21bcf70e94d5c791c254d025109fb9bae4d1d1c9d2e2444b76ad1",  # ek_demo_pro
        "641622c0811e1c11d323ae96d7df2c2d180e4798fa05ad4be7a8cb32b12cd2fd",  # ek_demo_enterprise
        "f281af89288ec6166d49fa2930ce4be9d86805193ab762415ce1ac8429ed2442",  # demo-edge-token
        "d61d50778db132ec63cf685599d52d5c5f2a4085d87c0248eed5e20d614ecef5",  # demo-beacon-token
        "d2771ba6a5ce166531a002e101dc6f4259fe1926281ac28f9bdaedf21e381866",  # demo-read-token
        "20f4dc1d72e43ab98230c82437018b295d220d05ba6108242d1a164c0b5f1b22",  # demo-service-token
        "9b734e0b3098355db9451c34595db8184a64c0976abc7fc88ae1a428ec48bdc5",  # demo-pro-token
        "7db5cc1a8926c21400b54e1ba69bc6cac9b3bb916ce8df7afdea3d9aca466cf0",  # demo-metrics-token
    )
)
"""The SHA-256 of the keys and tokens in the files of config/, which are public."""
NETWORK_BITS_MIN = {4: 8, 6: 16}
"""Minimum bits of a network's prefix, by IP version. A larger network belongs to no single owner."""


def list_trusted_proxies_warnings(networks: Sequence[Network]) -> Iterator[str]:
    """Yield warnings about trusted proxies in networks of the public, for an edge, a collector or a beacon."""
    for index, network in enumerate(networks):
        if network.prefixlen < NETWORK_BITS_MIN[network.version] and not is_internal_network(network):
            yield (
                f"trusted_proxies.{index}: {network} lets anybody say whose address a request comes from, which limits "
                "and records go by: name the proxies' own addresses"
            )


def list_tracing_warnings(tracing: Tracing | None) -> Iterator[str]:
    """Yield warnings about spans that others can read, for an edge or a collector."""
    if tracing is None:
        return
    if not tracing.tls.verify:
        yield "tracing.tls.verify: false trusts whoever answers, who gets the spans: write ca: FILE"
    if tracing.is_exposed:
        yield f"tracing.endpoint: {tracing.endpoint} lets all on the way read the spans: write https://"
