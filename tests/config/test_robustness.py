"""Whatever a file says: it is a configuration, or every problem has a place, a reason and a remedy."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.problems import ConfigError

FULL = """\
region: eu-west
listen:
  - 0.0.0.0:8080
  - {address: "[::]:8080", tls: {cert: a, key: b, certificates: [{cert: c, key: d}], client_ca: e}}
access_log: {file: access.log, sample: 1%}
security_headers: true
admin: 127.0.0.1:9090
workers: auto
state: var/edge
trusted_proxies: [10.0.0.0/8]
hub: {url: "rediss://me:p%2Fw@h:6379/0", sync: 1s, on_loss: share, tls: {ca: i, cert: j, key: k, verify: true}}
per_ip: {rate: 200/s}
meters:
  requests: {count: requests, when: answered}
  tokens: {count: response_trailer, header: X-Tokens, pass: false}
tiers:
  basic:
    limits:
      - {rate: 60/min}
      - {rate: 5/s, name: burst, algorithm: hybrid, burst: 9, scope: key, mode: shadow, cost_header: X-C, sync: bounded}
    concurrency: 5
    quotas: [{meter: requests, per: month, included: 100, cap: hard, timezone: Europe/Berlin}]
    burst_credits: {earn: 10/s, max: 600}
    priority: 1
    message: Call us
  free: {limits: [], concurrency: none, burst_credits: off}
customers:
  acme: {tier: basic, limits: [{rate: 5000/min}], concurrency: none, quotas: [], burst_credits: off}
  other: {tier: free, paused: {why: unpaid, status: 402}, regions: {allow: [eu-west], prefer: eu-west}}
flags: {new-api: {percent: 10, tiers: [basic], customers: [acme]}}
overload: {lag: 50ms, requests: 4000}
keys: [{sha256: "%s", customer: acme, scopes: [read], expires: 2027-01-01}]
upstreams:
  api:
    endpoints: ["http://10.0.0.5:9001", {url: "https://b", weight: 2, region: us-east}]
    timeouts: {connect: 1s}
    pool: 5
    health: {path: /healthz, every: 5s}
    retry: {attempts: 2, budget: 20%}
    eject: {errors: 5, for: 30s}
    breaker: {pending: 1000}
    tls: {ca: f, cert: g, key: h, server_name: b.internal, verify: true}
routes:
  - {name: v1, host: api.example.com, path: /v1/*, methods: [GET, POST], upstream: api, scopes: [read]}
  - {path: /public/*, upstream: api, auth: none}
  - {path: /new/*, upstream: api, cost: 10, limits: [{rate: 5/min}], flag: new-api}
tables: {customers: 10, addresses: 10}
limits: {head: 32KiB, fields: 100, body: none, header_timeout: 10s, connections: 9, connections_per_ip: 9, pipelined: 9}
drain: 30s
legacy_headers: true
""".replace("%s", "ab" * 32)

PROBLEM = re.compile(r"edge\.yaml:[1-9]\d*: \S.*?: \S.*, \S.*")


def outcome(text: str | bytes) -> EdgeSettings | None:
    """Return the settings, or None if there are problems. Each problem must be complete."""
    Path("edge.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        return load_edge(Path("edge.yaml"), {}, files=False)
    except ConfigError as error:
        result = error.problems
    assert result
    lines = Path("edge.yaml").read_bytes().decode("utf-8", "replace").splitlines()
    for problem in result:
        assert PROBLEM.fullmatch(str(problem)), str(problem)
        assert problem.line <= len(lines) + 1
    return None


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("config"))
        yield


def test_full_configuration_passes_before_mutation():
    assert outcome(FULL) is not None


@given(st.data())
def test_text_with_a_piece_taken_out_or_put_in(data):
    start = data.draw(st.integers(0, len(FULL)))
    end = data.draw(st.integers(start, min(len(FULL), start + 8)))
    outcome(FULL[:start] + data.draw(st.text("abc: -,[]{}#\"'&*!|>%@`\n\t0\x00é", max_size=4)) + FULL[end:])


@given(st.binary(max_size=64))
def test_any_bytes_load_or_are_reported(content):
    assert outcome(content) is None


TREE = yaml.load(FULL, Loader=yaml.BaseLoader)


def places(value, path=()):
    """The path of every value in a tree."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from([path for path in places(TREE) if path]), odd, st.booleans())
def test_a_value_of_any_shape_in_any_place(path, value, added):
    tree = json.loads(json.dumps(TREE))
    node = tree
    for step in path[:-1]:
        node = node[step]
    if added and isinstance(node, dict):
        node[f"x{path[-1]}"] = value
    else:
        node[path[-1]] = value
    outcome(yaml.safe_dump(tree, allow_unicode=True))
