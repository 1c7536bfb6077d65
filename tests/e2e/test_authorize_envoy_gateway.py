"""The EnvoyPatchPolicy of docs/edge/authorize.md gives a listener of Envoy Gateway what other tests run as Envoy's."""

import copy
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.companions import program, shown

LISTENER, ROUTES, CLUSTER = (
    f"type.googleapis.com/envoy.config.{kind}"
    for kind in ("listener.v3.Listener", "route.v3.RouteConfiguration", "cluster.v3.Cluster")
)
MANAGER: dict[str, Any] = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "http",
    "upgrade_configs": [{"upgrade_type": "websocket"}],
    "http_filters": [
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }
    ],
}
"""The listener that Envoy Gateway generates for a Gateway, as far as the patches change it."""


def add(document: dict[str, Any], path: str, value: Any) -> None:
    """Apply one `add` of RFC 6902."""
    *way, last = path.removeprefix("/").split("/")
    place: Any = document
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if isinstance(place, list):
        place.insert(int(last), value)
    else:
        place[last] = value


def test_envoy_gateway_patches_yield_the_envoy_configuration_and_envoy_accepts_it(tmp_path: Path) -> None:
    envoy = yaml.safe_load(shown("envoy"))["typed_config"]
    policy = yaml.safe_load(shown("envoy gateway"))
    manager, routes, clusters = copy.deepcopy(MANAGER), {"name": "default/app/http"}, []
    listener = {"default_filter_chain": {"filters": [{"typed_config": manager}]}}
    for patch in policy["spec"]["jsonPatches"]:
        operation = patch["operation"]
        assert operation["op"] == "add"
        match patch["type"]:
            case kind if kind == CLUSTER:
                assert (operation["path"], operation["value"]["name"]) == ("", patch["name"])
                clusters.append(operation["value"])
            case kind if kind == ROUTES:
                add(routes, operation["path"], operation["value"])
            case kind:
                assert kind == LISTENER
                add(listener, operation["path"], operation["value"])
    authorization, router = manager["http_filters"]
    expected = copy.deepcopy(envoy["http_filters"][0])
    (cluster,) = clusters
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    uri = f"http://{address['address']}:{address['port_value']}"
    expected["typed_config"]["http_service"]["server_uri"] |= {"uri": uri, "cluster": cluster["name"]}
    assert authorization == expected
    assert router == MANAGER["http_filters"][0]
    for name in ("use_remote_address", "common_http_protocol_options", "upgrade_configs"):
        assert manager[name] == envoy[name]
    assert routes["request_headers_to_remove"] == envoy["route_config"]["request_headers_to_remove"]

    manager["route_config"] = routes | {"virtual_hosts": envoy["route_config"]["virtual_hosts"]}
    app = {**cluster, "name": "app", "load_assignment": {"cluster_name": "app"}}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    front = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "default_filter_chain": chain}
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump({"static_resources": {"listeners": [front], "clusters": [cluster, app]}}))
    command = [str(program("envoy")), "--mode", "validate", "-c", str(file), "--use-dynamic-base-id"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
