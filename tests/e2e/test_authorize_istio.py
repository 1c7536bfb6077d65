"""The EnvoyFilter of docs/edge/authorize.md says to Istio's gateway what its Envoy has, which other tests run."""

import yaml

from tests.support.companions import shown

MANAGER = "envoy.filters.network.http_connection_manager"


def test_the_patches_for_istio_are_the_configuration_of_envoy() -> None:
    envoy = yaml.safe_load(shown("envoy"))["typed_config"]
    istio = yaml.safe_load(shown("istio"))
    patches = {patch["applyTo"]: patch for patch in istio["spec"]["configPatches"]}
    assert all(patch["match"]["context"] == "GATEWAY" for patch in patches.values())

    filters = envoy["http_filters"]
    before = patches["HTTP_FILTER"]["match"]["listener"]["filterChain"]["filter"]
    assert (before["name"], before["subFilter"]["name"]) == (MANAGER, filters[1]["name"])
    assert patches["HTTP_FILTER"]["patch"]["operation"] == "INSERT_BEFORE"
    added = patches["HTTP_FILTER"]["patch"]["value"]
    server = added["typed_config"]["http_service"]["server_uri"]
    host, port = server["uri"].removeprefix("http://").split(":")
    assert server["cluster"] == f"outbound|{port}||{host}", "a service as Istio names its cluster"
    server |= {name: filters[0]["typed_config"]["http_service"]["server_uri"][name] for name in ("uri", "cluster")}
    assert added == filters[0]

    merged = patches["NETWORK_FILTER"]["patch"]
    assert (merged["operation"], set(merged["value"])) == ("MERGE", {"typed_config"})
    named = ("@type", "use_remote_address", "common_http_protocol_options")
    assert merged["value"]["typed_config"] == {name: envoy[name] for name in named}
    removed = patches["ROUTE_CONFIGURATION"]["patch"]["value"]
    assert removed == {"request_headers_to_remove": envoy["route_config"]["request_headers_to_remove"]}
